"""A service that holds the old address of a dependency: it resolved the name once, and the dependency has moved since.

The evidence is in the kernel's table of connections: a pending connection to an address of the project's networks
that no container has, on a port that a dependency listens on. One that began before the dependency was where it is
now may be the last of its kind; one that began later shows that the address is held.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from stackhand.checks.check import Check, Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Container
from stackhand.services.checks import reach
from stackhand.services.checks.reach import Target
from stackhand.services.checks.tcp_probe import ConnectionReport, PendingConnection

# All in seconds. Where the pending connections may be from before the move, the next one is waited for: they end by
# the client's own time limit. A client that has made none for a while has found the way.
_WATCH = 20.0
_QUIET = 3.0
_PAUSE = 0.5
# Clocks of whole seconds, and a name server that may be a moment behind.
_MARGIN = 2.0

# Pending connections, each with the dependencies that listen on its port.
Unanswered = Mapping[PendingConnection, list[str]]


@dataclass(frozen=True)
class Addresses:
    """The addresses of the networks that a service is on: their ranges, and those that are in use."""

    ranges: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()


def to_unused_addresses(pending: Iterable[PendingConnection], known: Addresses, wanted: Sequence[Target]) -> Unanswered:
    """Return the pending connections to addresses that nobody has."""
    import ipaddress

    ranges = [ipaddress.ip_network(each) for each in known.ranges]
    found: dict[PendingConnection, list[str]] = {}
    for connection in pending:
        servers = list(dict.fromkeys(target.server for target in wanted if target.port == connection.port))
        address = ipaddress.ip_address(connection.address)
        inside = any(address.version == each.version and address in each for each in ranges)
        if servers and inside and connection.address not in known.used:
            found[connection] = servers
    return found


def surely_old(
    pending: Unanswered,
    now: float,
    containers: Iterable[Container],
    moved: Mapping[str, float] = MappingProxyType({}),
) -> list[PendingConnection]:
    """Return those that began when the dependencies were already where they are now: the address is an old one.

    A dependency is there since its start, or since a fix `moved` it.
    """
    since = dict(moved)
    for container in containers:
        if container.running and container.started_at:
            since[container.service] = max(since.get(container.service, 0.0), container.started_at.timestamp())
    return [
        connection
        for connection, servers in pending.items()
        if all(server in since and now - connection.age - _MARGIN > since[server] for server in servers)
    ]


def evaluate_stale(
    service: str,
    pending: Unanswered,
    certain: Sequence[PendingConnection],
    containers: Iterable[Container],
    restart: Fix | None = None,
) -> Verdict:
    """Return the verdict about connections to unused addresses, of which some are `certain` to be old ones."""
    connection = (certain or list(pending))[0]
    servers = pending[connection]
    names = " or ".join(servers)
    current = _current(containers)
    where = ", ".join(f"{name} is at {current[name]}" for name in servers if name in current)
    evidence = f"it tries to connect to {connection.address}:{connection.port}, which no container has; {where}"
    remedy = f"`docker compose restart {service}` has it look the name up again"
    if certain:
        summary = f"it holds an old address of {names}: {connection.address}"
        return fail(summary, evidence, remedy, subject=names, fix=restart)
    summary = f"it may hold an old address of {names}: {connection.address}"
    return warn(summary, evidence, remedy, subject=names)


def check_stale(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a service does not connect to where a dependency was before."""
    wanted = reach.targets_of(context, service)
    if not wanted or context.running(service) is None or _shares_its_network(context, service):
        return
    report = reach.report(context, service)
    if report.problem and not report.pending:
        return
    pending = _unanswered(context, service, report, wanted)
    certain = surely_old(pending, report.now, context.containers(), context.address_changed_at)
    last = began = time.monotonic()
    while pending and not certain and time.monotonic() < began + _WATCH:
        time.sleep(_PAUSE)
        report = reach.ask(context, service, ())
        later = _unanswered(context, service, report, wanted)
        if later:
            pending, last = later, time.monotonic()
        elif time.monotonic() > last + _QUIET:
            pending = {}
        certain = surely_old(later, report.now, context.containers(), context.address_changed_at)
    if pending:
        restart = Fix("restart", partial(context.restart, service), "restart")
        yield evaluate_stale(service, pending, certain, context.containers(), restart)
    else:
        yield ok("it connects to no address that nobody has")


def _unanswered(context: CheckContext, service: str, report: ConnectionReport, wanted: Sequence[Target]) -> Unanswered:
    ports = {target.port for target in wanted}
    pending = [connection for connection in report.pending if connection.port in ports]
    # The engine is asked only where there is something to judge, which is rare.
    return to_unused_addresses(pending, addresses(context, service), wanted) if pending else {}


def addresses(context: CheckContext, service: str) -> Addresses:
    """Return the addresses of all networks that the containers of a service are on, as the engine has them now."""
    names = {
        name for each in context.containers() if each.service == service and each.running for name in each.networks
    }
    found = [context.engine.addresses(name) for name in sorted(names)]
    return Addresses(
        tuple(each for ranges, _ in found for each in ranges), frozenset(each for _, used in found for each in used)
    )


def _current(containers: Iterable[Container]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for each in containers:
        places = [attachment.address for attachment in each.attachments.values() if attachment.address]
        found.setdefault(each.service, []).extend(places if each.running else ())
    return {name: " and ".join(places) for name, places in found.items() if places}


def _shares_its_network(context: CheckContext, service: str) -> bool:
    """Return whether connections of other services are among those that a container of this one sees."""
    if context.project.services[service].raw.get("network_mode"):
        return True
    return any(each.raw.get("network_mode") == f"service:{service}" for each in context.project.services.values())


CHECKS = (Check("network.stale", "network", check_stale),)
