"""Every service resolves and reaches each of its dependencies' ports, asked from inside its own container."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.model import Finding
from stackhand.services.checks import tcp_probe as wires
from stackhand.services.checks.tcp_probe import Reply, Seen

# What is spoken to by single packets: nothing accepts a connection there. DNS, time, logs, metrics, traces.
_PACKET_PORTS = frozenset({53, 123, 161, 162, 514, 5775, 6831, 6832, 8125, 12201})
# A dependency that declares a whole range of ports proves its network with a few.
_MOST_PORTS = 4


@dataclass(frozen=True)
class Target:
    """What a service has to reach. `because` says where that is written; a `promised` port must accept connections."""

    server: str
    host: str
    port: int
    because: str
    promised: bool


def targets(
    project: Project, service: Service, clients: Iterable[Client], running: Sequence[Container]
) -> list[Target]:
    """Return what a service has to reach: the endpoints of its environment, and the ports of what it depends on."""
    up = {each.service: each for each in running if each.running}
    found: dict[tuple[str, int], Target] = {}
    for client in clients:
        server = project.services.get(client.server)
        if client.service != service.name or client.server not in up or not client.port or server is None:
            continue
        if not _together(project, service, server) or _by_packets(client, server):
            continue
        target = Target(client.server, client.host, client.port, f"{client.variable} names it", True)
        found.setdefault((target.host, target.port), target)
    spoken_for = {target.server for target in found.values()}
    for entry in service.depends_on:
        server = project.services.get(entry.service)
        if server is None or entry.service in spoken_for or entry.service not in up:
            continue
        if project.is_one_shot(entry.service) or not set(service.networks) & set(server.networks):
            continue
        for port in _tcp_ports(server, up[entry.service])[:_MOST_PORTS]:
            found[server.name, port] = Target(server.name, server.name, port, "it depends on it", False)
    return list(found.values())


def seen(context: CheckContext, service: str) -> Seen:
    """Return what the containers of a service say of their connections; asked once for both checks that want it."""

    wanted = [(each.host, each.port) for each in of(context, service)]
    return context.cached(("wires", service), lambda: ask(context, service, wanted))


def ask(context: CheckContext, service: str, wanted: Sequence[tuple[str, int]]) -> Seen:
    """Ask all containers of a service."""
    mine = [each for each in context.containers() if each.service == service and each.running]
    return wires.merged(wires.look(context.for_container(each), service, wanted) for each in mine)


def of(context: CheckContext, service: str) -> list[Target]:
    """Return what a service has to reach, as things are now."""
    return targets(context.project, context.project.services[service], context.clients, context.containers())


def check_reach(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that a service reaches what it has to."""
    wanted = of(context, service)
    return judge_reach(service, wanted, seen(context, service)) if wanted and context.running(service) else ()


def judge_reach(service: str, wanted: Sequence[Target], found: Seen) -> Iterable[Finding]:
    """Return a finding for each target that is not reached, or one that all are."""
    if found.problem:
        names = ", ".join(dict.fromkeys(each.server for each in wanted))
        yield Finding(
            "network.reach", service, "network", "skip", f"whether it reaches {names} is not known", found.problem
        )
        return
    wrong = [
        finding
        for target in wanted
        for finding in _judge(service, target, found.replies.get((target.host, target.port)))
    ]
    if wrong:
        yield from wrong
        return
    reached = ", ".join(f"{each.host}:{each.port}" for each in wanted)
    yield Finding("network.reach", service, "network", "ok", f"it reaches {reached}")


def _judge(service: str, target: Target, reply: Reply | None) -> Iterable[Finding]:
    place = f"{target.host}:{target.port}"
    if reply is None or reply.verdict == "reached" or (reply.verdict == "refused" and not target.promised):
        return
    if reply.verdict == "unresolved":
        summary = f"it does not resolve {target.host}"
        remedy = f"see that {service} and {target.server} are on one network, and that {target.host} is a name there"
    elif reply.verdict == "refused":
        summary = f"{place} refuses its connections"
        remedy = f"see on which port {target.server} listens, and that it listens on 0.0.0.0: {target.because}"
    else:
        summary = f"{place} does not answer it"
        remedy = f"see the firewall rules of the machine, and of {target.server}'s container"
    where = f"{target.host} is {reply.address}; " if reply.address else ""
    evidence = f"{target.because}; {where}{reply.said}"
    yield Finding("network.reach", service, "network", "fail", summary, evidence, remedy, subject=place)


def _together(project: Project, service: Service, server: Service) -> bool:
    """Return whether two services can be meant to meet: a variable may name a service for somebody else's use."""
    mine, theirs = _networks(project, service), _networks(project, server)
    if mine is None or theirs is None:
        return False
    return bool(mine & theirs) or any(entry.service == server.name for entry in service.depends_on)


def _networks(project: Project, service: Service) -> set[str] | None:
    """Return a service's networks; None where it is on none of the project's, by its `network_mode`."""
    mode, passed = str(service.raw.get("network_mode") or ""), {service.name}
    while mode.startswith("service:"):
        other = project.services.get(mode.removeprefix("service:"))
        if other is None or other.name in passed:
            return None
        service, mode = other, str(other.raw.get("network_mode") or "")
        passed.add(other.name)
    # On the machine's own network, on a bridge without names, or on another container's.
    return None if mode else set(service.networks)


def _by_packets(client: Client, server: Service) -> bool:
    if client.scheme == "udp" or client.scheme.startswith("statsd"):
        return True
    udp = {port for port, protocol in _declared(server) if protocol == "udp"}
    tcp = {port for port, protocol in _declared(server) if protocol == "tcp"}
    return client.port not in tcp and (client.port in udp or (client.port in _PACKET_PORTS and not client.scheme))


def _tcp_ports(server: Service, container: Container) -> list[int]:
    return sorted({*container.exposed, *(port for port, protocol in _declared(server) if protocol == "tcp")})


def _declared(server: Service) -> Iterable[tuple[int, str]]:
    for each in server.raw.get("expose") or ():
        number, _, protocol = str(each).partition("/")
        if number.isdigit():
            yield int(number), protocol or "tcp"
    for each in server.raw.get("ports") or ():
        if str(each.get("target") or "").isdigit():
            yield int(each["target"]), each.get("protocol") or "tcp"


CHECKS = (Check("network.reach", "network", check_reach),)
FIXES: dict[str, Fix] = {}
