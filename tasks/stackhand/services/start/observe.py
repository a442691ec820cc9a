"""Reads all that a start has to know: project, containers, configuration hashes, images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.graph import schedule
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.start.plan import Facts
from stackhand.services.start.remember import COMPLETED, MADE
from stackhand.state.folder import StateFolder


class Survey:
    """Looks at one project again and again. What only the compose files decide is read once."""

    def __init__(
        self,
        engine: Engine,
        read_project: Callable[[], Project],
        read_hashes: Callable[[], dict[str, str]],
        state: StateFolder,
    ) -> None:
        self._engine = engine
        self._read_project = read_project
        self._read_hashes = read_hashes
        self._state = state

    def read(self, only: str | None = None) -> Facts:
        """Return the project's facts, those of one service where `only` names it.

        What does not need the other is read side by side.
        """
        project = self._read_project()
        names = sorted({project.services[name].image for name in ([only] if only else project.services)})
        found: dict[str, Any] = schedule.gather(
            {
                "hashes": self._read_hashes,
                "images": lambda: {name: self._engine.image_id(name) for name in names},
                "containers": lambda: self.containers(project, only),
            }
        )
        return Facts(
            found["containers"],
            found["hashes"],
            found["images"],
            COMPLETED.read(self._state),
            MADE.read(self._state),
            mounted.stamps(project, [only] if only else project.services),
        )

    def containers(
        self, project: Project, only: str | None = None, *, brief: bool = False
    ) -> dict[str, list[Container]]:
        """Return the project's containers as they are now, by service; `brief` as in `Engine.containers`."""
        return by_service(self._engine.containers(project.name, only, brief=brief))


def by_service(containers: Sequence[Container]) -> dict[str, list[Container]]:
    """Return containers grouped by their service."""
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.service, []).append(container)
    return found
