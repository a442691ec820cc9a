"""The reset from beginning to end: decide from facts, remove under the lock, start again. It needs no task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.loader import ProjectLoader
from stackhand.graph import schedule
from stackhand.services import origin
from stackhand.services.reset import plan as planning
from stackhand.services.reset.journal import Journal, Mode
from stackhand.services.reset.plan import Item, Reset
from stackhand.services.start.plan import needs
from stackhand.services.start.record import StartReport
from stackhand.services.start.remember import PROVIDED
from stackhand.services.start.run import Starter
from stackhand.state.folder import StateFolder

Tell = Callable[[str, str, str], None]
"""Takes what is worked on, how it stands (`wait`, `ok`) and a text."""


class Resetter:
    """Removes what a project has made, and starts the project again."""

    def __init__(self, loader: ProjectLoader, engine: Engine, state: StateFolder, starter: Starter) -> None:
        self._loader = loader
        self._engine = engine
        self._state = state
        self._starter = starter
        self._journal = Journal(state)
        # The services of inactive profiles have containers and volumes, too.
        self._everything = loader.all_profiles.config()

    def plan(self, mode: Mode) -> Reset:
        """Return what a reset would remove and keep, and which services it would start, each after what it needs.

        Raises VolumeInUse, ForeignContainers.

        Those are the services that are active now, that run, or that an unfinished reset was to start.
        """
        seen = planning.read(self._engine, self._everything)
        origin.refuse(self._everything, seen.containers)
        before = self._journal.unfinished()
        running = {each.service for each in seen.containers if each.running and not each.one_off}
        wanted = {*self._loader.project.services, *running, *(before[1] if before else ())}
        names = schedule.order(needs(self._everything, wanted))
        return planning.decide(self._everything, seen, mode, names, resumes=before[0] if before else None)

    def run(self, reset: Reset, tell: Tell, on_removed: Callable[[Sequence[Item]], None]) -> StartReport:
        """Remove what goes, start again, and return the report of the start.

        `on_removed` gets what is really gone, before the start begins. Until then the journal has the reset, so that
        the next run knows of one that was killed. Raises LockHeld, ResetFailed, and what `Starter.run` raises.
        """
        with self._state.lock("services.reset"):
            with self._journal.run(reset.mode, reset.names):
                # What providers have made goes, too: they are asked again.
                if PROVIDED.read(self._state):
                    PROVIDED.write(self._state, {})
                gone = planning.remove(reset, self._loader.all_profiles, self._engine, self._everything, tell)
            on_removed(gone)
            return self._starter.run(self._loader.select(reset.names))
