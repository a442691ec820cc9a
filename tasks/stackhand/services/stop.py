"""Stopping services, dependants first."""

from __future__ import annotations

from collections.abc import Collection

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.errors import StopFailed
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.start.plan import needs
from stackhand.state.folder import StateFolder

STOPPED = "stopped"
_REMEMBERED = 200


def plan(engine: Engine, project: Project, names: Collection[str]) -> Plan:
    """Return which of these services run and would be stopped, in order."""
    alive = {
        each.service for each in engine.containers(project.name) if each.status in ("running", "restarting", "paused")
    }
    ordered = reversed(schedule.order(needs(project, names)))
    return Plan(tuple(Action(name, "stop", "it runs") for name in ordered if name in alive))


def stop(compose: Compose, engine: Engine, project: Project, names: Collection[str], state: StateFolder) -> list[str]:
    """Stop what runs of these services; return their names. Raises LockHeld, and StopFailed when one runs on.

    Compose stops dependants before what they depend on. Which runs of containers were ended so is remembered: no fix
    starts again what was meant to stand still.
    """
    with state.lock("services.stop"):
        planned = [action.service for action in plan(engine, project, names).actions]
        if not planned:
            return []
        compose.stop(planned)
        left = [action.service for action in plan(engine, project, planned).actions]
        if left:
            raise StopFailed(f"still running: {', '.join(left)}", "`docker compose kill` ends them at once")
        ended = [each.run for each in engine.containers(project.name) if each.service in planned]
        state.update(STOPPED, lambda before: [*ended, *(run for run in before or () if run not in ended)][:_REMEMBERED])
        return planned
