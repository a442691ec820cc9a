"""Reads all that a start has to know: project, containers, configuration hashes, images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stackhand.engine.client import Engine
from stackhand.engine.compose import Compose
from stackhand.engine.facts import Container
from stackhand.engine.project import Project
from stackhand.services.plan import Facts
from stackhand.state import StateFolder


class Survey:
    """Looks at one project again and again. What only the compose files decide is read once."""

    def __init__(
        self, compose: Compose, engine: Engine, read_project: Callable[[], Project], state: StateFolder
    ) -> None:
        self._state = state
        self._compose = compose
        self._engine = engine
        self._read_project = read_project
        self._hashes: dict[str, str] | None = None

    def read(self, only: str | None = None) -> tuple[Project, Facts]:
        """Return the project and its facts, those of one service where `only` names it.

        What does not need the other is read side by side.
        """
        with ThreadPoolExecutor(3) as pool:
            reading = pool.submit(self._read_project)
            hashing = pool.submit(self._compose.hashes) if self._hashes is None else None
            connection = pool.submit(lambda: self._engine.api)
            project = reading.result()
            if hashing:
                self._hashes = hashing.result()
            connection.result()
        names = sorted({project.services[name].image for name in ([only] if only else project.services)})
        with ThreadPoolExecutor(4) as pool:
            ids = pool.map(self._engine.image_id, names)
            containers = self.containers(project, only)
            images = dict(zip(names, ids, strict=True))
        return project, Facts(containers, self._hashes or {}, images, self._state.completed)

    def containers(self, project: Project, only: str | None = None) -> dict[str, list[Container]]:
        """Return the project's containers as they are now, by service."""
        return by_service(self._engine.containers(project.name, only))


def by_service(containers: Sequence[Container]) -> dict[str, list[Container]]:
    """Return containers grouped by their service."""
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.service, []).append(container)
    return found
