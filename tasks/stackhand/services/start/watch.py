"""Watches the containers of one service until all are ready, one has failed, or the time is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from stackhand.engine.api.containers import Container
from stackhand.engine.api.sdk import ContainerGone
from stackhand.errors import EngineUnreachable, StackError
from stackhand.kinds.first_start import Stage, may_initialise, stage_of
from stackhand.services.start import failures as explain
from stackhand.services.start import readiness
from stackhand.services.start.context import RunContext
from stackhand.services.start.notifier import LONGEST_SLEEP
from stackhand.services.start.record import Failure, ServiceFailed, State

_ENGINE_POLL = 0.5
# After so many seconds a container is looked at although no event came, should one have got lost.
_STALE = 10.0
_GONE = Failure("ready", "gone", "its container was removed", retry=True)


@dataclass(frozen=True)
class Ready:
    """A service that is ready; `after` counts seconds from its containers' start."""

    state: State
    started_at: datetime | None
    after: float


class ContainerWatch:
    """What is remembered of one container between two looks. Times are of the monotonic clock."""

    def __init__(self, context: RunContext, container: Container, expected: readiness.Expectation) -> None:
        self._context = context
        self._shared = context.shared
        self._clock = context.shared.clock
        self._expected = expected
        self.container = container
        self.ready: State | None = None
        self.probe_output = ""
        self.probe_code: int | None = None
        self._version = -1
        self._seen_at = 0.0
        self._up_since: float | None = None
        self._first_death: float | None = None
        self._probe_at = 0.0
        self._may_initialise = may_initialise(context.project.services[container.service])
        self._through_first_start = False
        self.initialising = self._told = False

    @property
    def seconds_since_start(self) -> float:
        """How long ago its main process started."""
        started = self.container.started_at
        return max(0.0, (self._clock.now() - started).total_seconds()) if started else 0.0

    def look(self, version: int, watched_since: float) -> readiness.Verdict:
        """Look at it where something may have happened, run its healthcheck where that is due; return the verdict.

        `version` is the notifier's. Raises ServiceFailed when the container is gone.
        """
        now = self._clock.monotonic()
        if version != self._version or now - self._seen_at >= _STALE:
            self._inspect(version)
        verdict = self._judge()
        if verdict.kind == "wait" and self.ready:
            # Its probe has succeeded since it started; another container of the service is the slower one.
            return readiness.Verdict("ready", self.ready)
        if self._asks_for_first_start:
            verdict = self._look_at_first_start(verdict, watched_since)
        elif verdict.kind == "wait" and self._is_probed and self._clock.monotonic() >= self._probe_at:
            verdict = self._probe(watched_since)
        self.ready = verdict.state if verdict.kind == "ready" else None
        return verdict

    def next_look(self) -> float:
        """Return when something may have changed without an event."""
        now = self._clock.monotonic()
        if not self.container.running or self.ready:
            return now + LONGEST_SLEEP
        if self._is_probed or (self._asks_for_first_start and self._probe_at > now):
            return self._probe_at
        if self.container.healthcheck is None and self._up_since is not None:
            settle = self._expected.settle
            settled = self._up_since + (settle if self._first_death is None else max(settle, 1.0))
            if settled > now:
                return settled + 0.005
        return now + LONGEST_SLEEP

    def _inspect(self, version: int) -> None:
        now, before = self._clock.monotonic(), self.container.started_at
        try:
            self.container = self._shared.engine.inspect(self.container.id)
        except ContainerGone:
            raise ServiceFailed(_GONE) from None
        self._version, self._seen_at = version, now
        if self.container.started_at != before:
            self.ready = None  # what was proven was the run before
            self._through_first_start = False
        if (self.container.restart_count or self.container.status == "restarting") and self._first_death is None:
            self._first_death = now
        if not self.container.running:
            self._up_since = self.ready = None
        elif self._up_since is None or self.container.restart_count:
            self._up_since = now - self.seconds_since_start
            self._probe_at = self._up_since + readiness.first_probe(self._context.launcher.load)

    def _judge(self) -> readiness.Verdict:
        now = self._clock.monotonic()
        return readiness.evaluate(
            self.container,
            self._expected,
            up=0.0 if self._up_since is None else now - self._up_since,
            looping=None if self._first_death is None else now - self._first_death,
            oom=self._shared.notifier.out_of_memory(self.container.id),
        )

    @property
    def _is_probed(self) -> bool:
        """Whether to run this container's healthcheck ourselves."""
        check = self.container.healthcheck
        return (
            self.container.running
            and check is not None
            and not self._expected.one_shot
            and readiness.worth_probing(check.interval, len(self._shared.involved.busy))
        )

    @property
    def _asks_for_first_start(self) -> bool:
        return (
            self._may_initialise
            and not self._through_first_start
            and self.container.running
            and not self._expected.one_shot
        )

    def _look_at_first_start(self, verdict: readiness.Verdict, watched_since: float) -> readiness.Verdict:
        """Return the verdict about a database, which is not ready before its data is made."""
        if self._clock.monotonic() < self._probe_at or not (verdict.kind == "ready" or self._is_probed):
            return readiness.WAIT
        stage = self._stage(watched_since)
        if not self.initialising and self.container.healthcheck:
            # What has succeeded before may have asked the temporary server.
            verdict = self._probe(watched_since)
            if verdict.kind == "ready" and stage == "unknown":
                self._stage(watched_since)
        if self.initialising:
            return readiness.WAIT
        self._through_first_start = verdict.kind == "ready"
        return verdict

    def _stage(self, watched_since: float) -> Stage:
        began = self._clock.monotonic()
        with self._shared.probes.slot():
            self._shared.notifier.check()
            stage = stage_of(self._shared.engine, self.container.id)
        now = self._clock.monotonic()
        if stage == "initialising":
            if not self._told:
                self._shared.tell(self.container.service, "wait", "its data is still being made")
            self._told = True
            self._probe_at = now + readiness.pause(now - watched_since, now - began, readiness.SLOWEST)
        self.initialising = stage == "initialising"
        return stage

    def _probe(self, watched_since: float) -> readiness.Verdict:
        check = self.container.healthcheck
        assert check is not None
        try:
            with self._shared.probes.slot():
                self._shared.notifier.check()
                probe = self._shared.engine.probe(self.container.id, check.argv, check.timeout)
        except ContainerGone:
            self._version = -1  # it ended meanwhile; the next look says how
            return readiness.WAIT
        except EngineUnreachable:
            raise
        except StackError as refused:
            self.probe_output = str(refused)
            self._probe_at = self._clock.monotonic() + check.interval
            return self._judge()
        now = self._clock.monotonic()
        self.probe_output, self.probe_code = probe.output, probe.exit_code
        pause = readiness.pause(
            now - watched_since,
            probe.seconds,
            check.interval,
            starting=self._context.launcher.load,
            crowd=len(self._shared.involved.watched),
        )
        # One that used up its time would do so again: from here on the engine's own probes are enough.
        self._probe_at = now + (check.interval if probe.exit_code is None else pause)
        return readiness.after_probe(self.container, probe)


class ServiceWatch:
    """Watches all containers of one service.

    `last_end` says by container when its run before this one ended. Where nothing is started (not `may_start`), a
    container that is not there yet is waited for.
    """

    def __init__(
        self, context: RunContext, name: str, last_end: Mapping[str, datetime | None], *, may_start: bool
    ) -> None:
        self._context = context
        self._clock = context.shared.clock
        self._name = name
        self._last_end = last_end
        self._may_start = may_start
        settings = context.settings
        delays = [settings.retry_delay * settings.backoff**n for n in range(settings.retries - 1)]
        self._expected = readiness.Expectation(
            one_shot=context.project.is_one_shot(name),
            may_end=may_start,
            settle=settings.settle,
            max_restart_loop=sum(delays),
            retries=settings.retries,
        )
        self._watches: list[ContainerWatch] = []
        self._began = 0.0

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
        deadline = self._began + self._context.settings.timeout
        notifier = self._context.shared.notifier
        while True:
            version = notifier.version(self._name)
            try:
                state = self._look(version)
            except EngineUnreachable:
                await_engine(self._context, self._name, deadline)
                self._watches = []
                continue
            if state:
                return self._ready(state)
            now = self._clock.monotonic()
            if now >= deadline:
                raise ServiceFailed(self._timeout())
            then = min((watch.next_look() for watch in self._watches), default=now + LONGEST_SLEEP)
            notifier.wait(self._name, version, max(0.0, min(then, deadline) - now))

    def _look(self, version: int) -> State | None:
        """Look at every container once. Returns the service's state where all are ready."""
        if not self._watches:
            found = containers_of(self._context, self._name)
            self._watches = [ContainerWatch(self._context, container, self._expected) for container in found]
        states: list[State | None] = []
        for watch in self._watches:
            verdict = watch.look(version, self._began)
            if verdict.failure:
                raise ServiceFailed(self._with_evidence(verdict.failure, watch))
            states.append(watch.ready)
        if not states and self._may_start:
            raise ServiceFailed(_GONE)
        return states[0] if states and None not in states else None

    def _ready(self, state: State) -> Ready:
        started = self.started_at
        after = (self._clock.now() - started).total_seconds() if started else 0.0
        ended = [watch.container.finished_at for watch in self._watches if watch.container.finished_at]
        if state == "completed" and ended and started:
            after = (max(ended) - started).total_seconds()
        return Ready(state, started, max(0.0, after))

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
        limit = self._context.settings.timeout
        if not self._watches:
            return Failure("ready", "timeout", f"not ready after {limit:g} s: it has no container")
        slow = self._watches[0]
        one_shot = self._expected.one_shot
        failure = explain.timeout(
            slow.container, limit, one_shot=one_shot, probe_code=slow.probe_code, initialising=slow.initialising
        )
        return self._with_evidence(failure, slow)


def containers_of(context: RunContext, name: str) -> list[Container]:
    """Return the containers of a service; an engine that does not answer is waited for. Raises ServiceFailed."""
    shared = context.shared
    deadline = shared.clock.monotonic() + context.settings.timeout
    while True:
        try:
            return shared.engine.containers(context.project.name, name)
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
