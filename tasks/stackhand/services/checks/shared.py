"""What shares a namespace with another container still does: else it runs without a network, for one.

A namespace goes when the container that it belongs to ends. `docker restart`, a crash or a new container is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from stackhand.checks.check import Check, Fix, Verdict, fail, ok
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Container
from stackhand.engine.api.sdk import ContainerGone
from stackhand.engine.compose.project import Project
from stackhand.services.start import sharing
from stackhand.services.start.facts import all_run, by_service


def check_shared(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a service has the namespaces and volumes of other containers that it is configured to share."""
    restart = Fix("restart", partial(context.restart, service), "restart")
    recreate = Fix("make a new container of", partial(context.actions.recreate, service), "recreate")
    there = by_service(context.containers())
    if not all_run(there.get(service, ())):
        return
    if context.project.services[service].shares:
        yield evaluate_shared(context.project, service, context.containers(), restart, recreate)
    ids = {each.id for each in context.containers()}
    for container in there[service]:
        for what, other in container.shares:
            # Of the project's own, and of one that a service had before, the verdict above tells.
            if other not in ids and what != "volumes" and not context.project.services[service].shares:
                yield evaluate_outside(container, what, _inspect(context, other), restart, recreate)


def evaluate_shared(
    project: Project, service: str, containers: Sequence[Container], restart: Fix, recreate: Fix
) -> Verdict:
    """Return the verdict about what a service shares with other services."""
    action = sharing.renewal(project, service, by_service(containers))
    if action is None:
        return ok("it shares what it is configured to share")
    shared = {what for some in project.services[service].shares.values() for what in some}
    what = "network" if "network" in shared else min(shared)
    return _lost(service, what, action.cause, action.verb, restart, recreate)


def evaluate_outside(container: Container, what: str, other: Container | None, restart: Fix, recreate: Fix) -> Verdict:
    """Return the verdict about a container that shares a namespace of one outside of the project, which may be gone."""
    named = f"it shares the {what} of a container that is not of this project"
    if other is None:
        return _lost(container.service, what, f"{named}, and that is gone", "recreate", restart, recreate)
    if not other.running:
        cause = f"{named}: {other.name} is {other.status}"
        return fail(_summary(what), cause, f"start it (`docker start {other.name}`), then `inv services.fixes`")
    if sharing.has_started_after(other, container):
        cause = f"{named}: {other.name} has restarted since"
        return _lost(container.service, what, cause, "restart", restart, recreate)
    return ok(f"it shares the {what} of {other.name}")


def _lost(service: str, what: str, cause: str, verb: str, restart: Fix, recreate: Fix) -> Verdict:
    if verb == "restart":
        return fail(_summary(what), cause, f"`docker compose restart --no-deps {service}`", fix=restart)
    remedy = f"`docker compose up -d --force-recreate --no-deps {service}`"
    return fail(_summary(what), cause, remedy, fix=recreate)


def _summary(what: str) -> str:
    return "it runs without a network" if what == "network" else f"the {what} that it runs with is shared no longer"


def _inspect(context: CheckContext, container: str) -> Container | None:
    try:
        return context.engine.inspect(container)
    except ContainerGone:
        return None


CHECKS = (Check("network.shared", "network", check_shared),)
