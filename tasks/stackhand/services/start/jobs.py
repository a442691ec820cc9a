"""Jobs: services that do their work and end, and that nobody waits for. Which of their runs are completed?

A start waits for the settle time of such a service only, so it often ends when nobody looks. A server that was stopped
has often exited with 0, too. So an exit code of 0 alone does not tell; this does, in this order:

- A run of a start or of `services.wait` has seen it end by itself, and has written that down.
- A run of stackhand's was to stop it: then it has not completed.
- The engine remembers its end: somebody has sent it a signal before, or nobody has.
- The engine has forgotten. It is no server as far as anybody can see (no port is published, no service depends on it),
  and it ended alone: another container of the project ran before and long after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError
from stackhand.services.start.facts import ended_well
from stackhand.services.start.remember import COMPLETED
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal

# What is stopped together ends within this time: Compose gives each level of the graph its stop_grace_period.
_STOPPED_TOGETHER = timedelta(minutes=10)


def completed_runs(
    engine: Engine, state: StateFolder, project: Project, containers: Collection[Container], names: Iterable[str] = ()
) -> frozenset[str]:
    """Return the runs of containers (`Container.run_key`) that ended by themselves, their work done.

    `containers` are all of the project's. The engine is asked about those of the services `names` only, of all
    services if none is named.
    """
    known = COMPLETED.read(state)
    wanted = frozenset(names) or frozenset(project.services)
    open_ = [each for each in containers if each.service in wanted and each.run_key not in known]
    open_ = [each for each in open_ if may_have_completed(project, each)]
    if not open_:
        return known
    ours = {key for run in Journal(state).runs() for key in run.steps}
    return known | {
        each.run_key
        for each in open_
        if each.run_key not in ours and has_completed(project, each, containers, _was_signalled(engine, each))
    }


def may_have_completed(project: Project, container: Container) -> bool:
    """Return whether a container is that of a job, and has ended with 0."""
    service = project.services.get(container.service)
    return (
        service is not None
        and not project.is_one_shot(service.name)
        and ended_well(container)
        and service.may_end
        and container.healthcheck is None
        # It is stopped where one of its hooks fails.
        and not service.raw.get("post_start")
    )


def has_completed(
    project: Project, container: Container, containers: Iterable[Container], signalled: bool | None
) -> bool:
    """Return whether a container that may have completed has; `signalled` is None where the engine has forgotten."""
    if signalled is not None:
        return not signalled
    if project.services[container.service].ports or project.dependants(container.service):
        return False
    ended = container.finished_at
    return ended is not None and any(
        each.started_at is not None
        and each.started_at < ended
        and (each.running or (each.finished_at is not None and each.finished_at > ended + _STOPPED_TOGETHER))
        for each in containers
        if each.service != container.service
    )


def _was_signalled(engine: Engine, container: Container) -> bool | None:
    try:
        return engine.was_signalled(container)
    except StackError:
        return None  # a proxy may refuse to tell
