"""Stopping services, dependants first."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.errors import StopFailed
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.start.plan import needs
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run, Unfinished

TASK = "services.stop"
_ALIVE = ("running", "restarting", "paused")


def plan(engine: Engine, project: Project, names: Collection[str]) -> Plan:
    """Return which of these services run and would be stopped, in order."""
    alive = {each.service for each in engine.containers(project.name) if each.status in _ALIVE}
    ordered = reversed(schedule.order(needs(project, names)))
    return Plan(tuple(Action(name, "stop", "it runs") for name in ordered if name in alive))


def stop(compose: Compose, engine: Engine, project: Project, names: Collection[str], state: StateFolder) -> list[str]:
    """Stop what runs of these services; return their names. Raises LockHeld, and StopFailed when one runs on.

    Compose stops dependants before what they depend on. Which runs of containers were ended so is in the journal: no
    fix starts again what was meant to stand still.
    """
    if not plan(engine, project, names):
        return []  # and nothing is written, the lock included
    with state.lock(TASK):
        return _stop(compose, engine, project, names, state)


def stopped_on_purpose(state: StateFolder) -> frozenset[str]:
    """Return the runs of containers (`Container.run_key`) that were stopped here and are meant to stand still.

    Those that a run was about to stop when it was killed are among them.
    """
    return frozenset(
        key for run in Journal(state).runs(TASK) for key, step in run.steps.items() if step.done or not run.ended
    )


def describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    """Return what a person is told of a stop that was not finished; None where all of it stands still by now."""
    left = run.left(lambda key: all(each.run_key != key or each.status not in _ALIVE for each in containers))
    services = list(dict.fromkeys(each.service for each in containers if each.run_key in left))
    if not services:
        return None
    names = " ".join(f"-s {name}" for name in services)
    return Unfinished(
        TASK,
        run.began,
        f"a stop was interrupted; still running: {', '.join(services)}",
        f"`inv services.stop {names}` finishes it",
    )


def _stop(compose: Compose, engine: Engine, project: Project, names: Collection[str], state: StateFolder) -> list[str]:
    planned = [action.service for action in plan(engine, project, names).actions]
    if not planned:
        return []
    journal = Journal(state)
    before = [run for run in journal.unfinished(TASK) if not run.is_under_way]
    meant = {each.run_key: "" for each in engine.containers(project.name) if each.service in planned}
    run = journal.begin(TASK, steps=meant)
    try:
        compose.stop(planned)
        # One that its restart policy has started again meanwhile is another run by now.
        seen = [each for each in engine.containers(project.name) if each.service in planned]
        run.done(*(each.run_key for each in seen if each.status not in _ALIVE))
    finally:
        # After a failure or Ctrl-C only what was seen to stand still is meant to. A kill leaves the run unfinished.
        run.end()
    journal.settle(*before)
    alive = {each.service for each in seen if each.status in _ALIVE}
    left = [name for name in planned if name in alive]
    if left:
        raise StopFailed(f"still running: {', '.join(left)}", "`docker compose kill` ends them at once")
    return planned
