"""CheckContext: what checks read and fixes act with. Facts are asked for once, and again after a change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from stackhand.checks.connections import Client, clients
from stackhand.checks.errors import NoAnswer
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.api.sdk import ContainerGone
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run, Unfinished

F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)
# What answers at all answers a question like these in a fraction of a second, also when it is busy.
_PATIENCE = 5.0
# The task whose runs the journal has: each names the runs of containers that a fix is about to end.
TASK = "services.fixes"


@dataclass(frozen=True)
class ServiceActions:
    """How a fix acts on whole services. Each raises StackError where it did not work.

    `start` starts a service, runs a one-shot again, and waits until it is ready; `restart` stops and starts its
    containers and waits; `run` runs a command in a container of the service made for it, with its networks and
    secrets, and removed after it.
    """

    start: Callable[[str], None]
    restart: Callable[[str], None]
    run: Callable[[str, Sequence[str]], None]


class Collects(Protocol[F_co]):
    """A kind, as far as the context needs it: it asks a service for its facts."""

    @property
    def name(self) -> str:
        """The kind's name."""

    def collect(self, context: CheckContext, service: str) -> F_co:
        """Ask the service for its facts. Raises NoAnswer."""


@dataclass(frozen=True)
class ServiceKinds:
    """The kinds of a project's services; `guesses` are the pairs of service and kind that are not certain."""

    # Of type Kind, which is built on this module.
    kinds: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    guesses: frozenset[tuple[str, str]] = frozenset()

    def of(self, service: str) -> tuple[Any, ...]:
        """Return the kinds of one service."""
        return self.kinds.get(service, ())

    def services(self, kind: str) -> list[str]:
        """Return the services of the kind of this name."""
        return [service for service, kinds in self.kinds.items() if any(each.name == kind for each in kinds)]

    def is_guess(self, service: str, kind: str) -> bool:
        """Return whether only a healthcheck or a port says that a service is of the kind of this name."""
        return (service, kind) in self.guesses


class CheckContext:
    """One project as its checks see it: containers, the facts of each service by kind, who connects to whom."""

    def __init__(
        self,
        project: Project,
        engine: Engine,
        kinds: ServiceKinds,
        settings: Fixes,
        state: StateFolder,
        actions: ServiceActions,
        *,
        named: Collection[str] = (),
        verified_healthy: Collection[str] = (),
        redact: Callable[[str], str] = str,
        register_secret: Callable[[str], None] = lambda secret: None,
        dry: bool = False,
    ) -> None:
        self.project = project
        self.engine = engine
        self.kinds = kinds
        self.settings = settings
        self.state = state
        self.actions = actions
        self.named = named
        self.verified_healthy = verified_healthy
        self.redact = redact
        self.register_secret = register_secret
        # Nothing is changed anywhere, the memory of what was seen included.
        self.dry = dry
        self.clients: Sequence[Client] = clients(project)
        # When a fix gave a container of a service another address, in seconds since 1970.
        self.address_changed_at: dict[str, float] = {}
        # What kinds keep for themselves from one look to the next, by their name and a container's id.
        self.scratch: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._look = _Look()
        self._pinned: Container | None = None

    def for_container(self, container: Container) -> CheckContext:
        """Return this scene with one container of several for the one of its service that is asked."""
        view = copy.copy(self)
        view._pinned = container
        return view

    def containers(self) -> Sequence[Container]:
        """Return the project's containers as they were when somebody first asked."""
        look = self._look
        with look.reading:
            if look.containers is None:
                look.containers = self.engine.containers(self.project.name)
            return look.containers

    def running(self, service: str) -> Container | None:
        """Return the running container of a service that is asked, the first where there are several, or None."""
        if self._pinned and self._pinned.service == service:
            return self._pinned
        return next((each for each in self.containers() if each.service == service and each.running), None)

    def container(self, service: str) -> Container:
        """Return the container of a service that is asked. Raises NoAnswer where none runs."""
        found = self.running(service)
        if found is None:
            raise NoAnswer(f"no container of {service} runs", f"`inv up.{service}` starts it")
        return found

    def clients_of(self, server: str) -> list[Client]:
        """Return who connects to a service, as their environments say."""
        return [each for each in self.clients if each.server == server]

    def neighbours(self, service: str, *, stores: bool = False) -> list[str]:
        """Return the running services that share a network with this one, itself first.

        Those that hold data are left out unless they are asked for with `stores`: a script that is cut off there leaves
        its children to the server, and Postgres takes the death of such a one for a crash and ends every session.
        """
        mine = self.container(service)
        near = [each.service for each in self.containers() if each.running and each.networks & mine.networks]
        holding = {name for name in near if any(kind.holds_data for kind in self.kinds.of(name))}
        return list(dict.fromkeys([service, *(name for name in near if stores or name not in holding)]))

    def facts(self, kind: Collects[F], service: str) -> F:
        """Return what a kind knows of a service; asked once until `invalidate`. Raises NoAnswer."""
        return self.cached((kind.name, service), lambda: kind.collect(self, service))

    def facts_of(self, kind: str, service: str) -> Any:
        """Return what the kind of this name, which is one of the service's, knows of it. Raises NoAnswer."""
        return self.facts(next(each for each in self.kinds.of(service) if each.name == kind), service)

    def cached(self, key: tuple[str, str], ask: Callable[[], F]) -> F:
        """Return or raise what `ask` did when it was first called under this key since `invalidate`.

        The key is whose facts these are, and the service that they are about.
        """
        asked = (*key, self._pinned.id if self._pinned else "")
        with self._lock:
            known = self._look.facts.get(asked)
            mine = known is None
            if known is None:
                known = self._look.facts[asked] = Future()
        if mine:
            try:
                known.set_result(ask())
            except BaseException as error:
                known.set_exception(error)
        result: F = known.result()
        return result

    def invalidate(self) -> None:
        """Have everything asked anew: something was changed, or is about to change by itself."""
        with self._lock:
            self._look = _Look()

    def ask(
        self,
        service: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        timeout: float = _PATIENCE,
    ) -> ExecResult:
        """Run a program inside the service's container. Raises NoAnswer where none runs; never for its exit code.

        Passwords go into the `environment`, never on the command line.
        """
        try:
            return self.engine.ask(
                self.container(service).id, argv, environment=environment, user=user, timeout=timeout
            )
        except ContainerGone as error:
            raise NoAnswer(f"the container of {service} has ended: {error.message}") from error

    def shell(self, service: str, script: str, *words: str, **options: Any) -> ExecResult:
        """Run a script of the container's `sh`, `words` being its $1, $2, …; `options` are those of `ask`."""
        return self.ask(service, ["sh", "-c", script, "sh", *words], **options)

    def act(self, service: str, argv: Sequence[str], **options: Any) -> ExecResult:
        """Run a program inside the service's container that changes something. Raises StackError when it fails."""
        answer = self.ask(service, argv, **{"timeout": 60.0, **options})
        if not answer.ok:
            raise StackError(f"{argv[0]} in {service}: {self.redact(answer.last_error)}")
        return answer

    def restart(self, service: str) -> None:
        """Stop and start a service's containers, and wait until it is ready. Raises StackError."""
        with self.restarting(service):
            self.actions.restart(service)

    @contextmanager
    def restarting(self, service: str) -> Iterator[None]:
        """Remember while the body runs that a fix, and nobody else, stops the containers of a service.

        Where the body is killed or fails the memory stays: the next run starts what ended so.
        """
        there = [each for each in self.containers() if each.service == service]
        runs = [each.run_key for each in there if each.running]
        journal = Journal(self.state)
        before = [run for run in journal.unfinished(TASK) if not run.is_under_way]
        stopped = {each.run_key for each in self.containers() if each.stopped}
        with journal.run(TASK, steps=dict.fromkeys(runs, "")):
            yield
        journal.settle(*(run for run in before if not run.left(lambda key: key in runs or key not in stopped)))

    def has_pending_restart(self, containers: Sequence[Container]) -> bool:
        """Return whether one of these containers was stopped by a fix that did not come to its end."""
        owed = {key for run in Journal(self.state).unfinished(TASK) for key in run.steps}
        return any(each.stopped and each.run_key in owed for each in containers)


def describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    """Return what a person is told of a fix that was not finished; None where all that it stopped runs again."""
    left = run.left(lambda key: all(each.run_key != key or not each.stopped for each in containers))
    services = list(dict.fromkeys(each.service for each in containers if each.run_key in left))
    if not services:
        return None
    return Unfinished(
        TASK,
        run.began,
        f"a fix was interrupted while it restarted {', '.join(services)}",
        "`inv services.fixes` finishes it",
    )


@dataclass
class _Look:
    """What was seen between one change and the next."""

    containers: Sequence[Container] | None = None
    facts: dict[tuple[str, str, str], Future[Any]] = field(default_factory=dict)
    reading: threading.Lock = field(default_factory=threading.Lock)
