"""Stack: what all tasks of a run share. Wiring only."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackhand.lazy import locked_cached_property
from stackhand.output.console import Console, reports_json
from stackhand.output.redact import Redactor

if TYPE_CHECKING:
    from invoke.context import Context

    from stackhand.checks.context import CheckContext
    from stackhand.engine.api.client import Engine
    from stackhand.engine.compose.loader import ProjectLoader
    from stackhand.engine.compose.project import Project
    from stackhand.engine.host.programs import Programs
    from stackhand.output.live import Live
    from stackhand.services.actions import Actions
    from stackhand.services.start.run import Starter
    from stackhand.settings import Settings
    from stackhand.state.folder import StateFolder

_ATTRIBUTE = "_stackhand"
_making = threading.Lock()  # tasks that run side by side ask for the one stack at the same time


class Stack:
    """Settings, Compose project, engine, console and state folder of one run, each made when first used."""

    def __init__(
        self,
        raw_settings: Mapping[str, Any],
        *,
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        dry: bool = False,
        json: bool = False,
        console: Console | None = None,
    ) -> None:
        self._raw_settings = raw_settings
        self._start_directory = directory or Path.cwd()
        self.environ = dict(os.environ if environ is None else environ)
        self.dry, self.json = dry, json
        self.redactor = console.redactor if console else Redactor()
        self.console = console or Console(self.redactor, environ=self.environ)
        self.lock = threading.RLock()

    @classmethod
    def of(cls, c: Context) -> Stack:
        """Return the stack of the run that this Invoke context belongs to; it is kept on the run's Config object."""
        # GraphExecutor gives every call a clone that names the run's own configuration.
        config = c.config.__dict__.get("_run_config", c.config)
        with _making:
            if _ATTRIBUTE not in config.__dict__:
                made = cls(config.get("stackhand") or {}, dry=bool(config.run.dry), json=reports_json())
                # Config keeps plain attributes only through object's own setter.
                object.__setattr__(config, _ATTRIBUTE, made)
            stack: Stack = config.__dict__[_ATTRIBUTE]
            return stack

    @locked_cached_property
    def settings(self) -> Settings:
        """The validated settings. Raises UnknownSetting, InvalidSetting."""
        from stackhand.settings import load

        return load(self._raw_settings, self.environ)

    @locked_cached_property
    def commands(self) -> Programs:
        """Runs other programs."""
        from stackhand.engine.host.programs import Programs

        return Programs()

    @locked_cached_property
    def directory(self) -> Path:
        """The folder of the Compose project. Raises NoComposeFile."""
        from stackhand.engine.compose.files import find_directory

        return find_directory(self._start_directory, self.environ)

    @locked_cached_property
    def loader(self) -> ProjectLoader:
        """Reads the Compose project. Raises NoComposeFile, and what `settings` raises."""
        from stackhand.engine.compose.loader import ProjectLoader

        self.settings  # noqa: B018  mistakes in the settings come before all others
        return ProjectLoader(self.commands, self.directory, self.environ, self.redactor)

    @property
    def project(self) -> Project:
        """The Compose project, as it is selected now."""
        return self.loader.project

    @locked_cached_property
    def engine(self) -> Engine:
        """The engine, at the endpoint that the docker CLI would use. Raises EngineUnreachable and its like."""
        from stackhand.engine.api.client import Engine

        return Engine(self.environ)

    @locked_cached_property
    def state(self) -> StateFolder:
        """The project's `.stackhand/` folder."""
        from stackhand.engine.compose.files import state_directory
        from stackhand.state.folder import StateFolder

        # With COMPOSE_FILE Compose works in the current folder, but a project has one lock, wherever we are.
        return StateFolder(state_directory(self.directory, self.environ), self.environ)

    @locked_cached_property
    def actions(self) -> Actions:
        """Starts, restarts, recreates and runs whole services."""
        from stackhand.output.pulse import ProgressTicker
        from stackhand.services.actions import Actions

        ticker = ProgressTicker(self.console)
        return Actions(self.loader, self.engine, self.settings.start, self.state, self.redactor, ticker)

    @property
    def starter(self) -> Starter:
        """Starts services, and has the records of this run."""
        return self.actions.starter

    @locked_cached_property
    def display(self) -> Live:
        """Shows the progress of work on several services at once."""
        from stackhand.output.live import Live

        return Live(self.console)

    def check_context(self, named: Sequence[str] = ()) -> CheckContext:
        """Return what checks read and fixes act with, for `named` services. Raises UnknownKind, BrokenKind."""
        from stackhand.services.fixes import check_context

        what = (self.project, self.engine, self.settings.fixes, self.state, self.actions, self.redactor)
        return check_context(*what, named=named, dry=self.dry)

    def made(self, part: str) -> Any:
        """Return a part of the stack if something has asked for it before, None if nothing has."""
        return self.__dict__.get(part)
