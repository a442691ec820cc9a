"""Reads all that a start has to know: containers, configuration hashes, images, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.graph import schedule
from stackhand.kinds.first_start import initialises, may_initialise
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.start.facts import Facts
from stackhand.services.start.remember import COMPLETED, MADE
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
    found: dict[str, Any] = schedule.gather(
        {
            "hashes": read_hashes,
            "images": lambda: {name: engine.image_id(name) for name in images},
            "containers": lambda: _as_they_serve(engine, project, containers_of(engine, project, only)),
        }
    )
    return Facts(
        found["containers"],
        found["hashes"],
        found["images"],
        COMPLETED.read(state),
        MADE.read(state),
        mounted.file_stats(project, services),
    )


def containers_of(
    engine: Engine, project: Project, only: str | None = None, *, brief: bool = False
) -> dict[str, Sequence[Container]]:
    """Return the project's containers as they are now, by service; `brief` as in `Engine.containers`."""
    found: dict[str, Sequence[Container]] = {}
    for container in engine.containers(project.name, only, brief=brief):
        found[container.service] = [*found.get(container.service, ()), container]
    return found


def _as_they_serve(
    engine: Engine, project: Project, containers: Mapping[str, Sequence[Container]]
) -> Mapping[str, Sequence[Container]]:
    """Return the containers, those of databases that still make their data as `starting`, whatever the engine says."""
    asked = {
        each.id: partial(initialises, engine, project.services[name], each)
        for name, some in containers.items()
        if name in project.services and may_initialise(project.services[name])
        for each in some
        if each.running
    }
    not_yet = {id for id, still in schedule.gather(asked).items() if still}
    return {
        name: [replace(each, health="starting") if each.id in not_yet else each for each in some]
        for name, some in containers.items()
    }
