"""Runs that were killed or failed half way: `services.start` warns of them, and names the task that finishes each."""

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
    """Return what a start of these services has to warn of, after `stop.settle_killed`.

    So there is no warning that a stop has left a service running which is to be started.
    """
    if not _killed(state):
        return []
    from stackhand.services import stop

    there = containers()
    stop.settle_killed(state, there, starting)
    return unfinished(state, lambda: there)


def unfinished(state: StateFolder, containers: Callable[[], Sequence[Container]]) -> list[Unfinished]:
    """Return what is left of killed runs: one entry for each task, the most recent last.

    `containers` returns the project's containers, which show what is left. It is called only if there is a killed run.
    A run that is under way is no killed one.
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
    # Imported here, because hardly any start finds a killed run.
    from stackhand.checks import restarts as fixes
    from stackhand.services import stop
    from stackhand.services.reset import journal as reset
    from stackhand.services.restart import run as restart

    if run.task == reset.TASK:
        return reset.describe(run)
    describe = {restart.TASK: restart.describe, fixes.TASK: fixes.describe, stop.TASK: stop.describe}.get(run.task)
    return describe(run, containers) if describe else None
