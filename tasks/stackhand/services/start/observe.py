"""Reads all that a start has to know: containers, configuration hashes, images, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.graph import schedule
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.start.facts import Facts
from stackhand.services.start.jobs import completed_runs
from stackhand.services.start.remember import MADE
from stackhand.state.folder import StateFolder


def collect_facts(
    engine: Engine,
    state: StateFolder,
    project: Project,
    read_hashes: Callable[[], Mapping[str, str]],
    only: str | None = None,
) -> Facts:
    """Return the project's facts, those of one service where `only` names it.

    What does not need the other is read side by side.
    """
    services = [only] if only else list(project.services)
    images = sorted({project.services[name].image for name in services})
    file_stats = mounted.file_stats(project, services)
    found: dict[str, Any] = schedule.gather(
        {
            "hashes": read_hashes,
            "images": lambda: {name: engine.image_id(name) for name in images},
            "containers": lambda: containers_of(engine, project, only),
            "clock_offset": lambda: engine.clock_offset() if file_stats else timedelta(),
        }
    )
    containers = [each for some in found["containers"].values() for each in some]
    return Facts(
        found["containers"],
        found["hashes"],
        found["images"],
        completed_runs(engine, state, project, containers),
        MADE.read(state),
        file_stats,
        found["clock_offset"],
    )


def containers_of(
    engine: Engine, project: Project, only: str | None = None, *, brief: bool = False
) -> dict[str, Sequence[Container]]:
    """Return the project's containers as they are now, by service; `brief` as in `Engine.containers`."""
    found: dict[str, Sequence[Container]] = {}
    for container in engine.containers(project.name, only, brief=brief):
        found[container.service] = [*found.get(container.service, ()), container]
    return found
