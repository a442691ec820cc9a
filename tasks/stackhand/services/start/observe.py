"""Reads all that a start has to know: containers, configuration hashes, images, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.kinds.first_start import initialises, may_initialise
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.changes import networks
from stackhand.services.origin import made_elsewhere
from stackhand.services.start.facts import Containers, Facts, by_service, flat
from stackhand.services.start.jobs import completed_runs
from stackhand.services.start.remember import MADE, PROVIDED, unhooked_services
from stackhand.state.folder import StateFolder


def collect_facts(
    engine: Engine,
    state: StateFolder,
    project: Project,
    read_hashes: Callable[[], Mapping[str, str]],
    replaced_networks: Callable[[Sequence[str]], Sequence[str]],
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
            "ages": lambda: _image_ages(engine, [project.services[name] for name in services]),
            "networks": lambda: networks.collect(engine, project, replaced_networks),
            "containers": lambda: _as_they_serve(engine, project, containers_of(engine, project, only)),
            "clock_offset": lambda: engine.clock_offset() if file_stats else timedelta(),
        }
    )
    there: Containers = found["containers"]
    containers = flat(there)
    return Facts(
        there,
        found["hashes"],
        found["images"],
        completed_runs(engine, state, project, containers),
        MADE.read(state),
        file_stats,
        networks=found["networks"],
        provided=PROVIDED.read(state) if any(service.provider for service in project.services.values()) else {},
        unhooked=unhooked_services(state, project, there),
        image_ages=found["ages"],
        clock_offset=found["clock_offset"],
        elsewhere=made_elsewhere(project, containers),
    )


def _image_ages(engine: Engine, services: Sequence[Service]) -> dict[str, float]:
    """Return how many seconds ago the images were pulled that are to be pulled again after a time."""
    names = {service.image for service in services if service.pull_interval is not None}
    tagged = {name: image.tagged for name in names if (image := engine.image(name))}
    now = engine.now() if tagged else None
    return {name: (now - moment).total_seconds() for name, moment in tagged.items() if now and moment}


def containers_of(engine: Engine, project: Project, only: str | None = None, *, brief: bool = False) -> Containers:
    """Return the project's containers as they are now, by service; `brief` as in `Engine.containers`.

    With `only`, those of one service and of the services that it shares something with.
    """
    found = engine.containers(project.name, only, brief=brief)
    # What a service shares with others can't be judged without theirs.
    for leader in project.services[only].shares if only else ():
        found += engine.containers(project.name, leader)
    return by_service(found)


def _as_they_serve(engine: Engine, project: Project, containers: Containers) -> Containers:
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
