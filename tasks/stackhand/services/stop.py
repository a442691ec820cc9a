"""Stopping services, dependants first; and which containers stand still because they were stopped so."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError, StateFolderUnwritable, StopFailed
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.origin import Takeover, made_elsewhere
from stackhand.services.start.plan import needs
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run, Step, Unfinished

TASK = "services.stop"
_ALIVE = ("running", "restarting", "paused")
# For so long after its beginning, a stop that was killed may have ended containers: Compose, which lives on, gives each
# its stop_grace_period (10 s, if the compose file does not say otherwise), one level of the graph after the other.
_LONGEST_STOP = timedelta(minutes=10)
# In the facts of a run: when it began, by the engine's clock.
_ENGINE_TIME = "engine_time"


def plan(engine: Engine, project: Project, names: Collection[str]) -> Plan:
    """Return which of these services run and would be stopped, in order."""
    alive = {each.service for each in engine.containers(project.name) if each.status in _ALIVE}
    ordered = reversed(schedule.order(needs(project, names)))
    return Plan(tuple(Action(name, "stop", "it runs") for name in ordered if name in alive))


def stop(
    compose: Compose,
    engine: Engine,
    project: Project,
    names: Collection[str],
    state: StateFolder,
    takeover: Takeover | None = None,
) -> list[str]:
    """Stop what runs of these services; return their names. Raises LockHeld, and StopFailed when one runs on.

    `takeover` is asked about what was made from another folder.
    Compose stops dependants before what they depend on. Which runs of containers were ended so is in the journal: no
    fix starts again what was meant to stand still.
    """
    planned = plan(engine, project, names)
    if not planned:
        return []  # and nothing is written, the lock included
    (takeover or Takeover()).check(project, _folders(engine, project, planned))
    with state.lock(TASK):
        return _stop(compose, engine, project, names, state)


def stopped_on_purpose(runs: Iterable[Run], containers: Iterable[Container]) -> frozenset[str]:
    """Return which of these containers were stopped by these runs of `services.stop`, and are meant to stand still.

    Each is named by its run (`Container.run_key`). Of a stop that was killed nobody knows how far it came, so what
    ended at about that time counts. What ended later did so by itself.
    """
    stops = [run for run in runs if run.task == TASK]
    return frozenset(each.run_key for each in containers if any(_has_stopped(run, each) for run in stops))


def _has_stopped(run: Run, container: Container) -> bool:
    step = run.steps.get(container.run_key)
    if step is None or not container.stopped:
        return False
    return step.done or (not run.ended and _ended_during(run, container))


def _ended_during(run: Run, container: Container) -> bool:
    """Return whether a container ended while a run that came to no end may have stopped it, by the engine's clock."""
    with contextlib.suppress(TypeError, ValueError):  # a container may have written the facts
        began = datetime.fromisoformat(run.facts.get(_ENGINE_TIME))  # type: ignore[arg-type]
        return container.finished_at is not None and began <= container.finished_at <= began + _LONGEST_STOP
    return False


def settle_killed(state: StateFolder, containers: Sequence[Container], starting: Collection[str] = ()) -> None:
    """Settle the stops that were killed, as far as the containers show what became of them.

    What such a stop has ended stays meant to stand still. What it left running stays to be told, without the services
    that are about to be started: they are meant to run again.
    """
    journal = Journal(state)
    for run in journal.unfinished(TASK):
        if run.is_under_way:
            continue
        theirs = [each for each in containers if each.run_key in run.steps]
        stopped = {each.run_key: Step(done=True) for each in theirs if _has_stopped(run, each)}
        left = {each.run_key: Step() for each in theirs if each.status in _ALIVE and each.service not in starting}
        with contextlib.suppress(StateFolderUnwritable):
            journal.put(replace(run, steps={**stopped, **left}))
        if not left:
            journal.settle(run)


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
    meant = {each.run_key: "" for each in engine.containers(project.name) if each.service in planned}
    run = journal.begin(TASK, _engine_time(engine), meant)
    try:
        compose.stop(planned)
        # One that its restart policy has started again meanwhile is another run by now.
        there = engine.containers(project.name)
        seen = [each for each in there if each.service in planned]
        run.done(*(each.run_key for each in seen if each.status not in _ALIVE))
    finally:
        # After a failure or Ctrl-C only what was seen to stand still is meant to. A kill leaves the run unfinished.
        run.end()
    settle_killed(state, there)
    keys = {each.run_key for each in there}
    journal.forget(TASK, lambda key: key not in keys)
    alive = {each.service for each in seen if each.status in _ALIVE}
    left = [name for name in planned if name in alive]
    if left:
        raise StopFailed(f"still running: {', '.join(left)}", "`docker compose kill` ends them at once")
    return planned


def _folders(engine: Engine, project: Project, planned: Plan) -> dict[str, str]:
    names = [action.service for action in planned.actions]
    containers = [each for each in engine.containers(project.name) if each.service in names]
    return made_elsewhere(project, containers)


def _engine_time(engine: Engine) -> dict[str, str]:
    with contextlib.suppress(StackError):  # an engine may refuse to say it
        return {_ENGINE_TIME: engine.now().isoformat()}
    return {}
