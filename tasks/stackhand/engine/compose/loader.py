"""Reads the Compose project of a run, in the files and profiles that are chosen, and lets no secret of it out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from stackhand.engine.compose.cli import Compose, Selection, development
from stackhand.engine.compose.files import env_file_pairs
from stackhand.engine.compose.project import Project, Service
from stackhand.engine.host.programs import Programs
from stackhand.errors import UnknownService
from stackhand.output.redact import Redactor

_ALL = ("*",)


@dataclass(frozen=True)
class ChosenProject:
    """A project as it was chosen at one moment, with the Compose that it was read by.

    `read_hashes` returns the configuration hash of each of its services. They stay together, whatever is chosen later.
    """

    project: Project
    compose: Compose
    read_hashes: Callable[[], Mapping[str, str]]


class ProjectLoader:
    """Reads one Compose project and keeps what it has read. Safe to use from several threads.

    The redactor knows the project's secrets before anybody else sees the project.
    """

    def __init__(self, programs: Programs, directory: Path, environ: Mapping[str, str], redactor: Redactor) -> None:
        self._programs = programs
        self._directory = directory
        self._environ = environ
        self._redactor = redactor
        self._lock = threading.RLock()
        self._compose: Compose | None = None
        self._project: Project | None = None
        self._hash_lock = threading.Lock()
        self._hashing: tuple[Compose, Future[dict[str, str]]] | None = None

    @property
    def compose(self) -> Compose:
        """The Compose command line, with the files and profiles that are chosen now."""
        with self._lock:
            if self._compose is None:
                self._compose = self._with(Selection())
            return self._compose

    @property
    def all_profiles(self) -> Compose:
        """The Compose command line for the services of every profile, active or not."""
        return self.compose.with_profiles(_ALL)

    @property
    def project(self) -> Project:
        """The project with its active profiles. Raises InvalidComposeFile and the other errors of `Compose.config`."""
        with self._lock:
            if self._project is None:
                self._project = self._read(self.compose)
            return self._project

    def chosen(self) -> ChosenProject:
        """Return what is chosen now. Compose is asked for hashes once, and not before they are read."""
        with self._lock:
            compose, project = self.compose, self.project
        return ChosenProject(project, compose, lambda: self._hashes_to_come(compose).result())

    def use_development(self) -> None:
        """Choose the development overrides, also after another task of the run has read the project without them."""
        with self._lock:
            # A profile on the command line replaces those of COMPOSE_PROFILES: `with_profiles` names these again.
            self._compose = self._with(development(self._directory, self._environ)).with_profiles(())
            self._project = None

    def select(self, names: Sequence[str]) -> list[str]:
        """Return the services that `-s` names, or all of the project if it names no service.

        A service of a profile that is not active is found too, as `docker compose up NAME` finds it; its profile is
        active from then on. Raises UnknownService.
        """
        with self._lock:
            if not names:
                return list(self.project.services)
            if any(name not in self.project.services for name in names):
                self._activate(names)
        return list(dict.fromkeys(names))

    def prefetch_hashes(self) -> None:
        """Begin to ask Compose for the hashes, on a thread of their own."""
        self._hashes_to_come(self.compose)

    def _hashes_to_come(self, compose: Compose) -> Future[dict[str, str]]:
        with self._hash_lock:
            if self._hashing is None or self._hashing[0] is not compose:
                self._hashing = compose, _ask_for_hashes(compose)
            return self._hashing[1]

    def _activate(self, names: Sequence[str]) -> None:
        """Make the profiles active that these services belong to. Raises UnknownService."""
        everything = self.all_profiles.config()
        profiles: list[str] = []
        for name in names:
            if name not in everything.services:
                raise UnknownService(name, list(everything.services))
            if name not in self.project.services:
                profiles += everything.services[name].profiles
        compose = self.compose.with_profiles(profiles)
        self._compose, self._project = compose, self._read(compose)

    def _with(self, selection: Selection) -> Compose:
        from stackhand.engine.api.endpoint import for_cli

        return Compose(self._programs, self._directory, for_cli(self._environ), selection)

    def _read(self, compose: Compose) -> Project:
        # Variables can be interpolated anywhere: into a command, a build argument, a label, or Compose's errors.
        from_file = env_file_pairs(self._directory)
        self._redactor.add_environment(self._environ)
        self._redactor.add_environment(from_file)
        project = compose.config()
        for service in project.services.values():
            self._redactor.add_environment(service.environment)
            self._redactor.add_environment(service.build_arguments)
            self._redactor.add_environment(_texts(service))
        for text in _contents(project.secret_files.values()):
            self._redactor.add_environment({"password": text})
        for variables in (self._environ, from_file):
            self._redactor.add(variables.get(name, "") for name in project.secret_variables.values())
        self._redactor.add_public(_names(project))
        return project


def _texts(service: Service) -> dict[str, str]:
    """Return the settings of a service in which there may be passwords, next to its environment."""
    check = (service.raw.get("healthcheck") or {}).get("test")
    commands = (service.raw.get("entrypoint"), service.raw.get("command"), check)
    joined = (each if isinstance(each, str) else " ".join(each) for each in commands if each)
    labels = {str(key): str(value) for key, value in (service.raw.get("labels") or {}).items()}
    return {**labels, "commands": "\n".join(joined)}


def _names(project: Project) -> Iterable[str]:
    """Yield the names that anybody may see, also where a secret has the same value."""
    yield from (project.name, str(project.directory), *project.networks, *project.networks.values())
    for key, volume in project.volumes.items():
        yield from (key, volume.name)
    yield from (*project.secret_files, *project.secret_variables, *project.config_files, *project.config_texts)
    for service in project.services.values():
        yield from (service.name, service.image, *service.profiles)
        yield from (service.raw.get("container_name") or "", service.raw.get("hostname") or "")
        yield from (str(port.published) for port in service.ports)


def _ask_for_hashes(compose: Compose) -> Future[dict[str, str]]:
    future: Future[dict[str, str]] = Future()

    def ask() -> None:
        try:
            future.set_result(compose.hashes())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: an interrupted run does not wait for it.
    threading.Thread(target=ask, name="hashes", daemon=True).start()
    return future


def _contents(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        try:
            # Reading a fifo would wait for its writer.
            if file.is_file():
                yield file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # a missing file is reported where it is needed
