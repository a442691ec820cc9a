"""Carries out starts, many at a time, and knows how much of that is under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.services.start.coalesce import Batch, isolating
from stackhand.services.start.limits import StartLimiter
from stackhand.services.start.notifier import LONGEST_SLEEP, Notifier
from stackhand.services.start.plan import needs
from stackhand.services.start.readiness import worth_probing


class Launcher:
    """Has containers started: by the engine where a start is nothing more, by Compose everywhere else.

    A `docker compose up` costs 0.1 to 0.2 s before it does anything and starts its containers one after another; an
    engine's start costs 0.2 s in all. What goes through Compose is therefore joined into as few calls as possible.
    """

    def __init__(
        self, project: Callable[[], Project], compose: Callable[[], Compose], engine: Engine, wakeups: Notifier
    ) -> None:
        self._project = project
        self._engine = engine
        self._wakeups = wakeups
        self._lanes = StartLimiter()
        self._starts = Batch(isolating(lambda names: compose().start(names), self._times_started), on_done=wakeups.poke)
        self._restarts = Batch(isolating(lambda names: compose().restart(names)), on_done=wakeups.poke)

    @property
    def load(self) -> int:
        """How many starts are under way or waiting."""
        return self._lanes.load + self._starts.load + self._restarts.load

    def start(self, service: Service, containers: Sequence[Container]) -> None:
        """Have the containers of a service running; return as soon as they are.

        Raises what Compose or the engine says: CommandFailed, StackError.
        """
        idle = [container for container in containers if not container.running]
        if idle and self._project().starts_without_compose(service.name):
            urgency = self._heights()[service.name]
            for container in idle:
                check = container.healthcheck
                contended = check is not None and not worth_probing(check.interval, self._lanes.load)
                with self._lanes.lane(urgency, contended=contended):
                    self._wakeups.check()
                    self._engine.start(container.id)
        else:
            self._through(self._starts, service, len(idle))

    def restart(self, service: Service, containers: Sequence[Container]) -> None:
        """Stop and start the containers of a service."""
        self._through(self._restarts, service, len(containers))

    def _through(self, batch: Batch, service: Service, wanted: int) -> None:
        seen = self._wakeups.starts(service.name)
        (ticket,) = batch.submit(service.name)
        # Compose returns later than the containers run; its hooks, though, are part of the start.
        early = bool(wanted) and not service.raw.get("post_start")
        while True:
            mark = self._wakeups.mark(service.name)
            if ticket.done.is_set():
                break
            if early and self._wakeups.starts(service.name) >= seen + wanted:
                return
            self._wakeups.wait(service.name, mark, LONGEST_SLEEP)
        if ticket.error:
            raise ticket.error

    def _heights(self) -> dict[str, int]:
        """Return for each service how many others, one after another, wait for it."""
        project = self._project()
        return schedule.heights(needs(project, project.services))

    def _times_started(self, name: str) -> int:
        """Return how often all containers of a service were seen to start."""
        return self._wakeups.starts(name) // max(1, self._project().services[name].replicas)
