"""Runs that were killed half way: what is left of each, and which task finishes it. `services.start` tells it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stackhand.state.journal import Journal, Run, Unfinished

if TYPE_CHECKING:
    from stackhand.engine.api.containers import Container
    from stackhand.state.folder import StateFolder


def before_start(
    state: StateFolder, containers: Callable[[], Sequence[Container]], starting: Collection[str]
) -> list[Unfinished]:
    """Return what `unfinished` does, for a start of these services: that they were to be stopped counts no more."""
    if not _killed(state):
        return []
    from stackhand.services import stop

    there = containers()
    stop.settle_killed(state, there, starting)
    return unfinished(state, lambda: there)


def unfinished(state: StateFolder, containers: Callable[[], Sequence[Container]]) -> list[Unfinished]:
    """Return what is left of runs that came to no end, one for each task, the one that began last at the end.

    `containers` returns those of the project: they decide what is left. It is called only where there is such a run.
    Runs that are under way are not among them.
    """
    by_task: dict[str, Run] = {}
    for run in _killed(state):
        earlier = by_task.pop(run.task, run)
        by_task[run.task] = replace(run, steps={**earlier.steps, **run.steps})
    if not by_task:
        return []
    there = containers()
    told = [_describe(run, there) for run in by_task.values()]
    return [each for each in told if each is not None]


def _killed(state: StateFolder) -> list[Run]:
    return [run for run in Journal(state).unfinished() if not run.is_under_way]


def _describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    # Imported here: hardly any start finds such a run.
    from stackhand.checks import restarts as fixes
    from stackhand.services import stop
    from stackhand.services.reset import journal as reset
    from stackhand.services.restart import run as restart

    if run.task == reset.TASK:
        return reset.describe(run)
    describe = {restart.TASK: restart.describe, fixes.TASK: fixes.describe, stop.TASK: stop.describe}.get(run.task)
    return describe(run, containers) if describe else None
