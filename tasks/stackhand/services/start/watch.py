"""Watches the containers of one service until all are ready, one has failed, or the time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stackhand.engine.api.containers import Container
from stackhand.errors import EngineUnreachable
from stackhand.services.start import failures as explain
from stackhand.services.start import readiness
from stackhand.services.start.container_watch import GONE, ContainerWatch
from stackhand.services.start.context import RunContext
from stackhand.services.start.notifier import LONGEST_SLEEP
from stackhand.services.start.record import Failure, ServiceFailed, State

_ENGINE_POLL = 0.5


@dataclass(frozen=True)
class Ready:
    """A service that is ready; `after` counts seconds from its containers' start.

    `crashes` is how many runs of its containers had ended by themselves until then (`Notifier.crashes`).
    """

    state: State
    started_at: datetime | None
    after: float
    crashes: int


class ServiceWatch:
    """Watches all containers of one service: those that are `known` to be there, else all that the engine has of it.

    `last_end` says by container when its run before this one ended. Where nothing is started (not `may_start`), a
    container that is not there yet is waited for.
    """

    def __init__(
        self,
        context: RunContext,
        name: str,
        last_end: Mapping[str, datetime | None],
        known: Sequence[Container] = (),
        *,
        may_start: bool,
    ) -> None:
        self._context = context
        self._clock = context.shared.clock
        self._name = name
        self._last_end = last_end
        self._known = known
        self._may_start = may_start
        settings = context.settings
        delays = [settings.retry_delay * settings.backoff**n for n in range(settings.retries - 1)]
        self._expected = readiness.Expectation(
            one_shot=context.project.is_one_shot(name),
            may_end=may_start,
            settle=settings.settle,
            max_restart_loop=sum(delays),
            retries=settings.retries,
            restart=context.project.services[name].restart,
        )
        self._watches: list[ContainerWatch] = []
        self._began = 0.0
        self._limit = settings.timeout

    @property
    def started_at(self) -> datetime | None:
        """When the last of its containers started."""
        started = [watch.container.started_at for watch in self._watches]
        return max((moment for moment in started if moment), default=None)

    def until_ready(self) -> Ready:
        """Return when all containers are ready. Raises ServiceFailed."""
        watched = self._context.shared.involved.watched
        watched.add(self._name)
        try:
            return self._until_ready()
        finally:
            watched.discard(self._name)

    def _until_ready(self) -> Ready:
        self._began = self._clock.monotonic()
        notifier = self._context.shared.notifier
        while True:
            version, crashes = notifier.version(self._name), notifier.crashes(self._name)
            # What has crashed has to run longer than it did, however long that was.
            self._limit = self._context.settings.timeout + (notifier.longest_run(self._name) or 0.0)
            deadline = self._began + self._limit
            try:
                state = self._look(version)
            except EngineUnreachable:
                await_engine(self._context, self._name, deadline)
                self._watches = []
                continue
            if state:
                return Ready(state, self.started_at, max(each.seconds_to_ready for each in self._watches), crashes)
            now = self._clock.monotonic()
            if now >= deadline:
                raise ServiceFailed(self._timeout())
            then = min((watch.next_look() for watch in self._watches), default=now + LONGEST_SLEEP)
            notifier.wait(self._name, version, max(0.0, min(then, deadline) - now))

    def _look(self, version: int) -> State | None:
        """Look at every container once. Returns the service's state where all are ready."""
        if not self._watches:
            # Each is inspected by its own watch.
            found = self._known or containers_of(self._context, self._name, brief=True)
            self._known = ()
            self._watches = [
                ContainerWatch(self._context, each, self._expected, launched=each.id in self._last_end)
                for each in found
            ]
        states: list[State | None] = []
        for watch in self._watches:
            verdict = watch.look(version, self._began)
            if verdict.failure:
                raise ServiceFailed(self._with_evidence(verdict.failure, watch))
            states.append(watch.ready)
        if not states and self._may_start:
            raise ServiceFailed(GONE)
        return states[0] if states and None not in states else None

    def _with_evidence(self, failure: Failure, watch: ContainerWatch) -> Failure:
        shared = self._context.shared
        return explain.with_evidence(
            failure,
            shared.engine,
            watch.container,
            self._context.settings.log_lines,
            self._last_end.get(watch.container.id),
            watch.probe_output,
            shared.redactor,
        )

    def _timeout(self) -> Failure:
        limit = self._limit
        if not self._watches:
            return Failure("ready", "timeout", f"not ready after {limit:g} s: it has no container")
        slow = self._watches[0]
        one_shot = self._expected.one_shot
        failure = explain.timeout(
            slow.container, limit, one_shot=one_shot, probe_code=slow.probe_code, initialising=slow.initialising
        )
        return self._with_evidence(failure, slow)


def containers_of(context: RunContext, name: str, *, brief: bool = False) -> list[Container]:
    """Return the containers of a service; an engine that does not answer is waited for. Raises ServiceFailed.

    `brief` is as in `Engine.containers`.
    """
    shared = context.shared
    deadline = shared.clock.monotonic() + context.settings.timeout
    while True:
        try:
            return shared.engine.containers(context.project.name, name, brief=brief)
        except EngineUnreachable:
            await_engine(context, name, deadline)


def await_engine(context: RunContext, name: str, deadline: float) -> None:
    """Wait until the engine answers again. Raises ServiceFailed at the deadline, in seconds of the monotonic clock."""
    shared = context.shared
    shared.tell(name, "note", "the engine does not answer; waiting for it")
    while shared.clock.monotonic() < deadline:
        if shared.engine.answers():
            return
        shared.notifier.sleep(_ENGINE_POLL)
    reason = "the engine does not answer"
    raise ServiceFailed(Failure("ready", "engine_gone", reason, retry=False, hint="see `inv engine.check`"))
