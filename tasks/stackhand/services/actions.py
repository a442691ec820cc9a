"""Actions on whole services, for fixes and for every feature that starts, restarts, recreates or runs a service."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.loader import ProjectLoader
from stackhand.errors import StackError
from stackhand.output.redact import Redactor
from stackhand.services.origin import Takeover, made_elsewhere
from stackhand.services.start import half_recreated, sharing
from stackhand.services.start.facts import by_service
from stackhand.services.start.on_demand import OnDemand
from stackhand.services.start.renew_networks import NetworkRenewal
from stackhand.services.start.run import Starter
from stackhand.settings import Start
from stackhand.state.folder import StateFolder


class Actions:
    """Acts on one service at a time, under the project's lock. Every action raises StackError where it did not work.

    What was made from another folder is not touched: OtherFolder.
    """

    def __init__(
        self,
        loader: ProjectLoader,
        engine: Engine,
        settings: Start,
        state: StateFolder,
        redactor: Redactor,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """`on_line` gets the output of commands that run once."""
        self._loader = loader
        self._engine = engine
        self._settings = settings
        self._state = state
        self._redactor = redactor
        self._on_line = on_line
        # Asked before anything is changed that was made from another folder.
        self.takeover = Takeover()
        # Shared by all tasks of a run, so that a dependency of several starts once; its records are those of the run.
        self.starter = self._new_starter()
        self.on_demand = OnDemand(self.starter)

    def start(self, service: str) -> None:
        """Start a service and what it depends on, as they were made, and wait until it is ready.

        A one-shot runs again. What shares a namespace with it follows.
        """
        if not self.starter.start_as_is(service).ok:
            raise StackError(f"{service} did not become ready", f"`inv services.logs -s {service}` says more")

    def restart(self, service: str) -> None:
        """Stop and start the containers of a service as they are, and wait until it is ready.

        What shares a namespace with it follows.
        """
        with self._state.lock("services.restart"):
            self._check_folder(service)
            ran = self._running_sharers(service)
            self._loader.compose.restart([service])
            # With records of its own: those of the run are for the report of its start.
            if not self._new_starter().wait([service]).ok:
                raise StackError(f"{service} did not become ready after its restart")
            self.renew_sharers(service, ran)

    def renew_sharers(self, service: str, ran: Collection[str] = ()) -> None:
        """Renew what runs, or `ran`, and shares what has gone with a container or a restart of this service."""
        project = self._loader.project
        if project.sharers(service):
            there = by_service(self._engine.containers(project.name))
            behind = sharing.left_behind(project, service, there, ran)
            if behind and not self._new_starter().run(behind, as_is=True).ok:
                raise StackError(f"{', '.join(behind)} did not become ready after {service} was renewed")

    def recreate(self, service: str) -> None:
        """Make new containers for a service, as the compose file is now, and start them as `start` does.

        Volumes stay, also those without a name. What shares a namespace or volumes with it follows.
        """
        with self._state.lock("services.recreate"):
            self._check_folder(service)
            chosen = self._loader.chosen()
            NetworkRenewal(chosen.project, chosen.compose, self._engine).refuse(chosen.project.closure([service]))
            half_recreated.clear(self._engine, chosen.project, [service])
            ran = self._running_sharers(service)
            chosen.compose.create([service], force=True)
            self.starter.was_made(service)
            self.start(service)
            self.renew_sharers(service, ran)

    def run_once(self, service: str, command: Sequence[str]) -> None:
        """Run a command in a new container of a service, with its networks and secrets; remove the container.

        Refused while the container of an earlier run still runs, because after a kill both Compose and it live on.
        """
        running = self._engine.one_offs(self._loader.project.name, service)
        if running:
            raise StackError(f"{running[0]} still runs; it has to end first (`docker logs {running[0]}`)")
        chosen = self._loader.chosen()
        NetworkRenewal(chosen.project, chosen.compose, self._engine).refuse([service])
        chosen.compose.run_once(service, command, self._on_line)

    def _running_sharers(self, service: str) -> list[str]:
        project = self._loader.project
        if not project.sharers(service):
            return []
        there = by_service(self._engine.containers(project.name, brief=True))
        return sharing.running_sharers(project, service, there)

    def _check_folder(self, service: str) -> None:
        """Raise OtherFolder where a service's containers were made from another folder, and nobody has agreed."""
        project = self._loader.project
        self.takeover.check(project, made_elsewhere(project, self._engine.containers(project.name, service)))

    def _new_starter(self) -> Starter:
        what = (self._loader.chosen, self._engine, self._settings, self._state, self._redactor)
        return Starter(*what, takeover=self.takeover)
