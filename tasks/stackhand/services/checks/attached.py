"""Every container is on its networks, under the names that others know it by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.model import Finding


def check_attached(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that every running container of a service is on all networks that it is configured for, by name."""
    if not _networks(context.project, context.project.services[service]):
        return  # network_mode: it has none, or another's
    for container in context.containers():
        if container.service == service and container.running:
            yield judge_attached(context.project, container)


def judge_attached(project: Project, container: Container) -> Finding:
    """Return the finding about the networks of one container."""
    service = project.services[container.service]
    for key, network in sorted(_networks(project, service).items()):
        wanted = _aliases(service, key)
        connect = f"docker network connect {''.join(f'--alias {name} ' for name in wanted)}{network} {container.name}"
        if network not in container.networks:
            return Finding(
                "network.attached",
                container.service,
                "network",
                "fail",
                f"{container.name} is off its network {network}",
                evidence=f"{container.name} is attached to {', '.join(sorted(container.networks)) or 'no network'}",
                remedy=connect,
                fixable=True,
                subject=container.name,
            )
        attachment = container.attachments.get(network)
        known = attachment.aliases if attachment else None
        if known is not None and not known.issuperset(wanted):
            missing = ", ".join(name for name in wanted if name not in known)
            return Finding(
                "network.attached",
                container.service,
                "network",
                "fail",
                f"{container.name} is on {network} without the name {missing}",
                evidence=f"it is known there as {', '.join(sorted(known)) or 'nothing'}",
                remedy=f"docker network disconnect {network} {container.name}; {connect}",
                fixable=True,
                subject=container.name,
            )
    return Finding(
        "network.attached", container.service, "network", "ok", "it is on its networks", subject=container.name
    )


def _connect(context: CheckContext, finding: Finding) -> None:
    """Attach a container where it is missing, and anew where it lacks a name; all as the compose file has it."""
    service = context.project.services[finding.service or ""]
    everybody = context.engine.containers(context.project.name)
    for container in everybody:
        if container.name != finding.subject:
            continue
        for key, network in _networks(context.project, service).items():
            attachment = container.attachments.get(network)
            if attachment and (attachment.aliases or frozenset()).issuperset(_aliases(service, key)):
                continue
            if attachment:
                context.engine.disconnect(container.id, network)
            # Compose makes the container's own name one of them, too.
            names = (container.name, *_aliases(service, key))
            options = {**_options(service, key), "links": _links(service, everybody)}
            context.engine.connect(container.id, network, options, names)
            context.address_changed_at[service.name] = time.time()


def _links(service: Service, containers: Iterable[Container]) -> list[tuple[str, str]]:
    """Return what `links` asks for, as Compose has it: each container of the linked service, and the name for it."""
    found = [(entry.partition(":")[0], entry.partition(":")[2]) for entry in service.raw.get("links") or ()]
    return [(each.name, alias or name) for name, alias in found for each in containers if each.service == name]


def _networks(project: Project, service: Service) -> dict[str, str]:
    return {key: project.networks[key] for key in service.networks if key in project.networks}


def _options(service: Service, key: str) -> Mapping[str, Any]:
    options: Mapping[str, Any] = (service.raw.get("networks") or {}).get(key) or {}
    return options


def _aliases(service: Service, key: str) -> tuple[str, ...]:
    """Return the names that lead to a service on a network; Compose gives the service's own to every container."""
    return tuple(dict.fromkeys((service.name, *(_options(service, key).get("aliases") or ()))))


CHECKS = (Check("network.attached", "network", check_attached),)
FIXES = {"network.attached": Fix("connect", _connect)}
