"""The network phase: what has to be reached, what the script's answers mean, which addresses are old ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from builders import START, container, needs, project, service

from stackhand.checks.check import Fix
from stackhand.checks.connections import clients
from stackhand.engine.api.containers import Attachment
from stackhand.engine.compose.project import Project
from stackhand.services.changes import networks
from stackhand.services.checks import reach, stale_address, tcp_probe
from stackhand.services.checks.reach import Target
from stackhand.services.checks.stale_address import Addresses
from stackhand.services.checks.tcp_probe import ConnectionReport, PendingConnection, Reply

NOW = (START + timedelta(minutes=5)).timestamp()


def wanted(stack: Project, name: str = "web", *, exposed: tuple[int, ...] = (9000,)) -> list[tuple[str, int, bool]]:
    """The targets of one service, where everything runs."""
    running = [container(each, exposed=frozenset(exposed)) for each in stack.services]
    found = reach.targets(stack, stack.services[name], clients(stack), running)
    return [(each.host, each.port, each.promised) for each in found]


def pair(*, server: dict[str, Any] | None = None, entry: Any = "db", **web: Any) -> Project:
    """A web that depends on a db, on one network."""
    more = {"networks": ("default",), **web}
    return project(service("web", entry, **more), service("db", **{"networks": ("default",), **(server or {})}))


ENVIRONMENT = {"DB_HOST": "db", "DB_PORT": "5432"}


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        pytest.param(pair(), [("db", 9000, False)], id="what it depends on, by the declared port"),
        pytest.param(pair(environment=ENVIRONMENT), [("db", 5432, True)], id="an endpoint of its environment"),
        pytest.param(pair(networks=("other",)), [], id="no network in common"),
        pytest.param(pair(networks=(), raw={"network_mode": "none"}), [], id="no network at all"),
        pytest.param(pair(entry=needs("db", "service_completed_successfully")), [], id="a one-shot"),
        pytest.param(
            pair(environment={"STATSD_HOST": "db", "STATSD_PORT": "8125"}),
            [("db", 9000, False)],
            id="metrics go by UDP",
        ),
        pytest.param(
            pair(
                environment={"LOG_HOST": "db", "LOG_PORT": "5140"},
                server={"raw": {"expose": ["5140/udp"]}},
            ),
            [("db", 9000, False)],
            id="a port declared for UDP",
        ),
        pytest.param(
            pair(server={"raw": {"ports": [{"target": 80, "protocol": "tcp"}, {"target": 443, "protocol": "udp"}]}}),
            [("db", 80, False), ("db", 9000, False)],
            id="published ports",
        ),
    ],
)
def test_what_a_service_has_to_reach(stack: Project, expected: list[tuple[str, int, bool]]) -> None:
    assert wanted(stack) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # A shared env file names the database to those as well who are on no network of the project's.
        ("none", []),
        ("host", []),
        ("container:abc", []),
        ("service:side", [("db", 5432, True)]),
        ("service:alone", []),
        ("service:web", []),
    ],
)
def test_a_service_with_another_services_network_or_none(mode: str, expected: list[tuple[str, int, bool]]) -> None:
    stack = project(
        service("web", "db", networks=(), raw={"network_mode": mode}, environment=ENVIRONMENT),
        service("db", networks=("default",)),
        service("side", networks=("default",)),
        service("alone", networks=(), raw={"network_mode": "none"}),
    )
    assert wanted(stack) == expected


def test_a_range_of_ports_is_asked_for_a_few() -> None:
    assert len(wanted(pair(), exposed=tuple(range(10000, 20000)))) == 4


def test_what_does_not_run_is_not_asked_for() -> None:
    stack = pair(environment=ENVIRONMENT)
    found = reach.targets(stack, stack.services["web"], clients(stack), [container("db", status="exited")])
    assert found == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("reply db 5432 0 ?", Reply("reached")),
        ("reply db 5432 1 10.0.0.2 bash: connect: Connection refused", "refused"),
        (
            "\036reply db 5432 1 - bash: db: Name or service not known bash: /dev/tcp/db/5432: Invalid argument",
            "unresolved",
        ),
        ("reply db 5432 1 ? nc: bad address 'db'", "unresolved"),
        ("reply db 5432 1 - [Errno -3] Temporary failure in name resolution", "unresolved"),
        ("reply db 5432 1 10.0.0.2 bash: connect: No route to host", "silent"),
        ("reply db 5432 124 10.0.0.2 no answer within 2 s", Reply("silent", "no answer within 2 s", "10.0.0.2")),
        ("reply db 5432 124 10.0.0.2", Reply("silent", "no answer", "10.0.0.2")),
        ("reply db 5432 1 ? nc: timed out", "silent"),
    ],
)
def test_what_the_programs_say(line: str, expected: Any) -> None:
    reply = tcp_probe.parse(f"\036tool bash\n\036{line}\n").replies["db", 5432]
    assert expected in (reply, reply.result)


def test_pending_connections_come_from_the_kernels_table() -> None:
    text = """\
\036now 1795460000
   2: 0507D30A:BBCE 0707D30A:2328 02 00000001:00000000 01:00000024 00000003 10001        0 9571218 2 00 100 0 0 10 -1
   3: 0507D30A:BBCF 0707D30A:2328 01 00000000:00000000 02:00000024 00000000 10001        0 9571219 2 00 100 0 0 10 -1
\036tool
"""
    seen = tcp_probe.parse(text)
    assert seen.pending == (PendingConnection("10.211.7.7", 9000, 15.0),)
    assert seen.now == 1795460000
    assert "neither bash" in seen.problem


def test_what_one_of_several_containers_does_not_reach_is_not_reached() -> None:
    good, bad = (
        ConnectionReport({("db", 1): Reply("reached")}, tool="bash"),
        ConnectionReport({("db", 1): Reply("silent")}, tool="bash"),
    )
    assert tcp_probe.merged([good, bad, good]).replies["db", 1].result == "silent"


PROMISED, DECLARED = Target("db", "db", 1, "DB_HOST names it", True), Target("db", "db", 1, "it depends on it", False)


@pytest.mark.parametrize(
    ("target", "reply", "status"),
    [
        (PROMISED, Reply("reached"), "ok"),
        (PROMISED, Reply("refused", "Connection refused"), "fail"),
        (DECLARED, Reply("refused", "Connection refused"), "ok"),
        (DECLARED, Reply("unresolved", "Name or service not known"), "fail"),
        (DECLARED, Reply("silent", "No route to host", "10.0.0.2"), "fail"),
    ],
)
def test_what_is_said_of_a_target(target: Target, reply: Reply, status: str) -> None:
    (finding,) = reach.evaluate_reach("web", [target], ConnectionReport({("db", 1): reply}, tool="bash"))
    assert finding.status == status
    assert not finding.fix
    assert finding.blames == (() if status == "ok" else ("db",))
    assert status == "ok" or (finding.remedy and finding.subject == "db:1" and reply.said in finding.evidence)


def test_a_container_without_means_is_not_asked() -> None:
    (finding,) = reach.evaluate_reach(
        "web", [PROMISED], ConnectionReport({}, problem="there is no shell in its container")
    )
    assert (finding.status, finding.evidence) == ("skip", "there is no shell in its container")


NETWORK = Addresses(("10.0.0.0/24", "fd00::/64"), frozenset({"10.0.0.1", "10.0.0.3"}))


@pytest.mark.parametrize(
    ("address", "port", "in_vain"),
    [
        ("10.0.0.2", 1, True),
        ("10.0.0.3", 1, False),
        ("10.0.0.2", 2, False),
        ("192.0.2.1", 1, False),
        ("fd00::5", 1, True),
    ],
)
def test_only_an_address_of_the_network_that_nobody_has_is_tried_in_vain(
    address: str, port: int, in_vain: bool
) -> None:
    found = stale_address.to_unused_addresses([PendingConnection(address, port, 1)], NETWORK, [DECLARED])
    assert bool(found) is in_vain


@pytest.mark.parametrize(
    ("age", "since", "status"),
    [
        (1, 60, "fail"),
        (31, 60, "fail"),
        (63, 60, "warn"),
        (1, 2, "warn"),
    ],
)
def test_an_attempt_is_certain_when_it_began_after_the_move(age: float, since: float, status: str) -> None:
    pending = {PendingConnection("10.0.0.2", 1, age): ["db"]}
    place = {"shop_default": Attachment("10.0.0.9")}
    there = [container("db", started_at=START + timedelta(seconds=300 - since), attachments=place)]
    certain = stale_address.surely_old(pending, NOW, there)
    finding = stale_address.evaluate_stale("web", pending, certain, there, Fix("restart", lambda: None))
    assert (finding.status, finding.fix is not None) == (status, status == "fail")
    assert finding.blames == (), "it holds the address itself"
    assert "10.0.0.2" in finding.summary
    assert "db is at 10.0.0.9" in finding.evidence


def test_one_of_several_servers_that_moved_later_makes_it_uncertain() -> None:
    pending = {PendingConnection("10.0.0.2", 1, 1): ["db", "replica"]}
    there = [container("db"), container("replica", started_at=START + timedelta(seconds=299))]
    assert stale_address.surely_old(pending, NOW, there) == []


def test_an_attempt_from_before_a_fix_moved_its_server_is_uncertain() -> None:
    pending = {PendingConnection("10.0.0.2", 1, 1): ["db"]}
    assert stale_address.surely_old(pending, NOW, [container("db")])
    assert stale_address.surely_old(pending, NOW, [container("db")], {"db": NOW - 1}) == []


@pytest.mark.parametrize("mode", ["none", "host", "service:db"])
def test_a_service_without_networks_of_its_own_is_on_none(mode: str) -> None:
    stack = project(service("web", raw={"network_mode": mode}), networks={"default": "shop_default"})
    assert networks.networks_of(stack, stack.services["web"]) == {}


def test_links_are_given_back_as_compose_has_them() -> None:
    web = service("web", raw={"links": ["db:base", "cache"]})
    there = [container("db"), container("db", number=2), container("cache")]
    assert networks._links(web, there) == [("shop-db-1", "base"), ("shop-db-2", "base"), ("shop-cache-1", "cache")]
