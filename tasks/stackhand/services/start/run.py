"""The start: read, plan, prepare, start in graph order, look again.

`Starter.run` starts many services at once (`services.start`); `Starter.up` starts one whose dependencies have been
seen to (`up.<service>`, where Invoke's own graph did that).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import msgspec

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.graph import schedule
from stackhand.model import Plan
from stackhand.output.redact import Redactor
from stackhand.services.changes.builds import Builds
from stackhand.services.start import half_recreated as leftovers
from stackhand.services.start import prepare
from stackhand.services.start.bring_up import RunContext, ServiceRun
from stackhand.services.start.graph import Node, fell, impossible, nodes, recreated, with_containers
from stackhand.services.start.launch import Launcher
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.observe import Survey
from stackhand.services.start.plan import Facts, plan_start, restarts, to_restart
from stackhand.services.start.progress import RunRecords
from stackhand.services.start.record import Failure, Record, ServiceFailed, StartReport, Step
from stackhand.services.start.remember import StartHistory
from stackhand.services.start.session import Session
from stackhand.services.start.slots import TimedSemaphore
from stackhand.settings import Start
from stackhand.state.folder import StateFolder

# A probe is an exec, which costs the engine some fifty milliseconds of a core: more of them at once get slower,
# and take from the starts what these need (bench/README.md has the figures).
_PROBES_AT_ONCE = os.cpu_count() or 2
# Beginning a probe is what costs; one that takes longer than this is only waiting.
_PROBE_COSTS = 0.5


class _Part:
    """One service that tasks bring up, each when it needs it."""

    def __init__(self) -> None:
        self.starting = threading.Lock()
        self.becoming_ready = threading.Lock()
        self.bring: ServiceRun | None = None
        self.facts = Facts({})
        self.failure: Failure | None = None


class Starter:
    """Starts services of one project and remembers what became of each."""

    def __init__(
        self,
        read_compose: Callable[[], Compose],
        engine: Engine,
        read_project: Callable[[], Project],
        read_hashes: Callable[[], dict[str, str]],
        settings: Start,
        state: StateFolder,
        redactor: Redactor,
    ) -> None:
        self._memory = StartHistory(state)
        self._settings = settings
        self._survey = Survey(engine, read_project, read_hashes, state)
        self._lock = threading.Lock()
        self._parts: dict[str, _Part] = {}
        self._created: set[str] = set()
        self._recreated: set[str] = set()
        self._subscribers: list[Callable[[Step], None]] = []
        self._rebuild = False
        self.ledger = RunRecords(self._tell)
        wakeups = Notifier()
        self._ground = RunContext(
            read_project=read_project,
            engine=engine,
            settings=settings,
            redactor=redactor,
            wakeups=wakeups,
            orders=Launcher(read_project, read_compose, engine, wakeups),
            probes=TimedSemaphore(_PROBES_AT_ONCE, _PROBE_COSTS),
            emit=self._emit,
            began=time.monotonic(),
        )
        self._session = Session(engine, state, wakeups)
        self.builds = Builds(engine, state)
        self._preparation = prepare.Preparation(
            read_compose, self.builds, wakeups, self._tell, lambda names: leftovers.clear(engine, read_project(), names)
        )

    @property
    def project(self) -> Project:
        """The project that is started."""
        return self._ground.project

    def configure(self, *, timeout: float | None = None, retries: int | None = None, dev: bool = False) -> None:
        """Override settings by what the command line says."""
        changes: dict[str, float] = {}
        if timeout:
            changes["timeout"] = timeout
        if retries:
            changes["retries"] = retries
        if dev:
            changes["settle"] = 0.0
        # From the project's own settings: what one task's flags say is not for the next.
        self._ground.settings = msgspec.structs.replace(self._settings, **changes)
        self._rebuild = dev

    def subscribe(self, subscriber: Callable[[Step], None]) -> None:
        """Have every step told to a display."""
        self._subscribers.append(subscriber)

    @property
    def watched(self) -> bool:
        """Whether a display follows this starter."""
        return bool(self._subscribers)

    def read(self, only: str | None = None) -> Facts:
        """Return what the project is like now, or one service of it."""
        return self._survey.read(only)

    def plan(self, names: Sequence[str], named: Collection[str] = ()) -> Plan:
        """Return what a start of these services and all that they depend on would do."""
        facts = self.read()
        wanted = self.project.closure(names)
        return plan_start(self.project, wanted, facts, named=named, rebuild=self._rebuild)

    def run(self, names: Sequence[str], named: Collection[str] = ()) -> StartReport:
        """Start services and all that they depend on; return when each is ready, has failed or was skipped.

        Raises LockHeld, MissingFile, and whatever makes the whole start impossible.
        """
        facts = self.read()
        wanted = self.project.closure(names)
        plan = plan_start(self.project, wanted, facts, named=named, rebuild=self._rebuild)
        optional = set(wanted) - set(self.project.closure(names, required_only=True))
        return self.execute(wanted, plan, facts, optional=optional)

    def revive(self, name: str) -> StartReport:
        """Start one service and what it depends on as they were made; a one-shot runs again.

        What has changed since stays as it is: renewing it is not a fix's to decide.
        """
        facts = replace(self.read(), hashes={}, images=None)
        wanted = self.project.closure([name])
        plan = plan_start(self.project, wanted, facts, named=[name])
        optional = set(wanted) - set(self.project.closure([name], required_only=True))
        with self._preparation.keeping():
            return self.execute(wanted, plan, facts, optional=optional)

    def execute(
        self,
        wanted: Collection[str],
        plan: Plan,
        facts: Facts,
        *,
        optional: Collection[str] = (),
        failures: Mapping[str, Failure] | None = None,
    ) -> StartReport:
        """Carry out a plan that was made from these facts, and look again; nobody insists on what is `optional`.

        `failures` are those of images that were got before (`get_images`); the plan's images are got where there are
        none.
        """
        self.ledger.begin(wanted, plan, facts.containers)
        self.ledger.excuse(optional)
        if plan:
            prepare.check_files(self.project, {action.service for action in plan.actions})
            with self.changing():
                self._carry_out(wanted, plan, facts.containers, failures)
                self._remember(facts, self._look_again(wanted))
        return self.report(wanted)

    def get_images(self, plan: Plan) -> dict[str, Failure]:
        """Pull and build what a plan says. Returns the services for which that failed, and why."""
        return self._preparation.images(self.project, plan)

    def changing(self) -> AbstractContextManager[None]:
        """Hold the project's lock and listen to the engine. Raises LockHeld."""
        return self._session.changing(self.project.name)

    def up(self, name: str, *, until: Literal["start", "ready"] = "ready") -> Record:
        """Bring one service up whose dependencies have been seen to. Raises ServiceFailed.

        What this run has brought up before is not looked at again.
        """
        with self._lock:
            part = self._parts.setdefault(name, _Part())
        # Several tasks can need one service, some only started, some ready: the first brings it there for all.
        with part.starting:
            if part.failure:
                raise ServiceFailed(part.failure)
            if part.bring is None:
                try:
                    part.facts = self.read(name)
                    part.bring = self._start_alone(name, part.facts)
                except ServiceFailed as failed:
                    part.failure = failed.failure
                    raise
        record = self.records[name]
        if until == "start":
            if record.state in ("waiting", "starting"):
                record.state = "running"
            return record
        with part.becoming_ready:
            if record.ready is None:
                with self.changing():
                    part.bring.ready()
                    self._remember(part.facts, self._survey.containers(self.project))
        return record

    def up_if_possible(self, name: str, *, until: Literal["start", "ready"]) -> Failure | None:
        """Bring a service up that nobody insists on. Returns why it is not up, None when it is."""
        for entry in self.project.services[name].depends_on:
            record = self.records.get(entry.service)
            if entry.required and record and record.state in ("failed", "skipped"):
                self.records.setdefault(name, Record(name))
                self.ledger.skip(name, entry.service)
                self.ledger.excuse([name])
                return self.records[name].failure
        try:
            self.up(name, until=until)
        except ServiceFailed as failed:
            self.ledger.excuse([name])
            return failed.failure
        return None

    def _start_alone(self, name: str, facts: Facts) -> ServiceRun:
        plan = plan_start(self.project, [name], facts, named=[name], rebuild=self._rebuild)
        self.ledger.begin([name], plan, facts.containers)
        follows = bool(facts.containers.get(name)) and any(
            entry.restart and entry.service in self._recreated for entry in self.project.services[name].depends_on
        )
        bring = ServiceRun(self._ground, self.ledger.reopen(name) if follows else self.records[name])
        if plan or follows:
            self._ground.busy.add(name)
            prepare.check_files(self.project, [name])
            with self.changing():
                failures = self._preparation.run(self.project, plan)
                self._created |= {action.service for action in plan.actions if action.verb in prepare.MAKES}
                if any(action.verb == "recreate" for action in plan.actions):
                    now = self._survey.containers(self.project, name)
                    self._recreated |= recreated([name], facts.containers, now)
                self._start(bring, failures.get(name), restart=follows)
        return bring

    def wait(self, names: Sequence[str]) -> StartReport:
        """Wait until services are ready, without starting anything."""
        facts = self.read()
        plan = plan_start(self.project, names, replace(facts, hashes={}, images=None))
        self.ledger.begin(names, plan, facts.containers)
        busy = {action.service: () for action in plan.actions if self.project.services[action.service].replicas}
        with self._session.listening(self.project.name):
            schedule.run(busy, lambda name: ServiceRun(self._ground, self.records[name], only_watch=True).ready())
        return self.report(names)

    @property
    def records(self) -> dict[str, Record]:
        """What is known of each service so far."""
        return self.ledger.records

    def report(self, names: Collection[str] = ()) -> StartReport:
        """Return what became of these services, or of all that this run has touched."""
        return self.ledger.report(self.project, self._ground.now(), names)

    def cancel(self) -> None:
        """Make every thread of this run leave at its next look."""
        self._session.cancel()

    def _remember(self, facts: Facts, now: Mapping[str, Sequence[Container]]) -> None:
        busy = self._ground.busy
        self._memory.keep(self.project, facts, now, self.records, self._created)
        # The list of containers lacks the moment of start, which counts for those that this run has started.
        touched = {name for name in busy if any(each.started_at is None for each in now.get(name, ()))}
        if touched and facts.stamps:
            now = {**now, **{name: self._ground.engine.containers(self.project.name, name) for name in touched}}
        self._memory.keep_files(self.project, facts, [each for some in now.values() for each in some])

    def _carry_out(
        self,
        wanted: Collection[str],
        plan: Plan,
        before: Mapping[str, Sequence[Container]],
        images: Mapping[str, Failure] | None = None,
    ) -> None:
        failures = self._preparation.run(self.project, plan, images)
        made = {action.service for action in plan.actions if action.verb in prepare.MAKES}
        self._created |= made
        now = self._survey.containers(self.project) if made else before
        anew = recreated(made, before, now)
        more, follow = self._followers(wanted, anew, before, now) if made else (set(), set())
        follow |= to_restart(plan, anew)
        busy = {action.service for action in plan.actions} | more | follow
        self._ground.busy |= busy
        brings = {}
        for name in busy:
            brings[name] = ServiceRun(self._ground, self.ledger.reopen(name), now.get(name, ()))

        for name in busy:
            missing = [entry.service for entry in self.project.services[name].depends_on if entry.service in busy]
            if missing and name not in failures:
                self._tell(name, "wait", f"waiting for {', '.join(missing)}")

        def work(node: Node) -> None:
            bring = brings[node.service]
            if node.stage == "ready":
                bring.ready()
            else:
                self._start(bring, failures.get(node.service), restart=node.service in follow)

        hard, weak = nodes(self.project, busy)
        result = schedule.run(hard, work, after=weak)
        for error in result.failed.values():
            if not isinstance(error, ServiceFailed):
                raise error
        for node, cause in result.skipped.items():
            self.ledger.skip(node.service, cause.service)

    def _followers(
        self,
        wanted: Collection[str],
        anew: Collection[str],
        before: Mapping[str, Sequence[Container]],
        now: Mapping[str, Sequence[Container]],
    ) -> tuple[set[str], set[str]]:
        """Return what else has to start after containers were made, and what has to restart.

        Compose stops those that ask to be restarted with a service that it recreates; others still run.
        """
        stopped = {name for name in wanted if _all_run(before.get(name, ())) and not _all_run(now.get(name, ()))}
        follow = {action.service for action in restarts(self.project, wanted, anew).actions}
        return stopped, follow - stopped

    def _start(self, bring: ServiceRun, failure: Failure | None, *, restart: bool = False) -> None:
        failure = failure or impossible(self.project, bring.name, self.records)
        if failure:
            mask = self._ground.redactor.text
            lines = tuple(mask(line) for line in failure.log_tail)
            failure = replace(failure, reason=mask(failure.reason), log_tail=lines)
            self.ledger.fail(bring.name, failure)
            raise ServiceFailed(failure)
        bring.start(restart=restart)

    def _look_again(self, wanted: Collection[str]) -> Mapping[str, Sequence[Container]]:
        """See whether all that was ready still is; what fell is started once more, then given up.

        Returns the containers as they were at the last look.
        """
        for last in (False, True):
            now = self._survey.containers(self.project, brief=True)
            fallen = [
                name for name in with_containers(self.project, wanted) if fell(self.records[name], now.get(name, ()))
            ]
            if not fallen:
                break
            for name in fallen:
                self.ledger.fail(name, Failure("ready", "fell", "it was ready, and ended again", retry=False))
            if last:
                break
            lost = [name for name in wanted if self.records[name].state in ("failed", "skipped")]
            own = {name for name in lost if name not in fallen and self.records[name].state == "failed"}
            retry = [name for name in lost if name not in own]
            self._carry_out(wanted, plan_start(self.project, retry, Facts(now)), now)
        return now

    def _tell(self, service: str, kind: str, text: str) -> None:
        redacted = self._ground.redactor.text(text)
        self._emit(Step(service, kind, redacted, self._ground.now()))  # type: ignore[arg-type]

    def _emit(self, step: Step) -> None:
        for subscriber in self._subscribers:
            subscriber(step)


def _all_run(containers: Sequence[Container]) -> bool:
    return bool(containers) and all(container.running for container in containers)
