"""A service that holds the old address of a dependency: it looked the name up once, and the dependency has moved since.

The evidence is in the kernel's table of connections: an attempt at an address of the project's networks that nobody
has, on a port that a dependency listens on. One that began before the dependency was where it is now may be the last
of its kind; one that began later shows that the address is held.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.engine.api.containers import Container
from stackhand.model import Finding
from stackhand.services.checks import reach
from stackhand.services.checks.reach import Target
from stackhand.services.checks.tcp_probe import Attempt, Seen

# How long the next attempt is waited for where those seen may be from before the move: they end by the client's own
# time limit. A client that has made none for a while has found the way.
_WATCH = 20.0
_QUIET = 3.0
_PAUSE = 0.5
# Clocks of whole seconds, and a name server that may be a moment behind.
_MARGIN = 2.0


@dataclass(frozen=True)
class Addresses:
    """The addresses of the networks that a service is on: which ranges there are, and which are somebody's."""

    ranges: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()


def in_vain(attempts: Iterable[Attempt], known: Addresses, wanted: Sequence[Target]) -> Mapping[Attempt, list[str]]:
    """Return the attempts at addresses that nobody has, each with the dependencies that listen on its port."""
    import ipaddress

    ranges = [ipaddress.ip_network(each) for each in known.ranges]
    found: dict[Attempt, list[str]] = {}
    for attempt in attempts:
        servers = list(dict.fromkeys(each.server for each in wanted if each.port == attempt.port))
        address = ipaddress.ip_address(attempt.address)
        inside = any(address.version == each.version and address in each for each in ranges)
        if servers and inside and attempt.address not in known.taken:
            found[attempt] = servers
    return found


def held(
    attempts: Mapping[Attempt, list[str]],
    now: float,
    containers: Iterable[Container],
    moved: Mapping[str, float] = MappingProxyType({}),
) -> list[Attempt]:
    """Return those attempts that began when the dependencies were already where they are: the address is an old one.

    They are there since their start, or since a fix `moved` them.
    """
    since = dict(moved)
    for each in containers:
        if each.running and each.started_at:
            since[each.service] = max(since.get(each.service, 0.0), each.started_at.timestamp())
    return [
        attempt
        for attempt, servers in attempts.items()
        if all(server in since and now - attempt.age - _MARGIN > since[server] for server in servers)
    ]


def judge_stale(
    service: str, attempts: Mapping[Attempt, list[str]], certain: Sequence[Attempt], containers: Iterable[Container]
) -> Finding:
    """Return the finding about attempts in vain, of which some are certain to be at an old address."""
    attempt = (certain or list(attempts))[0]
    servers = " or ".join(attempts[attempt])
    current = _current(containers)
    where = ", ".join(f"{name} is at {current[name]}" for name in attempts[attempt] if name in current)
    return Finding(
        "network.stale",
        service,
        "network",
        "fail" if certain else "warn",
        f"it {'holds' if certain else 'may hold'} an old address of {servers}: {attempt.address}",
        f"it tries to connect to {attempt.address}:{attempt.port}, which no container has; {where}",
        f"`docker compose restart {service}` has it look the name up again",
        fixable=bool(certain),
        subject=servers,
    )


def check_stale(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that a service does not connect to where a dependency was before."""
    wanted = reach.of(context, service)
    if not wanted or context.running(service) is None or _shares_its_network(context, service):
        return
    found = reach.seen(context, service)
    if found.problem and not found.attempts:
        return
    attempts = _in_vain(context, service, found, wanted)
    if not attempts:
        yield _well(service)
        return
    certain = held(attempts, found.now, context.containers(), context.address_changed_at)
    last = began = time.monotonic()
    while not certain and time.monotonic() < began + _WATCH:
        time.sleep(_PAUSE)
        found = reach.ask(context, service, ())
        later = _in_vain(context, service, found, wanted)
        if later:
            attempts, last = later, time.monotonic()
        elif time.monotonic() > last + _QUIET:
            yield _well(service)
            return
        certain = held(later, found.now, context.containers(), context.address_changed_at)
    yield judge_stale(service, attempts, certain, context.containers())


def _well(service: str) -> Finding:
    return Finding("network.stale", service, "network", "ok", "it connects to no address that nobody has")


def _in_vain(context: CheckContext, service: str, found: Seen, wanted: Sequence[Target]) -> Mapping[Attempt, list[str]]:
    ports = {target.port for target in wanted}
    tried = [each for each in found.attempts if each.port in ports]
    # Asked for only where there is something to judge, which is rare.
    return in_vain(tried, addresses(context, service), wanted) if tried else {}


def addresses(context: CheckContext, service: str) -> Addresses:
    """Return the addresses of all networks that the containers of a service are on, as the engine has them now."""
    names = {
        name for each in context.containers() if each.service == service and each.running for name in each.networks
    }
    found = [context.engine.addresses(name) for name in sorted(names)]
    return Addresses(
        tuple(each for ranges, _ in found for each in ranges), frozenset(each for _, taken in found for each in taken)
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


def _restart(context: CheckContext, finding: Finding) -> None:
    context.restart(finding.service or "")


CHECKS = (Check("network.stale", "network", check_stale),)
FIXES = {"network.stale": Fix("restart", _restart)}
