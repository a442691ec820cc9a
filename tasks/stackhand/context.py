"""Stack: the one object that all tasks of a run share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackhand.output.console import Console
from stackhand.output.redact import Redactor

if TYPE_CHECKING:
    from invoke import Context

    from stackhand.engine.client import Engine
    from stackhand.engine.command import Commands
    from stackhand.engine.compose import Compose, Selection
    from stackhand.engine.project import Project
    from stackhand.services.start import Starter
    from stackhand.settings import Settings
    from stackhand.state import StateFolder

_ATTRIBUTE = "_stackhand"


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
        self.dry = dry
        self.json = json
        self.redactor = console.redactor if console else Redactor()
        self.console = console or Console(self.redactor, environ=self.environ)
        self._selection: Selection | None = None
        self.after_start: dict[str, Any] | None = None

    @classmethod
    def of(cls, c: Context) -> Stack:
        """Return the stack of the run that this Invoke context belongs to.

        It is kept on the run's Config object, which all contexts of a run share.
        """
        config = c.config
        found: Stack | None = config.__dict__.get(_ATTRIBUTE)
        if found is None:
            found = cls(
                config.get("stackhand") or {},
                dry=bool(config.run.dry),
                # A main task's arguments do not reach its pre-tasks; the command line is where they can learn
                # that the run reports in JSON.
                json="--json" in sys.argv[1:],
            )
            attach(config, found)
        return found

    @cached_property
    def settings(self) -> Settings:
        """The validated settings. Raises UnknownSetting, InvalidSetting."""
        from stackhand.settings import load

        return load(self._raw_settings, self.environ)

    @cached_property
    def commands(self) -> Commands:
        """Runs other programs."""
        from stackhand.engine.command import Commands

        return Commands()

    @cached_property
    def directory(self) -> Path:
        """The folder of the Compose project. Raises NoComposeFile."""
        from stackhand.engine.compose import find_directory

        return find_directory(self._start_directory, self.environ)

    @cached_property
    def compose(self) -> Compose:
        """The Compose command line for this project."""
        from stackhand.engine.compose import Compose

        return Compose(self.commands, self.directory, self.environ, self._selection)

    @cached_property
    def project(self) -> Project:
        """The Compose project, with its active profiles; its secrets are known to the redactor from here on."""
        self.settings  # noqa: B018  bad settings are told before anything is looked at
        return self._learn(self.compose.config())

    @cached_property
    def engine(self) -> Engine:
        """The engine, at the endpoint that the docker CLI would use. Raises EngineUnreachable and its like."""
        from stackhand.engine.client import Engine

        return Engine(self.environ)

    @cached_property
    def state(self) -> StateFolder:
        """The project's `.stackhand/` folder."""
        from stackhand.state import StateFolder

        return StateFolder(self.directory)

    @cached_property
    def starter(self) -> Starter:
        """Starts services; shared, so that a dependency of several tasks starts once."""
        from stackhand.services.start import Starter

        return Starter.for_stack(self)

    def use_development(self) -> None:
        """Choose the development overrides. Has to come before the project is read."""
        from stackhand.engine.compose import development

        self._selection = development(self.directory, self.environ)

    def select(self, names: Sequence[str]) -> list[str]:
        """Return the services that `-s` names, all of the project where it names none.

        A service of a profile that is not active is found too, as `docker compose up NAME` does it; its profile
        is active from then on. Raises UnknownService.
        """
        from stackhand.errors import UnknownService

        if not names:
            return list(self.project.services)
        if any(name not in self.project.services for name in names):
            everything = self.compose.with_profiles(["*"]).config()
            profiles: list[str] = []
            for name in names:
                if name not in everything.services:
                    raise UnknownService(name, list(everything.services))
                if name not in self.project.services:
                    profiles += everything.services[name].profiles
            self.__dict__["compose"] = self.compose.with_profiles(profiles)
            self.__dict__["project"] = self._learn(self.compose.config())
        return list(dict.fromkeys(names))

    def cancel(self) -> None:
        """End what is under way: programs at once, waiting threads at their next look."""
        if "starter" in self.__dict__:
            self.starter.cancel()
        if "commands" in self.__dict__:
            self.commands.stop()

    def _learn(self, project: Project) -> Project:
        for service in project.services.values():
            self.redactor.add_environment(service.environment)
        self.redactor.add(_contents(project.secret_files.values()))
        self.redactor.add(self.environ.get(name, "") for name in project.secret_variables)
        self.redactor.add_public([project.name, *project.services, *project.networks])
        return project


def attach(config: Any, stack: Stack) -> None:
    """Put a run's stack on a Config; side by side, tasks have clones of the run's own."""
    # Config keeps plain attributes only through object's own setter.
    object.__setattr__(config, _ATTRIBUTE, stack)


def _contents(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        try:
            yield file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # a missing file is reported where it is needed
