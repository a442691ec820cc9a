"""Has services started: by the engine or by Compose, many at a time, attempt by attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NoReturn

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project, Service
from stackhand.errors import CommandFailed, EngineUnreachable, Interrupted, StackError
from stackhand.graph import schedule
from stackhand.graph.clock import Clock
from stackhand.services.start import failures as explain
from stackhand.services.start.coalesce import Coalescer, retry_one_by_one
from stackhand.services.start.context import RunContext
from stackhand.services.start.decide import unstartable
from stackhand.services.start.facts import all_run
from stackhand.services.start.limits import StartLimiter
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.plan import needs
from stackhand.services.start.readiness import crashed_at_start, worth_probing
from stackhand.services.start.record import Failure, Record, ServiceFailed
from stackhand.services.start.remember import StartHistory
from stackhand.services.start.watch import ServiceWatch, await_engine, containers_of


class Launcher:
    """Has containers of one project started: by the engine where a start is nothing more, else by Compose.

    A `docker compose up` costs 0.1 to 0.2 s before it does anything and starts its containers one after another; an
    engine's start costs 0.2 s in all. What goes through Compose is therefore joined into as few calls as possible.
    """

    def __init__(
        self,
        project: Project,
        compose: Compose,
        engine: Engine,
        notifier: Notifier,
        limiter: StartLimiter,
        history: StartHistory,
        clock: Clock,
    ) -> None:
        self._project = project
        self._compose = compose
        self._engine = engine
        self._notifier = notifier
        self._limiter = limiter
        self._history = history
        self._heights = schedule.heights(needs(project, project.services))
        start = retry_one_by_one(compose.start, self._times_started)
        self._starts = Coalescer(start, on_done=notifier.notify, clock=clock)
        self._restarts = Coalescer(retry_one_by_one(compose.restart), on_done=notifier.notify, clock=clock)

    @property
    def load(self) -> int:
        """How many starts are under way or waiting."""
        return self._limiter.load + self._starts.load + self._restarts.load

    def start(self, service: Service, containers: Sequence[Container]) -> None:
        """Have the containers of a service running; return as soon as they are.

        Raises the error of Compose or of the engine: CommandFailed, StackError.
        """
        idle = [container for container in containers if not container.running]
        if service.raw.get("post_start"):
            kept = [container for container in containers if container.running]
            self._with_hooks(lambda: self._compose.start([service.name]), service, kept)
            return
        if not idle or not self._project.starts_without_compose(service.name):
            self._through(self._starts, service, len(idle))
            return
        for container in idle:
            check = container.healthcheck
            contended = check is not None and not worth_probing(check.interval, self._limiter.load)
            # The more services wait for it, one after another, the sooner.
            with self._limiter.slot(self._heights[service.name], contended=contended):
                self._notifier.check()
                self._engine.start(container.id)

    def restart(self, service: Service, containers: Sequence[Container]) -> None:
        """Stop and start the containers of a service."""
        if service.raw.get("post_start"):
            self._with_hooks(lambda: self._compose.restart([service.name]), service)
            return
        self._through(self._restarts, service, len(containers))

    def _with_hooks(self, launch: Callable[[], object], service: Service, kept: Sequence[Container] = ()) -> None:
        """Start a service with its `post_start` hooks, in a call of its own, which is to fail for no other service.

        A hook runs only when its container starts. So where one fails, what was started is stopped again (not what was
        `kept` running): the next attempt, or the next run, would take it for ready. Where this run ends before its
        hooks do, the next one restarts it.
        """
        self._notifier.check()
        self._history.hooks_begin(service.name, self._engine.now())
        try:
            launch()
        except CommandFailed:
            untouched = {container.id for container in kept}
            with contextlib.suppress(StackError):  # the reason matters more
                for container in self._engine.containers(self._project.name, service.name):
                    if container.running and container.id not in untouched:
                        self._engine.stop(container.id)
            raise
        self._history.hooks_end(service.name)

    def _through(self, coalescer: Coalescer[str], service: Service, wanted: int) -> None:
        seen = self._notifier.starts(service.name)
        (ticket,) = coalescer.submit(service.name)

        def started() -> bool:
            # Compose returns later than the containers run.
            return wanted > 0 and self._notifier.starts(service.name) >= seen + wanted

        self._notifier.wait_until(lambda: ticket.done.is_set() or started())
        if ticket.done.is_set() and ticket.error:
            raise ticket.error

    def _times_started(self, name: str) -> int:
        """Return how often all containers of a service were seen to start."""
        return self._notifier.starts(name) // max(1, self._project.services[name].replicas)


@dataclass
class ServiceStart:
    """One service on its way to ready, attempt by attempt. Its record is kept up to date for displays and the report.

    `containers` are those that were just seen, which saves the first look. With a `failure`, it can't be started for a
    reason that is known already. With `only_watch` nothing is ever started: a failure is final, and a container that is
    not there yet is waited for.
    """

    context: RunContext
    record: Record
    containers: Sequence[Container] = ()
    failure: Failure | None = None
    only_watch: bool = False
    engine_losses: int = 0
    # By container: when its run before this one ended. By the engine's clock, as its log lines are.
    last_end: dict[str, datetime | None] = field(default_factory=dict)
    # The containers that were just started.
    running: Sequence[Container] = ()

    def start(self, *, restart: bool = False) -> None:
        """Have the service's containers running. Raises ServiceFailed when they can't be started."""
        record, shared, project = self.record, self.context.shared, self.context.project
        failure = self.failure or unstartable(project, record.name, shared.records)
        if failure:
            raise ServiceFailed(shared.records.fail(record.name, failure))
        record.began = shared.now() if record.began is None else record.began
        if project.services[record.name].provider:
            # It was asked when the containers were made, which was when it had said that it is ready.
            record.attempts, record.started = 1, shared.now()
            return
        containers, self.containers = self.containers or self._look(), ()
        record.state = "starting"
        while restart or not all_run(containers):
            record.attempts += 1
            record.state = "starting"
            shared.tell(record.name, "start", "restarting" if restart else "starting")
            self.last_end = {container.id: container.finished_at for container in containers}
            self._remember_crashes(containers)
            launch = self.context.launcher.restart if restart else self.context.launcher.start
            try:
                launch(project.services[record.name], containers)
                break
            except Interrupted:
                raise
            except StackError as error:
                failure = self._start_failure(error)
                if failure.kind == "engine_gone" and self._engine_lost():
                    record.attempts -= 1  # an attempt that was lost to the engine does not count
                else:
                    self._try_again(failure)
            containers = self._look()
            if all_run(containers):
                record.attempts = max(1, record.attempts)  # the engine had started it before it went away
        record.started = shared.now()
        self.running = containers

    def ready(self) -> None:
        """Wait until every container of the service is ready. Raises ServiceFailed when that won't happen."""
        record, shared = self.record, self.context.shared
        record.began = shared.now() if record.began is None else record.began
        record.state = "starting" if record.state == "waiting" else record.state
        if self.context.project.services[record.name].provider:
            record.state, record.ready = "running", shared.now()
            shared.tell(record.name, "ready", "running, says its provider")
            return
        self.containers = ()  # by the time that one of them fails they are long out of date
        while True:
            known, self.running = self.running, ()
            watch = ServiceWatch(self.context, record.name, self.last_end, known, may_start=not self.only_watch)
            try:
                ready = watch.until_ready()
            except ServiceFailed as failed:
                record.started_at = watch.started_at
                self._try_again(failed.failure)
                self.start()
            else:
                break
        record.state, record.started_at, record.ready_after = ready.state, ready.started_at, ready.after
        record.crashes = ready.crashes
        record.ready, record.failure = shared.now(), None
        # Of a container that this run did not start, only the state is news.
        after = f"{ready.state} after {ready.after:.1f} s" if record.attempts else ready.state
        shared.tell(record.name, "ready", after)

    def _try_again(self, failure: Failure) -> None:
        """Wait for the next attempt, or raise ServiceFailed for good."""
        settings, record, shared = self.context.settings, self.record, self.context.shared
        if self.only_watch or not failure.retry or record.attempts >= settings.retries:
            self._give_up(failure)
        delay = settings.retry_delay * settings.backoff ** max(0, record.attempts - 1)
        then = f"attempt {record.attempts + 1} of {settings.retries} in {delay:g} s"
        shared.tell(record.name, "retry", f"{failure.reason}; {then}")
        shared.notifier.sleep(delay)

    def _give_up(self, failure: Failure) -> NoReturn:
        """Record that the service has failed for good, and raise ServiceFailed."""
        record, shared = self.record, self.context.shared
        waited = shared.now() - (record.began or 0.0)
        tried = explain.tried(self.context.settings, record.attempts, failure)
        raise ServiceFailed(shared.records.fail(record.name, replace(failure, waited=waited, tried=tried)))

    def _remember_crashes(self, containers: Sequence[Container]) -> None:
        """Have what crashed in the run before, when nobody listened, run longer than it did then."""
        shared = self.context.shared
        for container in containers:
            seconds = crashed_at_start(container)
            with contextlib.suppress(StackError):  # a proxy may refuse to tell
                if seconds is not None and shared.engine.was_signalled(container) is False:
                    shared.notifier.remember_crash(self.record.name, seconds)

    def _look(self) -> list[Container]:
        """Return the service's containers before a start. Raises ServiceFailed when the engine stays away."""
        while True:
            try:
                return containers_of(self.context, self.record.name)
            except ServiceFailed as gone:
                if not self._engine_lost():
                    self._give_up(gone.failure)

    def _engine_lost(self) -> bool:
        """Count that the engine went away during a start. Returns whether to wait for it and go on."""
        self.engine_losses += 1
        return self.engine_losses <= self.context.settings.retries

    def _start_failure(self, error: StackError) -> Failure:
        shared, name = self.context.shared, self.record.name
        if isinstance(error, EngineUnreachable):
            try:
                await_engine(self.context, name, shared.clock.monotonic() + self.context.settings.timeout)
            except ServiceFailed as gone:
                return gone.failure
            return Failure("start", "engine_gone", "the engine went away during the start", hint=error.hint or "")
        return explain.start_failure(shared.engine, name, error, shared.redactor.text)
