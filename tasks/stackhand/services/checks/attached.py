"""Every container is on its networks, under the names that others know it by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from stackhand.checks.check import Check, Fix, Verdict, fail, ok
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service


def check_attached(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that every running container of a service is on all networks that it is configured for, by name."""
    if not _networks(context.project, context.project.services[service]):
        return  # network_mode: it has none, or another's
    for container in context.containers():
        if container.service == service and container.running:
            connect = Fix("connect", partial(_connect, context, service, container.name))
            yield evaluate_attached(context.project, container, connect)


def evaluate_attached(project: Project, container: Container, connect: Fix | None = None) -> Verdict:
    """Return the verdict about the networks of one container, which `connect` attaches to those that it lacks."""
    service = project.services[container.service]
    for key, network in sorted(_networks(project, service).items()):
        aliases = _aliases(service, key)
        command = f"docker network connect {''.join(f'--alias {name} ' for name in aliases)}{network} {container.name}"
        if network not in container.networks:
            return fail(
                f"{container.name} is off its network {network}",
                f"{container.name} is attached to {', '.join(sorted(container.networks)) or 'no network'}",
                command,
                subject=container.name,
                fix=connect,
            )
        attachment = container.attachments.get(network)
        known = attachment.aliases if attachment else None
        if known is not None and not known.issuperset(aliases):
            missing = ", ".join(name for name in aliases if name not in known)
            return fail(
                f"{container.name} is on {network} without the name {missing}",
                f"it is known there as {', '.join(sorted(known)) or 'nothing'}",
                f"docker network disconnect {network} {container.name}; {command}",
                subject=container.name,
                fix=connect,
            )
    return ok("it is on its networks", subject=container.name)


def _connect(context: CheckContext, name: str, container_name: str) -> None:
    """Attach a container to each network that it lacks, and again where it lacks a name: as the compose file has it."""
    service = context.project.services[name]
    containers = context.engine.containers(context.project.name)
    for container in containers:
        if container.name != container_name:
            continue
        for key, network in _networks(context.project, service).items():
            attachment = container.attachments.get(network)
            if attachment and (attachment.aliases or frozenset()).issuperset(_aliases(service, key)):
                continue
            if attachment:
                context.engine.disconnect(container.id, network)
            # Compose makes the container's own name one of them, too.
            names = (container.name, *_aliases(service, key))
            options = {**_options(service, key), "links": _links(service, containers)}
            context.engine.connect(container.id, network, options, names)
            context.address_changed_at[name] = context.engine.now().timestamp()


def _links(service: Service, containers: Iterable[Container]) -> list[tuple[str, str]]:
    """Return the links of a service as Compose has them: each container of a linked service, and the name for it."""
    links = [(entry.partition(":")[0], entry.partition(":")[2]) for entry in service.raw.get("links") or ()]
    return [(each.name, alias or name) for name, alias in links for each in containers if each.service == name]


def _networks(project: Project, service: Service) -> dict[str, str]:
    return {key: project.networks[key] for key in service.networks if key in project.networks}


def _options(service: Service, key: str) -> Mapping[str, Any]:
    options: Mapping[str, Any] = (service.raw.get("networks") or {}).get(key) or {}
    return options


def _aliases(service: Service, key: str) -> tuple[str, ...]:
    """Return the names that lead to a service on a network; Compose gives the service's own to every container."""
    return tuple(dict.fromkeys((service.name, *(_options(service, key).get("aliases") or ()))))


CHECKS = (Check("network.attached", "network", check_attached),)
