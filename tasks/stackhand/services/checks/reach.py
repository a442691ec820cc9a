"""Every service resolves and reaches each of its dependencies' ports, asked from inside its own container."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stackhand.checks.check import Check, Verdict, fail, ok, skip
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.services.checks.tcp_probe import ConnectionReport, Reply, merged, probe

# Ports of DNS, time, logs, metrics and traces, which go by UDP: nothing accepts a connection there.
_UDP_PORTS = frozenset({53, 123, 161, 162, 514, 5775, 6831, 6832, 8125, 12201})
# A dependency that declares a whole range of ports proves its network with a few.
_MOST_PORTS = 4


@dataclass(frozen=True)
class Target:
    """A port that a service has to reach. `because` says where that is written; a `promised` one must not refuse."""

    server: str
    host: str
    port: int
    because: str
    promised: bool


def targets(
    project: Project, service: Service, clients: Iterable[Client], running: Sequence[Container]
) -> list[Target]:
    """Return the ports that a service has to reach: those of its environment, else those of its dependencies."""
    up = {container.service: container for container in running if container.running}
    found: dict[tuple[str, int], Target] = {}
    for client in clients:
        server = project.services.get(client.server)
        if client.service != service.name or client.server not in up or not client.port or server is None:
            continue
        if not _together(project, service, server) or _by_udp(client, server):
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


def report(context: CheckContext, service: str) -> ConnectionReport:
    """Return what the containers of a service report of their connections; two checks share the answer."""
    ports = [(target.host, target.port) for target in targets_of(context, service)]
    return context.cached(("connections", service), lambda: ask(context, service, ports))


def ask(context: CheckContext, service: str, ports: Sequence[tuple[str, int]]) -> ConnectionReport:
    """Ask all containers of a service about these hosts and ports."""
    running = [each for each in context.containers() if each.service == service and each.running]
    return merged(probe(context.for_container(each), service, ports) for each in running)


def targets_of(context: CheckContext, service: str) -> list[Target]:
    """Return the ports that a service has to reach, as things are now."""
    return targets(context.project, context.project.services[service], context.clients, context.containers())


def check_reach(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a service reaches what it has to."""
    wanted = targets_of(context, service)
    if wanted and context.running(service):
        yield from evaluate_reach(service, wanted, report(context, service))


def evaluate_reach(service: str, wanted: Sequence[Target], found: ConnectionReport) -> Iterable[Verdict]:
    """Yield a verdict for each target that is not reached, or one that all are."""
    if found.problem:
        names = ", ".join(dict.fromkeys(target.server for target in wanted))
        yield skip(f"whether it reaches {names} is not known", found.problem)
        return
    replies = [(target, found.replies.get((target.host, target.port))) for target in wanted]
    missed = [(target, reply) for target, reply in replies if reply and not _is_reached(target, reply)]
    if not missed:
        yield ok(f"it reaches {', '.join(f'{target.host}:{target.port}' for target in wanted)}")
    for target, reply in missed:
        yield _not_reached(service, target, reply)


def _is_reached(target: Target, reply: Reply) -> bool:
    return reply.result == "reached" or (reply.result == "refused" and not target.promised)


def _not_reached(service: str, target: Target, reply: Reply) -> Verdict:
    place = f"{target.host}:{target.port}"
    if reply.result == "unresolved":
        summary = f"it does not resolve {target.host}"
        remedy = f"see that {service} and {target.server} are on one network, and that {target.host} is a name there"
    elif reply.result == "refused":
        summary = f"{place} refuses its connections"
        remedy = f"see on which port {target.server} listens, and that it listens on 0.0.0.0: {target.because}"
    else:
        summary = f"{place} does not answer it"
        remedy = f"see the firewall rules of the machine, and of {target.server}'s container"
    where = f"{target.host} is {reply.address}; " if reply.address else ""
    evidence = f"{target.because}; {where}{reply.said}"
    return fail(summary, evidence, remedy, subject=place, blames=(target.server,))


def _together(project: Project, service: Service, server: Service) -> bool:
    """Return whether two services can reach each other by configuration: a variable may name one for another's use."""
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


def _by_udp(client: Client, server: Service) -> bool:
    if client.scheme == "udp" or client.scheme.startswith("statsd"):
        return True
    udp = {port for port, protocol in _declared(server) if protocol == "udp"}
    tcp = {port for port, protocol in _declared(server) if protocol == "tcp"}
    return client.port not in tcp and (client.port in udp or (client.port in _UDP_PORTS and not client.scheme))


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
