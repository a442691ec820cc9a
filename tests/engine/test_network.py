"""The network phase of the fixes on small projects: what a service can reach, and old addresses."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any

import pytest
from docker import APIClient
from support import IMAGE, Project


def of(document: dict[str, Any], id_: str, service: str) -> list[dict[str, Any]]:
    """Return the findings of one check of one service."""
    return [each for each in document["findings"] if (each["id"], each["service"]) == (id_, service)]


_SERVES = ["nc", "-ll", "-p", "9000", "-e", "cat"]


@pytest.mark.mechanism
def test_what_a_service_cannot_reach_is_told_with_the_reason(project: Project) -> None:
    environment = {"STORE_HOST": "store", "STORE_PORT": "9001", "METRICS_HOST": "store", "METRICS_PORT": "8125"}
    project.services(
        store={"command": _SERVES, "expose": ["9000"]},
        right={"depends_on": ["store"]},
        wrong_port={"depends_on": ["store"], "environment": environment},
        wrong_name={"depends_on": ["store"]},
        alone={"depends_on": ["store"], "network_mode": "none"},
    )
    project.inv("up", "--no-fixes")
    # Its own hosts file hides the name that the network knows, behind an address that nobody has.
    subnet = project.client.inspect_network(f"{project.name}_default")["IPAM"]["Config"][0]["Subnet"]
    nobody = str(ipaddress.ip_network(subnet)[-3])
    project.compose("exec", "-T", "wrong_name", "sh", "-c", f"echo {nobody} store >> /etc/hosts")
    document = project.inv("services.fixes", "--json", timeout=180).json()
    reach = {each["service"]: each for each in document["findings"] if each["id"] == "network.reach"}
    assert {name: (each["status"], each["summary"]) for name, each in reach.items()} == {
        "right": ("ok", "it reaches store:9000"),
        "wrong_port": ("fail", "store:9001 refuses its connections"),
        "wrong_name": ("fail", "store:9000 does not answer it"),
    }
    assert "STORE_HOST" in reach["wrong_port"]["evidence"]
    assert re.search("timed out|No route to host", reach["wrong_name"]["evidence"])
    assert document["fixes"] == []


@pytest.mark.mechanism
@pytest.mark.timeout(600)
def test_a_client_that_holds_an_old_address_is_restarted_and_named(project: Project, engine: APIClient) -> None:
    client = (
        "address=$(ping -c 1 store | sed -n 's/^PING.*(\\(.*\\)).*/\\1/p'); "
        "while true; do nc -w 4 $$address 9000 </dev/null >/dev/null 2>&1; sleep 0.2; done"
    )
    project.services(
        store={"command": _SERVES, "expose": ["9000"], "init": True},
        client={"depends_on": ["store"], "command": ["sh", "-c", client], "init": True},
        other={"depends_on": ["store"], "init": True},
    )
    assert project.inv("up", "--json").json()["ok"]
    _move(project, "store")
    before = {name: project.container(name)["State"]["StartedAt"] for name in ("store", "client", "other")}
    result = project.inv("services.fixes", "--json", timeout=180)
    assert result.code == 0, result
    actions = [each["action"] for each in result.json()["fixes"]]
    assert len(actions) == 1
    assert actions[0].startswith("restart client: it holds an old address of store: ")
    after = {name: project.container(name)["State"]["StartedAt"] for name in before}
    assert {name for name in before if before[name] != after[name]} == {"client"}
    again = project.inv("services.fixes", "--json", timeout=180).json()
    assert again["fixes"] == []
    # Where nothing in the container can ask and there is no attempt to see, there is nothing to say either.
    assert {each["status"] for each in of(again, "network.stale", "client")} <= {"ok"}


def _move(project: Project, service: str) -> None:
    """Recreate a service's container at another address; others take the old one meanwhile."""
    network = f"{project.name}_default"
    old = _address(project, service)
    strangers = []
    try:
        while _address(project, service) == old:
            project.compose("rm", "-sf", service)
            label = f"com.docker.compose.project={project.name}"  # removed with the project, whatever happens
            strangers.append(project.docker("run", "-d", "--network", network, "--label", label, IMAGE).strip())
            project.compose("up", "-d", "--no-deps", service)
            assert len(strangers) < 6, "it always gets its address back"
    finally:
        for stranger in strangers:
            project.docker("rm", "-f", stranger)


def _address(project: Project, service: str) -> str:
    networks = project.container(service)["NetworkSettings"]["Networks"]
    address = str(networks[f"{project.name}_default"]["IPAddress"])
    socket.inet_aton(address)
    return address
