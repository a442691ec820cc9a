"""Services that share a namespace of another one's container: they follow it, and are never left without a network."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import FAST, after, plain
from support import IMAGE, Project


def on_a_network(project: Project, service: str) -> bool:
    """Return whether a service sees an interface with an address other than its loopback's."""
    found = project.compose("exec", "-T", service, "ip", "-4", "-o", "addr")
    return any(" lo " not in line for line in found.splitlines())


def findings(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    found = [each for each in document["findings"] if each["id"] == "network.shared"]
    return {each["service"]: (each["status"], each["summary"]) for each in found}


@pytest.fixture
def shop(project: Project) -> Project:
    write(project)
    assert project.inv("services.start", "--no-fixes", env=FAST).code == 0
    assert on_a_network(project, "web")
    return project


def write(project: Project, **vpn: Any) -> None:
    sharing = {"depends_on": after(vpn="started")}
    project.services(
        vpn=plain(ipc="shareable", **vpn),
        web=plain(network_mode="service:vpn", **sharing),
        memory=plain(ipc="service:vpn", **sharing),
        files=plain(volumes_from=["vpn"], **sharing),
    )


def test_a_restart_by_hand_is_found_and_put_right(shop: Project) -> None:
    shop.docker("restart", "-t", "0", shop.container("vpn")["Id"])
    assert not on_a_network(shop, "web")
    kept = shop.container("files")["State"]["StartedAt"]
    document = shop.inv("services.fixes", "--json", env=FAST).json()
    assert [each["action"] for each in document["fixes"] if each["ok"]] == [
        "restart memory: the ipc that it runs with is shared no longer",
        "restart web: it runs without a network",
    ]
    assert findings(document) == dict.fromkeys(
        ("files", "memory", "web"), ("ok", "it shares what it is configured to share")
    )
    assert on_a_network(shop, "web")
    # Volumes outlast the restart of their container.
    assert shop.container("files")["State"]["StartedAt"] == kept
    assert shop.inv("services.start", "--no-fixes", "--json", env=FAST).json()["ok"]


def test_they_follow_a_start_and_a_restart(shop: Project) -> None:
    write(shop, environment={"A": "2"})
    old = {each["Id"] for each in shop.containers()}
    assert shop.inv("services.start", "-s", "vpn", "--no-fixes", env=FAST).code == 0
    assert not old & {each["Id"] for each in shop.containers()}
    assert on_a_network(shop, "web")
    new = {each["Id"] for each in shop.containers()}
    assert shop.inv("services.restart", "-s", "vpn", "--no-fixes", env=FAST).code == 0
    assert {each["Id"] for each in shop.containers()} == new
    assert on_a_network(shop, "web")
    # A container that somebody removed, and one that was made by Compose alone.
    shop.docker("rm", "-f", shop.container("vpn")["Id"])
    assert shop.inv("services.start", "--no-fixes", env=FAST).code == 0
    assert on_a_network(shop, "web")
    before = {each["Id"]: each["State"]["StartedAt"] for each in shop.containers()}
    assert shop.inv("services.start", "--no-fixes", env=FAST).code == 0
    assert {each["Id"]: each["State"]["StartedAt"] for each in shop.containers()} == before


def test_one_that_was_made_again_by_a_fix_is_up_to_date(shop: Project) -> None:
    shop.compose("up", "-d", "--no-deps", "--force-recreate", "vpn")
    assert shop.inv("services.fixes", env=FAST).code == 0
    assert on_a_network(shop, "web")
    assert shop.inv("services.start", "--dry").stdout.strip() == "nothing to do: all is ready"


def test_an_inline_config_that_changed_renews_who_shares_its_network(project: Project) -> None:
    document: dict[str, Any] = {
        "services": {
            "vpn": plain(image=IMAGE, configs=["page"]),
            "web": plain(image=IMAGE, network_mode="service:vpn"),
        },
        "configs": {"page": {"content": "one"}},
    }
    project.write(document)
    assert project.inv("services.start", "--no-fixes", env=FAST).code == 0
    document["configs"]["page"]["content"] = "two"
    project.write(document)
    done = project.inv("services.restart", "--no-fixes", env=FAST)
    assert done.code == 0, done
    assert on_a_network(project, "web")


def test_the_network_of_a_container_outside_the_project(project: Project) -> None:
    outside = f"{project.name}-outside"
    project.docker("run", "-d", "--name", outside, IMAGE, "sleep", "600")
    try:
        project.services(web=plain(network_mode=f"container:{outside}"))
        assert project.inv("services.start", "--no-fixes", env=FAST).code == 0
        project.docker("restart", "-t", "0", outside)
        document = project.inv("services.fixes", "--json", env=FAST).json()
        assert [each["action"] for each in document["fixes"]] == ["restart web: it runs without a network"]
        assert findings(document) == {"web": ("ok", f"it shares the network of {outside}")}
        assert on_a_network(project, "web")
        project.docker("stop", "-t", "0", outside)
        document = project.inv("services.fixes", "--json", env=FAST).json()
        assert document["fixes"] == []
        assert findings(document) == {"web": ("fail", "it runs without a network")}
        # Another one of the same name.
        project.docker("rm", "-f", outside)
        project.docker("run", "-d", "--name", outside, IMAGE, "sleep", "600")
        document = project.inv("services.fixes", "--json", env=FAST).json()
        assert [each["ok"] for each in document["fixes"]] == [True]
        assert on_a_network(project, "web")
    finally:
        project.docker("rm", "-f", outside, check=False)
