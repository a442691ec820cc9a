"""Reads all that a start has to know: containers, configuration hashes, images, and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.changes import networks
from stackhand.services.start.facts import Facts
from stackhand.services.start.remember import COMPLETED, MADE, PROVIDED
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
    found: dict[str, Any] = schedule.gather(
        {
            "hashes": read_hashes,
            "images": lambda: {name: engine.image_id(name) for name in images},
            "ages": lambda: _image_ages(engine, [project.services[name] for name in services]),
            "networks": lambda: networks.collect(engine, project, replaced_networks),
            "containers": lambda: containers_of(engine, project, only),
        }
    )
    return Facts(
        found["containers"],
        found["hashes"],
        found["images"],
        COMPLETED.read(state),
        MADE.read(state),
        mounted.file_stats(project, services),
        found["networks"],
        PROVIDED.read(state) if any(service.provider for service in project.services.values()) else {},
        found["ages"],
    )


def _image_ages(engine: Engine, services: Sequence[Service]) -> dict[str, float]:
    """Return how many seconds ago the images were pulled that are to be pulled again after a time."""
    names = {service.image for service in services if service.pull_interval is not None}
    tagged = {name: image.tagged for name in names if (image := engine.image(name))}
    now = engine.now() if tagged else None
    return {name: (now - moment).total_seconds() for name, moment in tagged.items() if now and moment}


def containers_of(
    engine: Engine, project: Project, only: str | None = None, *, brief: bool = False
) -> dict[str, Sequence[Container]]:
    """Return the project's containers as they are now, by service; `brief` as in `Engine.containers`."""
    found: dict[str, Sequence[Container]] = {}
    for container in engine.containers(project.name, only, brief=brief):
        found[container.service] = [*found.get(container.service, ()), container]
    return found
