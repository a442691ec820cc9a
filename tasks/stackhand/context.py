"""Stack: the one object that all tasks of a run share."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackhand.output.console import Console
from stackhand.output.redact import Redactor

if TYPE_CHECKING:
    from concurrent.futures import Future

    from invoke.config import Config
    from invoke.context import Context

    from stackhand.checks.context import CheckContext
    from stackhand.engine.api.client import Engine
    from stackhand.engine.compose.cli import Compose, Selection
    from stackhand.engine.compose.project import Project
    from stackhand.engine.host.programs import Programs
    from stackhand.errors import Interrupted
    from stackhand.model import Report
    from stackhand.output.live import Live
    from stackhand.services.start.record import StartReport
    from stackhand.services.start.run import Starter
    from stackhand.settings import Settings
    from stackhand.state.folder import StateFolder

_ATTRIBUTE = "_stackhand"
# Tasks that run side by side ask for the stack at the same time, and there is only one.
_making = threading.Lock()


class _shared(cached_property):  # type: ignore[type-arg]  # noqa: N801  reads as the decorator that it is
    """A cached property that two threads can ask for at once, and both get the same."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        with instance.lock:
            # The other thread may have been first while this one waited.
            return instance.__dict__.get(self.attrname) or super().__get__(instance, owner)


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
        self.lock = threading.RLock()
        self._selection: Selection | None = None
        self._due: Callable[[], Any] | None = None
        self._hash_lock = threading.Lock()
        self._hashing: tuple[Compose, Future[dict[str, str]]] | None = None
        # What a start hands on to its post-task.
        self.start_report: StartReport | None = None
        self.fixes_report: Report | None = None
        self.to_fix: list[str] = []
        # Whether the dashboard is to be opened at the end.
        self.to_watch = False

    @classmethod
    def of(cls, c: Context) -> Stack:
        """Return the stack of the run that this Invoke context belongs to.

        It is kept on the run's Config object, which all contexts of a run share.
        """
        # GraphExecutor gives every call a clone that names the run's own configuration.
        config = c.config.__dict__.get("_run_config", c.config)
        with _making:
            return config.__dict__.get(_ATTRIBUTE) or cls._make(config)

    @classmethod
    def _make(cls, config: Config) -> Stack:
        made = cls(
            config.get("stackhand") or {},
            dry=bool(config.run.dry),
            # A main task's arguments do not reach its pre-tasks; the command line is where they can learn that the
            # run reports in JSON.
            json="--json" in sys.argv[1:],
        )
        # Config keeps plain attributes only through object's own setter.
        object.__setattr__(config, _ATTRIBUTE, made)
        return made

    @_shared
    def settings(self) -> Settings:
        """The validated settings. Raises UnknownSetting, InvalidSetting."""
        from stackhand.settings import load

        return load(self._raw_settings, self.environ)

    @_shared
    def commands(self) -> Programs:
        """Runs other programs."""
        from stackhand.engine.host.programs import Programs

        return Programs()

    @_shared
    def directory(self) -> Path:
        """The folder of the Compose project. Raises NoComposeFile."""
        from stackhand.engine.compose.files import find_directory

        return find_directory(self._start_directory, self.environ)

    @_shared
    def compose(self) -> Compose:
        """The Compose command line for this project."""
        from stackhand.engine.api.endpoint import for_cli
        from stackhand.engine.compose.cli import Compose

        made = Compose(self.commands, self.directory, for_cli(self.environ), self._selection)
        # A profile on the command line replaces those of COMPOSE_PROFILES, so these have to be named again.
        return made.with_profiles(()) if self._selection and self._selection.profiles else made

    @_shared
    def project(self) -> Project:
        """The Compose project, with its active profiles; its secrets are known to the redactor from here on."""
        self.settings  # noqa: B018  bad settings are told before anything is looked at
        return self._learn(self.compose.config())

    @_shared
    def engine(self) -> Engine:
        """The engine, at the endpoint that the docker CLI would use. Raises EngineUnreachable and its like."""
        from stackhand.engine.api.client import Engine

        return Engine(self.environ)

    @_shared
    def state(self) -> StateFolder:
        """The project's `.stackhand/` folder."""
        from stackhand.engine.compose.files import state_directory
        from stackhand.state.folder import StateFolder

        # With COMPOSE_FILE the folder we stand in is Compose's, but it is no place to keep a project's lock in.
        return StateFolder(state_directory(self.directory, self.environ), self.environ)

    @_shared
    def starter(self) -> Starter:
        """Starts services; shared, so that a dependency of several tasks starts once."""
        return self._starter()

    def _starter(self) -> Starter:
        from stackhand.services.start.run import Starter

        return Starter(
            lambda: (self.project, self.compose),
            self.hashes,
            self.engine,
            self.settings.start,
            self.state,
            self.redactor,
        )

    @_shared
    def display(self) -> Live:
        """Shows the progress of whatever the run does to several services at once."""
        from stackhand.output.live import Live

        return Live(self.console)

    def use_development(self) -> None:
        """Choose the development overrides, also after another task of the run has read the project without them."""
        from stackhand.engine.compose.cli import development

        self._selection = development(self.directory, self.environ)
        for made in ("compose", "project"):
            self.__dict__.pop(made, None)

    def select(self, names: Sequence[str]) -> list[str]:
        """Return the services that `-s` names, all of the project where it names none.

        A service of a profile that is not active is found too, as `docker compose up NAME` does it; its profile
        is active from then on. Raises UnknownService.
        """
        with self.lock:
            if not names:
                return list(self.project.services)
            if any(name not in self.project.services for name in names):
                self._activate(names)
        return list(dict.fromkeys(names))

    def prefetch(self) -> None:
        """Begin to read what a start will ask for, beside whatever comes first: hashes, and the way to the engine."""
        from concurrent.futures import Future

        compose, engine = self.compose, self.engine
        future: Future[dict[str, str]] = Future()
        self._hashing = (compose, future)

        def read() -> None:
            try:
                future.set_result(compose.hashes())
            except BaseException as error:
                future.set_exception(error)

        def connect() -> None:
            with contextlib.suppress(Exception):  # told when the engine is first asked for something
                engine.api  # noqa: B018

        for work in (read, connect):
            # Daemons: an interrupted run does not wait for an engine that does not answer.
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def hashes(self) -> dict[str, str]:
        """Return the configuration hash of each service, as the project is selected now; asked for once."""
        from concurrent.futures import Future

        with self._hash_lock:
            compose, future = self._hashing or (None, None)
            if future is None or compose is not self.compose:
                future = Future()
                future.set_result(self.compose.hashes())
                self._hashing = (self.compose, future)
        return future.result()

    def _activate(self, names: Sequence[str]) -> None:
        """Make the profiles active that these services belong to. Raises UnknownService."""
        from stackhand.errors import UnknownService

        everything = self.compose.with_profiles(["*"]).config()
        profiles: list[str] = []
        for name in names:
            if name not in everything.services:
                raise UnknownService(name, list(everything.services))
            if name not in self.project.services:
                profiles += everything.services[name].profiles
        self.__dict__["compose"] = self.compose.with_profiles(profiles)
        self.__dict__["project"] = self._learn(self.compose.config())

    def check_context(self, named: Sequence[str] = ()) -> CheckContext:
        """Return the project as the checks of its kinds see it, and how a fix starts, restarts or runs a service.

        `named` are the services that the person named. Raises UnknownKind, BrokenKind.
        """
        from stackhand.checks.context import CheckContext, ServiceActions
        from stackhand.kinds.registry import recognise

        return CheckContext(
            self.project,
            self.engine,
            recognise(self.project),
            self.settings.fixes,
            self.state,
            ServiceActions(self._start_again, self._restart, self._run_once),
            named=named,
            verified_healthy=self.starter.records.proven,
            redact=self.redactor.text,
            register_secret=lambda secret: self.redactor.add([secret]),
            dry=self.dry,
        )

    def _start_again(self, name: str) -> None:
        """Start one service and what it depends on, as they are; a one-shot runs again. Raises StackError."""
        from stackhand.errors import StackError

        if not self.starter.start_as_is(name).ok:
            raise StackError(f"{name} did not become ready", f"`inv services.logs -s {name}` says more")

    def _run_once(self, name: str, command: Sequence[str]) -> None:
        from stackhand.errors import StackError
        from stackhand.output.pulse import ProgressTicker

        under_way = self.engine.one_offs(self.project.name, name)
        if under_way:
            # Of a run that was killed: Compose's own process, and the container, live on.
            raise StackError(f"{under_way[0]} still runs; it has to end first (`docker logs {under_way[0]}`)")
        self.compose.run_once(name, command, ProgressTicker(self.console))

    def _restart(self, name: str) -> None:
        """Stop and start the containers of one service as they are, and wait until it is ready. Raises StackError."""
        from stackhand.errors import StackError

        self.compose.restart([name])
        # With records of its own: those of this run's start are for the start's report.
        if not self._starter().wait([name]).ok:
            raise StackError(f"{name} did not become ready after its restart")

    def start_document(self) -> dict[str, Any]:
        """Return the contract's JSON of a start, with the fixes that followed it."""
        report = self.start_report or self.starter.report()
        fixes = self.fixes_report.findings if self.fixes_report else ()
        return replace(report, fixes=fixes).to_json()

    def due(self, document: Callable[[], Any]) -> None:
        """Have this document written when the run ends, whichever of its tasks is the last, and however it ends.

        A start's document tells of the post-task too, and of a pre-task that failed. Called again, it replaces the
        document that was due.
        """
        if self._due is None:
            atexit.register(self.settle)
        self._due = document

    def settle(self) -> None:
        """Write the document that is due."""
        if self._due is not None and not self.console.document_written:
            self.console.document(self._due())

    @property
    def document_pending(self) -> bool:
        """Whether the run's document is still to be written at its end."""
        return self._due is not None and "starter" in self.__dict__ and bool(self.starter.records)

    def interrupt(self) -> Interrupted:
        """End what is under way, programs at once and threads at their next look; return what to tell the person."""
        from stackhand.errors import Interrupted

        where = self.starter.records.where() if "starter" in self.__dict__ else ""
        self.cancel()
        if not where:
            return Interrupted("interrupted")
        return Interrupted(f"interrupted; {where}", "what runs is left running; the next start carries on from there")

    def cancel(self) -> None:
        """End what is under way: programs at once, threads at their next look."""
        if "starter" in self.__dict__:
            self.starter.cancel()
        if "commands" in self.__dict__:
            self.commands.stop()

    def _learn(self, project: Project) -> Project:
        from stackhand.engine.compose.files import env_file_pairs

        # Variables can be interpolated anywhere: into a command, a build argument, a label.
        from_file = env_file_pairs(self.directory)
        self.redactor.add_environment(self.environ)
        self.redactor.add_environment(from_file)
        for service in project.services.values():
            self.redactor.add_environment(service.environment)
            self.redactor.add_environment(service.build_arguments)
        self.redactor.add(_contents(project.secret_files.values()))
        for variables in (self.environ, from_file):
            self.redactor.add(variables.get(name, "") for name in project.secret_variables.values())
        self.redactor.add_public([project.name, *project.services, *project.networks])
        return project


def _contents(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        try:
            # To read a fifo would be to wait for whoever writes to it.
            if file.is_file():
                yield file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # a missing file is reported where it is needed
