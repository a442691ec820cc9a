"""Brings one service up: orders its start, watches it become ready, tries again, explains when it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.sdk import ContainerGone
from stackhand.engine.compose.project import Project
from stackhand.errors import EngineUnreachable, Interrupted, StackError
from stackhand.graph.clock import Clock
from stackhand.output.redact import Redactor
from stackhand.services.start import failures as explain
from stackhand.services.start import readiness
from stackhand.services.start.launch import Launcher
from stackhand.services.start.limits import TimedSemaphore
from stackhand.services.start.notifier import LONGEST_SLEEP, Notifier
from stackhand.services.start.record import Emit, Failure, Record, ServiceFailed, State, Step
from stackhand.settings import Start

_ENGINE_POLL = 0.5
# After so many seconds a container is looked at although no event came, should one have got lost.
_STALE = 10.0


@dataclass
class RunContext:
    """What all bring-ups of a run share."""

    engine: Engine
    settings: Start
    redactor: Redactor
    wakeups: Notifier
    orders: Launcher
    probes: TimedSemaphore
    emit: Emit
    began: float
    clock: Clock
    read_project: Callable[[], Project]
    # Which services this run has to bring up, and which of them it waits for now.
    busy: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)

    @property
    def project(self) -> Project:
        """The project as it is now: a profile that a task asks for can add services to it."""
        return self.read_project()

    def now(self) -> float:
        """Return seconds since the run began."""
        return self.clock.monotonic() - self.began


@dataclass
class _Look:
    """What is remembered of one container between two looks. Times are of the monotonic clock."""

    container: Container
    mark: int
    at: float = 0.0
    up_since: float | None = None
    first_death: float | None = None
    probe_at: float = 0.0
    probe_output: str = ""
    probe_code: int | None = None
    ready: State | None = None


@dataclass
class ServiceRun:
    """One service on its way to ready. Its record is kept up to date for displays and the report.

    `known` are its containers as they were just seen, which saves the first look. With `only_watch` nothing is ever
    started: a failure is final, and a container that is not there yet is waited for.
    """

    ground: RunContext
    record: Record
    known: Sequence[Container] = ()
    only_watch: bool = False
    looks: dict[str, _Look] = field(default_factory=dict)
    engine_losses: int = 0
    # By container: when its run before this one ended. By the engine's clock, as its log lines are.
    last_end: dict[str, datetime | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The service's name."""
        return self.record.name

    def start(self, *, restart: bool = False) -> None:
        """Have the service's containers running. Raises ServiceFailed when they can't be started."""
        containers = self.known or self._containers()
        self.known = ()
        if not restart and containers and all(container.running for container in containers):
            self.record.began = self.record.started = self.ground.now()
            self.record.state = "starting"
            return
        while True:
            self.record.attempts += 1
            self.record.state = "starting"
            if self.record.began is None:
                self.record.began = self.ground.now()
            self._tell("start", "restarting" if restart else "starting")
            try:
                self._order(containers, restart)
            except ServiceFailed as failed:
                if failed.failure.kind == "engine_gone" and self.engine_losses < self.ground.settings.retries:
                    self.engine_losses += 1
                    self.record.attempts -= 1  # an attempt that was lost to the engine is none
                else:
                    self._again_or_raise(failed.failure)
                containers = self._containers()
                continue
            self.record.started = self.ground.now()
            return

    def ready(self) -> None:
        """Wait until every container of the service is ready. Raises ServiceFailed when that won't happen."""
        if self.record.began is None:
            self.record.began = self.ground.now()
        while True:
            try:
                self._watch()
            except ServiceFailed as failed:
                self._again_or_raise(failed.failure)
                self.start()
            else:
                return

    def _order(self, containers: Sequence[Container], restart: bool) -> None:
        """Have the service's containers started; return as soon as they run."""
        self.last_end = {container.id: container.finished_at for container in containers}
        service = self.ground.project.services[self.name]
        try:
            if restart:
                self.ground.orders.restart(service, containers)
            else:
                self.ground.orders.start(service, containers)
        except Interrupted:
            raise
        except StackError as error:
            raise ServiceFailed(self._start_failure(error)) from error

    def _watch(self) -> None:
        self.ground.watched.add(self.name)
        try:
            self._watch_until_ready()
        finally:
            self.ground.watched.discard(self.name)

    def _watch_until_ready(self) -> None:
        began = self.ground.clock.monotonic()
        deadline = began + self.ground.settings.timeout
        self.looks = {}
        while True:
            try:
                if self._look_at_all(began):
                    return
                pause = self._next_look() - self.ground.clock.monotonic()
            except EngineUnreachable:
                self._await_engine(deadline)
                continue
            left = deadline - self.ground.clock.monotonic()
            if left <= 0:
                raise ServiceFailed(self._timeout())
            mark = min((look.mark for look in self.looks.values()), default=0)
            self.ground.wakeups.wait(self.name, mark, max(0.0, min(pause, left)))

    def _look_at_all(self, began: float) -> bool:
        """Look at every container once. Returns whether all are ready."""
        mark = self.ground.wakeups.mark(self.name)
        if not self.looks:
            self.looks = {each.id: _Look(each, -1) for each in self._containers()}
        states: list[State | None] = []
        for look in self.looks.values():
            if look.mark != mark or self.ground.clock.monotonic() - look.at >= _STALE:
                self._refresh(look, mark)
            verdict = self._judge(look)
            if verdict.kind == "wait" and look.ready:
                # Its probe has succeeded since it started; another container of the service is the slower one.
                states.append(look.ready)
                continue
            if verdict.kind == "wait" and self._is_probed(look) and self.ground.clock.monotonic() >= look.probe_at:
                verdict = self._probe(look, began)
            if verdict.failure:
                raise ServiceFailed(self._with_evidence(verdict.failure, look))
            look.ready = verdict.state if verdict.kind == "ready" else None
            states.append(look.ready)
        if not states and self.only_watch:
            return False
        if not states:
            raise ServiceFailed(Failure("ready", "gone", "its container was removed", retry=True))
        if None in states:
            return False
        self._settle(next(state for state in states if state))
        return True

    def _refresh(self, look: _Look, mark: int) -> None:
        now = self.ground.clock.monotonic()
        before = look.container.started_at
        try:
            look.container = self.ground.engine.inspect(look.container.id)
        except ContainerGone:
            raise ServiceFailed(Failure("ready", "gone", "its container was removed", retry=True)) from None
        look.mark, look.at = mark, now
        if look.container.started_at != before:
            look.ready = None  # what was proven was the run before
        if look.container.restart_count or look.container.status == "restarting":
            look.first_death = now if look.first_death is None else look.first_death
        if not look.container.running:
            look.up_since = look.ready = None
        elif look.up_since is None or look.container.restart_count:
            look.up_since = now - self._seconds_since(look.container.started_at)
            look.probe_at = look.up_since + readiness.first_probe(self.ground.orders.load)

    def _judge(self, look: _Look) -> readiness.Verdict:
        now = self.ground.clock.monotonic()
        return readiness.judge(
            look.container,
            self._expectation(),
            up=now - look.up_since if look.up_since is not None else 0.0,
            looping=now - look.first_death if look.first_death is not None else 0.0,
            oom=self.ground.wakeups.out_of_memory(look.container.id),
        )

    def _is_probed(self, look: _Look) -> bool:
        """Return whether to run this container's healthcheck ourselves."""
        check = look.container.healthcheck
        return (
            look.container.running
            and check is not None
            and not self._expectation().one_shot
            and readiness.worth_probing(check.interval, len(self.ground.busy))
        )

    def _probe(self, look: _Look, began: float) -> readiness.Verdict:
        check = look.container.healthcheck
        assert check is not None
        try:
            with self.ground.probes.slot():
                self.ground.wakeups.check()
                probe = self.ground.engine.probe(look.container.id, check.argv, check.timeout)
        except ContainerGone:
            look.mark = -1  # it ended meanwhile; the next look says how
            return readiness.WAIT
        except EngineUnreachable:
            raise
        except StackError as refused:
            look.probe_output = str(refused)
            look.probe_at = self.ground.clock.monotonic() + check.interval
            return readiness.WAIT
        now = self.ground.clock.monotonic()
        look.probe_output, look.probe_code = probe.output, probe.exit_code
        pause = readiness.pause(
            now - began,
            probe.seconds,
            check.interval,
            starting=self.ground.orders.load,
            crowd=len(self.ground.watched),
        )
        # One that used up its time would do so again: from here on the engine's own probes are enough.
        look.probe_at = now + (check.interval if probe.exit_code is None else pause)
        return readiness.after_probe(look.container, probe)

    def _next_look(self) -> float:
        """Return the time by the monotonic clock at which something may have changed without an event."""
        expected = self._expectation()
        times = [self.ground.clock.monotonic() + LONGEST_SLEEP]
        for look in self.looks.values():
            if not look.container.running or look.ready:
                continue
            if self._is_probed(look):
                times.append(look.probe_at)
            elif look.container.healthcheck is None and look.up_since is not None:
                settled = look.up_since + (max(expected.settle, 1.0) if look.first_death else expected.settle)
                if settled > self.ground.clock.monotonic():
                    times.append(settled + 0.005)
        return min(times)

    def _expectation(self) -> readiness.Expectation:
        settings = self.ground.settings
        delays = [settings.retry_delay * settings.backoff**n for n in range(settings.retries - 1)]
        return readiness.Expectation(
            one_shot=self.ground.project.is_one_shot(self.name),
            may_end=not self.only_watch,
            settle=settings.settle,
            patience=sum(delays),
            retries=settings.retries,
        )

    def _settle(self, state: str) -> None:
        started = [look.container.started_at for look in self.looks.values() if look.container.started_at]
        record = self.record
        record.state = state  # type: ignore[assignment]
        record.ready = self.ground.now()
        record.started_at = max(started, default=None)
        record.ready_after = self._seconds_since(record.started_at)
        if state == "completed":
            finished = [look.container.finished_at for look in self.looks.values() if look.container.finished_at]
            if finished and record.started_at:
                record.ready_after = max(0.0, (max(finished) - record.started_at).total_seconds())
        record.failure = None
        # Of a container that this run did not start, only the state is news.
        self._tell("ready", f"{state} after {record.ready_after:.1f} s" if record.attempts else state)

    def _again_or_raise(self, failure: Failure) -> None:
        """Wait for the next attempt, or raise ServiceFailed for good."""
        settings, record = self.ground.settings, self.record
        if self.only_watch or not failure.retry or record.attempts >= settings.retries:
            record.state = "failed"
            record.started_at = max(
                (look.container.started_at for look in self.looks.values() if look.container.started_at), default=None
            )
            record.failure = replace(
                failure,
                waited=self.ground.now() - (record.began or 0.0),
                tried=explain.tried(settings, record.attempts, failure),
            )
            self._tell("failed", failure.reason)
            raise ServiceFailed(record.failure)
        delay = settings.retry_delay * settings.backoff ** max(0, record.attempts - 1)
        self._tell("retry", f"{failure.reason}; attempt {record.attempts + 1} of {settings.retries} in {delay:g} s")
        self.ground.wakeups.sleep(delay)

    def _with_evidence(self, failure: Failure, look: _Look) -> Failure:
        ground = self.ground
        return explain.with_evidence(
            failure,
            ground.engine,
            look.container,
            ground.settings.log_lines,
            self.last_end.get(look.container.id),
            look.probe_output,
            ground.redactor.text,
        )

    def _timeout(self) -> Failure:
        slow = next(iter(self.looks.values()), None)
        if slow is None:
            return Failure(
                "ready", "timeout", f"not ready after {self.ground.settings.timeout:g} s: it has no container"
            )
        failure = explain.timeout(
            slow.container,
            self.ground.settings,
            one_shot=self._expectation().one_shot,
            probe_code=slow.probe_code,
        )
        return self._with_evidence(failure, slow)

    def _start_failure(self, error: Exception) -> Failure:
        if isinstance(error, EngineUnreachable):
            self._await_engine(self.ground.clock.monotonic() + self.ground.settings.timeout)
            return Failure("start", "engine_gone", "the engine went away during the start", hint=error.hint or "")
        failure = explain.start_failure(self.ground.engine, self.name, error)
        return replace(failure, reason=self.ground.redactor.text(failure.reason))

    def _await_engine(self, deadline: float) -> None:
        self._tell("note", "the engine does not answer; waiting for it")
        while self.ground.clock.monotonic() < deadline:
            if self.ground.engine.answers():
                self.looks = {}
                return
            self.ground.wakeups.sleep(_ENGINE_POLL)
        raise ServiceFailed(
            Failure(
                "ready",
                "engine_gone",
                "the engine does not answer",
                retry=False,
                hint="see `inv engine.check`",
            )
        )

    def _containers(self) -> list[Container]:
        deadline = self.ground.clock.monotonic() + self.ground.settings.timeout
        while True:
            try:
                return self.ground.engine.containers(self.ground.project.name, self.name)
            except EngineUnreachable:
                self._await_engine(deadline)

    def _tell(self, kind: str, text: str) -> None:
        self.ground.emit(Step(self.name, kind, self.ground.redactor.text(text), self.ground.now()))  # type: ignore[arg-type]

    def _seconds_since(self, moment: datetime | None) -> float:
        return max(0.0, (self.ground.clock.now() - moment).total_seconds()) if moment else 0.0
