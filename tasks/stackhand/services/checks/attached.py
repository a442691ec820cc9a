"""Every container is on its networks, under the names that others know it by."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Check, Fix, Verdict, fail, ok
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.services.changes.networks import connect, names_on, networks_of


def check_attached(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that every running container of a service is on all networks that it is configured for, by name."""
    if not networks_of(context.project, context.project.services[service]):
        return  # network_mode: it has none, or another's
    for container in context.containers():
        if container.service == service and container.running:
            fix = Fix("connect", partial(_connect, context, service, container.name))
            yield evaluate_attached(context.project, container, fix)


def evaluate_attached(project: Project, container: Container, fix: Fix | None = None) -> Verdict:
    """Return the verdict about the networks of one container, which `fix` attaches to those that it lacks."""
    service = project.services[container.service]
    for key, network in sorted(networks_of(project, service).items()):
        aliases = names_on(service, key)
        command = f"docker network connect {''.join(f'--alias {name} ' for name in aliases)}{network} {container.name}"
        if network not in container.networks:
            return fail(
                f"{container.name} is off its network {network}",
                f"{container.name} is attached to {', '.join(sorted(container.networks)) or 'no network'}",
                command,
                subject=container.name,
                fix=fix,
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
                fix=fix,
            )
    return ok("it is on its networks", subject=container.name)


def _connect(context: CheckContext, name: str, container_name: str) -> None:
    """Attach a container to each network that it lacks, and again where it lacks a name."""
    containers = context.engine.containers(context.project.name)
    for container in containers:
        if container.name == container_name and connect(context.engine, context.project, container, containers):
            context.address_changed_at[name] = context.engine.now().timestamp()


CHECKS = (Check("network.attached", "network", check_attached),)
