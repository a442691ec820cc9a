"""What is remembered of one container while it is watched, and what it comes to: ready, wait, or dead."""

from __future__ import annotations

from dataclasses import replace

from stackhand.engine.api.containers import Container
from stackhand.engine.api.sdk import ContainerGone
from stackhand.errors import EngineUnreachable, StackError
from stackhand.kinds.first_start import Stage, may_initialise, stage_of
from stackhand.services.start import readiness
from stackhand.services.start.context import RunContext
from stackhand.services.start.notifier import LONGEST_SLEEP, Started
from stackhand.services.start.record import Failure, ServiceFailed, State

# After so many seconds a container is looked at although no event came, should one have got lost.
_STALE = 10.0
# Seconds in which a first start goes on from one step to the next.
_NEXT_STEP = 0.5
GONE = Failure("ready", "gone", "its container was removed", retry=True)


class ContainerWatch:
    """What is remembered of one container between two looks. Times are of the monotonic clock."""

    def __init__(
        self, context: RunContext, container: Container, expected: readiness.Expectation, *, launched: bool
    ) -> None:
        """`launched`: this run has started it, so its `start` event is to come if it was not heard of yet."""
        self._launched = launched
        self._context = context
        self._shared = context.shared
        self._clock = context.shared.clock
        self._expected = expected
        self.container = container
        self.ready: State | None = None
        self._proven: State | None = None
        self._has_run = False
        self.probe_output = ""
        self.probe_code: int | None = None
        self._version = -1
        self._seen_at = 0.0
        self._up_since: float | None = None
        self._first_death: float | None = None
        self._probe_at = 0.0
        self._may_initialise = may_initialise(context.project.services[container.service])
        self._through_first_start = False
        self.initialising = self._told = self._seen_nothing = False

    @property
    def seconds_to_ready(self) -> float:
        """How long this run of it took until it completed, or has taken until now."""
        started, ended = self.container.started_at, self.container.finished_at
        if self.container.running or not (started and ended):
            return 0.0 if self._up_since is None else self._clock.monotonic() - self._up_since
        event = self._start_event()
        return max(0.0, (ended - (event.at if event else started)).total_seconds())

    def look(self, version: int, watched_since: float) -> readiness.Verdict:
        """Look at it where something may have happened, run its healthcheck where that is due; return the verdict.

        `version` is the notifier's. Raises ServiceFailed when the container is gone.
        """
        now = self._clock.monotonic()
        if version != self._version or now - self._seen_at >= _STALE:
            self._inspect(version)
        verdict = self._judge()
        if self._asks_for_first_start:
            verdict = self._look_at_first_start(verdict, watched_since)
        elif verdict.kind == "wait" and self._proven:
            # Its probe has succeeded since it started; another container of the service may be the slower one.
            verdict = readiness.Verdict("ready", self._proven)
        elif verdict.kind == "wait" and self._is_probed and self._clock.monotonic() >= self._probe_at:
            verdict = self._probe(watched_since)
        if self.container.running and verdict.kind == "ready":
            self._proven = verdict.state
            verdict = verdict if self._up >= self._must_run else readiness.WAIT
        self.ready = verdict.state if verdict.kind == "ready" else None
        return verdict

    def next_look(self) -> float:
        """Return when something may have changed without an event."""
        now = self._clock.monotonic()
        if not self.container.running or self.ready:
            return now + LONGEST_SLEEP
        if not self._proven and (self._is_probed or (self._asks_for_first_start and self._probe_at > now)):
            return self._probe_at
        missing = self._must_run - self._up
        return now + (missing + 0.005 if missing > 0 else LONGEST_SLEEP)

    def _inspect(self, version: int) -> None:
        now, before = self._clock.monotonic(), self.container.started_at
        try:
            self.container = self._shared.engine.inspect(self.container.id)
        except ContainerGone:
            raise ServiceFailed(GONE) from None
        self._version, self._seen_at = version, now
        if self.container.started_at != before:
            self._proven = self._up_since = None  # what was proven was the run before
            self._through_first_start = self._seen_nothing = False
        if (self.container.restart_count or self.container.status == "restarting") and self._first_death is None:
            self._first_death = now
        if not self.container.running:
            self._up_since = self._proven = None
            return
        self._has_run = True
        event = self._start_event()
        if self._up_since is None:
            self._up_since = event.heard if event else now if self._launched else now - self._age()
            self._probe_at = self._up_since + readiness.first_probe(self._context.launcher.load)
        elif event:
            self._up_since = event.heard

    def _start_event(self) -> Started | None:
        """Return the `start` event of this run, None where it was not heard of (yet).

        An engine sets `StartedAt` before it starts the main process, today's up to 0.4 s before, and then tells.
        """
        event, started = self._shared.notifier.started(self.container.id), self.container.started_at
        return event if event and started and event.at >= started else None

    def _age(self) -> float:
        """Return for how many seconds a container has run that somebody else started, by the engine's clock."""
        started = self.container.started_at
        return max(0.0, (self._shared.engine.now() - started).total_seconds()) if started else 0.0

    @property
    def _up(self) -> float:
        """For how many seconds it has run."""
        return 0.0 if self._up_since is None else self._clock.monotonic() - self._up_since

    @property
    def _must_run(self) -> float:
        """For how many seconds it has to run to be ready, at least."""
        return readiness.must_run(
            self.container,
            self._expected,
            looping=self._first_death is not None,
            crashed_after=self._shared.notifier.longest_run(self.container.service),
        )

    def _judge(self) -> readiness.Verdict:
        now, notifier = self._clock.monotonic(), self._shared.notifier
        seen = self._expected.may_end or self._has_run
        return readiness.evaluate(
            self.container,
            replace(self._expected, may_end=seen and not notifier.was_signalled(self.container.id)),
            up=self._up,
            looping=None if self._first_death is None else now - self._first_death,
            crashed_after=notifier.longest_run(self.container.service),
            oom=notifier.out_of_memory(self.container.id),
        )

    @property
    def _is_probed(self) -> bool:
        """Whether to run this container's healthcheck ourselves."""
        check = self.container.healthcheck
        return (
            self.container.running
            and check is not None
            and not self._expected.one_shot
            and readiness.worth_probing(check.every(self._up), len(self._shared.involved.busy))
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
        elif stage == "unknown" and not self._seen_nothing:
            # Between two steps of a first start there is no server for a moment.
            self._seen_nothing, self._probe_at = True, self._clock.monotonic() + _NEXT_STEP
            return readiness.WAIT
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
            self._probe_at = self._clock.monotonic() + check.every(self._up)
            return self._judge()
        now = self._clock.monotonic()
        self.probe_output, self.probe_code = probe.output, probe.exit_code
        pause = readiness.pause(
            now - watched_since,
            probe.seconds,
            check.every(self._up),
            starting=self._context.launcher.load,
            crowd=len(self._shared.involved.watched),
        )
        # One that used up its time would do so again: from here on the engine's own probes are enough.
        self._probe_at = now + (check.every(self._up) if probe.exit_code is None else pause)
        return readiness.after_probe(self.container, probe)
