"""CheckContext: the state that checks read and fixes act on. Facts are collected once, and again after a change."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from stackhand.checks import restarts
from stackhand.checks.connections import Client, clients
from stackhand.checks.errors import NoAnswer
from stackhand.checks.exec import ACT_TIMEOUT, ASK_TIMEOUT, in_helper, inside, shell_argv
from stackhand.checks.overload import overload
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError
from stackhand.graph.slots import EXEC_COSTS, EXECS_AT_ONCE, TimedSemaphore
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)

# Seconds that the least program gets, which shows how busy the machine is.
_LEAST_TIMEOUT = 10.0


@dataclass(frozen=True)
class ServiceActions:
    """How a fix acts on whole services. Each raises StackError where it did not work.

    `start` starts a service, runs a one-shot again, and waits until it is ready. `restart` stops and starts its
    containers and waits. `recreate` makes new containers, as the compose file is now, and starts them. What shares a
    namespace with the service follows in each of these; `renew_sharers` does that alone. `run` runs a command in a
    container of the service made for it, with its networks and secrets, and removed after it.
    """

    start: Callable[[str], None]
    restart: Callable[[str], None]
    recreate: Callable[[str], None]
    run: Callable[[str, Sequence[str]], None]
    renew_sharers: Callable[[str], None] = lambda service: None


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
    """One project as its checks see it: containers, the facts of each service by kind, connections between services."""

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
        # When a fix gave a container of a service another address, by the engine's clock, in seconds since 1970.
        self.address_changed_at: dict[str, float] = {}
        # What kinds keep for themselves from one look to the next, by their name and a container's id.
        self.scratch: dict[tuple[str, str], Any] = {}
        # By how much every time limit of a question grows: 1 where all are asked side by side.
        self.stretch = 1.0
        self._slots = TimedSemaphore(EXECS_AT_ONCE, EXEC_COSTS)
        self._lock = threading.Lock()
        self._current = _Current()
        self._pinned: Container | None = None

    def for_container(self, container: Container | None) -> CheckContext:
        """Return a view for a check of one container of several: this one is asked, and it alone is restarted.

        None leads back from such a view to the project as a whole.

        What is asked through a view is forgotten by `invalidate` of any of them.
        """
        view = copy.copy(self)
        view._pinned = container
        return view

    def with_more_time(self, stretch: float) -> CheckContext:
        """Return a view in which every time limit of a question is so many times as long."""
        view = copy.copy(self)
        view.stretch = stretch
        return view

    def within(self, seconds: float) -> float:
        """Return the time limit of a question that usually has so many seconds.

        All limits of a question pass here, those inside of its script, too: on a busy machine it is asked again with
        more time (`checks/ask.py`).
        """
        return seconds * self.stretch

    def overload(self) -> str:
        """Return what shows that the engine's machine has too much to do to answer in time, "" where nothing does."""
        if not self.settings.overload:
            return ""
        running = next((each for each in self.containers() if each.running), None)
        seconds = None
        if running:
            with contextlib.suppress(NoAnswer):
                seconds = inside(self.engine, running, ["true"], timeout=_LEAST_TIMEOUT).seconds
        return overload(seconds, self.engine.cpu_load(), self.settings.overload)

    def containers(self) -> Sequence[Container]:
        """Return the project's containers as they were when first asked for."""
        look = self._current.look
        with look.reading:
            if look.containers is None:
                look.containers = self.engine.containers(self.project.name)
            return look.containers

    def needs(self, service: str) -> tuple[str, ...]:
        """Return the services that this one connects to or depends on: where they fail, it may fail for that."""
        depends_on = (entry.service for entry in self.project.services[service].depends_on)
        servers = (client.server for client in self.clients if client.service == service)
        return tuple(dict.fromkeys((*depends_on, *servers)))

    def running(self, service: str) -> Container | None:
        """Return the running container of a service that is asked, the first where there are several, or None."""
        if self._is_pinned(service):
            return self._pinned
        return next((each for each in self.containers() if each.service == service and each.running), None)

    def container(self, service: str) -> Container:
        """Return the container of a service that is asked. Raises NoAnswer where no container runs."""
        found = self.running(service)
        if found is None:
            raise NoAnswer(f"no container of {service} runs", f"`inv up.{service}` starts it")
        return found

    def clients_of(self, server: str) -> list[Client]:
        """Return the connections of other services to this one, as their environments have them."""
        return [each for each in self.clients if each.server == server]

    def neighbours(self, service: str, *, stores: bool = False) -> list[str]:
        """Return the running services that share a network with this one, itself first.

        Those that hold data are left out, unless `stores` is set: the children of a script that is killed there become
        children of the server, and Postgres treats the exit of an unknown child as a crash and ends every session.
        """
        mine = self.container(service)
        near = [each.service for each in self.containers() if each.running and each.networks & mine.networks]
        holding = {name for name in near if any(kind.holds_data for kind in self.kinds.of(name))}
        return list(dict.fromkeys([service, *(name for name in near if stores or name not in holding)]))

    def facts(self, kind: Collects[F], service: str) -> F:
        """Return the facts of a kind about a service; asked once until `invalidate`. Raises NoAnswer."""
        return self.cached((kind.name, service), lambda: kind.collect(self, service))

    def facts_of(self, kind: str, service: str) -> Any:
        """Return the facts about a service by the name of its kind. Raises NoAnswer."""
        return self.facts(next(each for each in self.kinds.of(service) if each.name == kind), service)

    def cached(self, key: tuple[str, str], ask: Callable[[], F]) -> F:
        """Return or raise what `ask` did when it was first called under this key since `invalidate`.

        The key is whose facts these are, and the service that they are about.
        """
        asked = (*key, self._pinned.id if self._pinned else "")
        with self._lock:
            known = self._current.look.facts.get(asked)
            mine = known is None
            if known is None:
                known = self._current.look.facts[asked] = Future()
        if mine:
            try:
                known.set_result(ask())
            except BaseException as error:
                known.set_exception(error)
        result: F = known.result()
        return result

    def invalidate(self) -> None:
        """Forget all facts: something was changed, or is about to change by itself."""
        with self._lock:
            self._current.look = _Look()

    def ask(
        self,
        service: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str = "",
        timeout: float = ASK_TIMEOUT,
    ) -> ExecResult:
        """Run a program inside the service's container. Raises NoAnswer where no container runs.

        Passwords go into the `environment`, never on the command line. `timeout` passes through `within`, and begins
        when it is this program's turn: no more are begun at once than the machine has cores.
        """
        container, limit = self.container(service), self.within(timeout)
        with self._slots.slot():
            return inside(self.engine, container, argv, environment=environment, user=user, timeout=limit)

    def shell(self, service: str, script: str, *words: str, **options: Any) -> ExecResult:
        """Run a script of the container's `sh`, `words` being its $1, $2, …; `options` are those of `ask`."""
        return self.ask(service, shell_argv(script, words), **options)

    def ask_in_helper(
        self,
        service: str,
        image: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = ASK_TIMEOUT,
    ) -> ExecResult:
        """Run a program of another image, which has to be there, as if from inside: on the service's own network.

        Raises NoAnswer where no container of the service runs, CannotAsk where the helper cannot be made.
        """
        container, limit = self.container(service), self.within(timeout)
        with self._slots.slot():
            return in_helper(self.engine, container, image, argv, environment=environment, timeout=limit)

    def act(self, service: str, argv: Sequence[str], **options: Any) -> ExecResult:
        """Run a program inside the service's container that changes something. Raises StackError when it fails."""
        answer = self.ask(service, argv, **{"timeout": ACT_TIMEOUT, **options})
        if not answer.ok:
            raise StackError(f"{argv[0]} in {service}: {self.redact(answer.last_error)}")
        return answer

    def restart(self, service: str) -> None:
        """Stop and start a service's containers, and wait until it is ready. Raises StackError.

        In a view `for_container` just that container: the others are busy, and well.
        """
        with self.restarting(service):
            if self._is_pinned(service):
                self.engine.restart(self.container(service).id)
                self.actions.renew_sharers(service)
            else:
                self.actions.restart(service)

    def restarting(self, service: str) -> AbstractContextManager[None]:
        """Write down while the body runs that a fix stops the service's containers, so that the next run starts them.

        In a view `for_container` just that container.
        """
        containers = self.containers()
        theirs = [each for each in containers if each.service == service]
        restarted = [self.container(service)] if self._is_pinned(service) else theirs
        return restarts.restarting(self.state, restarted, containers)

    def _is_pinned(self, service: str) -> bool:
        return self._pinned is not None and self._pinned.service == service


@dataclass
class _Look:
    """What was seen between one change and the next."""

    containers: Sequence[Container] | None = None
    facts: dict[tuple[str, str, str], Future[Any]] = field(default_factory=dict)
    reading: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Current:
    """The look that is valid now, for a context and all its views."""

    look: _Look = field(default_factory=_Look)
