"""The start: read, plan, prepare, start in graph order, look again.

`Starter.run` starts many services at once (`services.start`); `Starter.up` starts one whose dependencies have been
seen to (`up.<service>`, where Invoke's own graph did that).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from stackhand.engine.client import Engine
from stackhand.engine.compose import Compose
from stackhand.engine.facts import Container
from stackhand.engine.project import Project
from stackhand.graph import schedule
from stackhand.model import Plan
from stackhand.output.redact import Redactor
from stackhand.services import prepare
from stackhand.services.bringup import BringUp, Ground
from stackhand.services.ledger import Ledger
from stackhand.services.orders import Orders
from stackhand.services.plan import Facts, fingerprint, plan_start, restarts
from stackhand.services.records import Failure, Record, ServiceFailed, StartReport, Step
from stackhand.services.session import Session
from stackhand.services.slots import Slots
from stackhand.services.survey import Survey
from stackhand.services.wakeups import Wakeups
from stackhand.settings import Start
from stackhand.state import StateFolder

if TYPE_CHECKING:
    from stackhand.context import Stack

# A probe is an exec, which costs the engine some fifty milliseconds of a core: more of them at once get slower,
# and take from the starts what these need (bench/README.md has the figures).
_PROBES_AT_ONCE = os.cpu_count() or 2
# Beginning a probe is what costs; one that takes longer than this is only waiting.
_PROBE_COSTS = 0.5


@dataclass(frozen=True)
class _Node:
    """One half of bringing a service up: its containers run (`start`), it is ready (`ready`)."""

    service: str
    stage: Literal["start", "ready"]

    def __str__(self) -> str:
        return f"{self.service} {self.stage}"


class _Part:
    """One service that tasks bring up, each when it needs it."""

    def __init__(self) -> None:
        self.starting = threading.Lock()
        self.becoming_ready = threading.Lock()
        self.bring: BringUp | None = None
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
        self._state = state
        self._settings = settings
        self._survey = Survey(engine, read_project, read_hashes, state)
        self._lock = threading.Lock()
        self._parts: dict[str, _Part] = {}
        self._recreated: set[str] = set()
        self._subscribers: list[Callable[[Step], None]] = []
        self._rebuild = False
        self.ledger = Ledger(self._tell)
        self.last_look: Sequence[Container] = ()
        wakeups = Wakeups()
        self._ground = Ground(
            read_project=read_project,
            engine=engine,
            settings=settings,
            redactor=redactor,
            wakeups=wakeups,
            orders=Orders(read_project, read_compose, engine, wakeups),
            probes=Slots(_PROBES_AT_ONCE, _PROBE_COSTS),
            emit=self._emit,
            began=time.monotonic(),
        )
        self._session = Session(engine, state, wakeups)
        self._preparation = prepare.Preparation(read_compose, wakeups, self._tell)

    @classmethod
    def for_stack(cls, stack: Stack) -> Starter:
        """Return the starter of a run."""
        return cls(
            lambda: stack.compose,
            stack.engine,
            lambda: stack.project,
            stack.hashes,
            stack.settings.start,
            stack.state,
            stack.redactor,
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

    def plan(self, names: Sequence[str], named: Collection[str] = ()) -> Plan:
        """Return what a start of these services and all that they depend on would do."""
        facts = self._read()
        wanted = self.project.closure(names)
        return plan_start(self.project, wanted, facts, named=named, rebuild=self._rebuild)

    def run(self, names: Sequence[str], named: Collection[str] = ()) -> StartReport:
        """Start services and all that they depend on; return when each is ready, has failed or was skipped.

        Raises LockHeld, MissingFile, and whatever makes the whole start impossible.
        """
        facts = self._read()
        wanted = self.project.closure(names)
        plan = plan_start(self.project, wanted, facts, named=named, rebuild=self._rebuild)
        self.ledger.begin(wanted, plan, facts.containers)
        self.ledger.excuse(set(wanted) - set(self.project.closure(names, required_only=True)))
        if plan:
            prepare.check_files(self.project, {action.service for action in plan.actions})
            with self._session.changing(self.project.name):
                self._carry_out(wanted, plan, facts.containers)
                self._remember(facts, self._look_again(wanted))
        return self.report(wanted)

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
                    part.facts = self._read(name)
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
                with self._session.changing(self.project.name):
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

    def _start_alone(self, name: str, facts: Facts) -> BringUp:
        plan = plan_start(self.project, [name], facts, named=[name], rebuild=self._rebuild)
        self.ledger.begin([name], plan, facts.containers)
        follows = bool(facts.containers.get(name)) and any(
            entry.restart and entry.service in self._recreated for entry in self.project.services[name].depends_on
        )
        bring = BringUp(self._ground, self.ledger.reopen(name) if follows else self.records[name])
        if plan or follows:
            self._ground.busy.add(name)
            prepare.check_files(self.project, [name])
            with self._session.changing(self.project.name):
                failures = self._preparation.run(self.project, plan)
                if any(action.verb == "recreate" for action in plan.actions):
                    now = self._survey.containers(self.project, name)
                    self._recreated |= _recreated([name], facts.containers, now)
                self._start(bring, failures.get(name), restart=follows)
        return bring

    def wait(self, names: Sequence[str]) -> StartReport:
        """Wait until services are ready, without starting anything."""
        facts = self._read()
        plan = plan_start(self.project, names, replace(facts, hashes={}, images=None))
        self.ledger.begin(names, plan, facts.containers)
        busy = {action.service: () for action in plan.actions if self.project.services[action.service].replicas}
        with self._session.listening(self.project.name):
            schedule.run(busy, lambda name: BringUp(self._ground, self.records[name], only_watch=True).ready())
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
        """Remember what nothing tells later: which containers ended by themselves, and what they were made from."""
        containers = [each for some in now.values() for each in some]
        services = self.project.services
        with self._lock:
            known, done = self._state.made, self._state.completed
            made = {each.id: known[each.id] for each in containers if each.id in known}
            for each in containers:
                wanted = facts.hashes.get(each.service)
                seen_to = each.service in self._ground.busy and self.records[each.service].failure is None
                if seen_to and wanted and each.config_hash != wanted:
                    made[each.id] = fingerprint(services[each.service], wanted)
            ended = {name for name, record in self.records.items() if record.state == "completed"}
            runs = [each.run for each in containers if each.stopped and (each.service in ended or each.run in done)]
            if made != known:
                self._state.remember("made", made)
            if set(runs) != done:
                self._state.remember("completed", sorted(runs))

    def _read(self, only: str | None = None) -> Facts:
        return self._survey.read(only)

    def _carry_out(self, wanted: Collection[str], plan: Plan, before: Mapping[str, Sequence[Container]]) -> None:
        failures = self._preparation.run(self.project, plan)
        made = {action.service for action in plan.actions if action.verb in prepare.MAKES}
        now = self._survey.containers(self.project) if made else before
        more, follow = self._followers(wanted, made, before, now) if made else (set(), set())
        busy = {action.service for action in plan.actions} | more | follow
        self._ground.busy |= busy
        brings = {}
        for name in busy:
            brings[name] = BringUp(self._ground, self.ledger.reopen(name), now.get(name, ()))

        for name in busy:
            missing = [entry.service for entry in self.project.services[name].depends_on if entry.service in busy]
            if missing and name not in failures:
                self._tell(name, "wait", f"waiting for {', '.join(missing)}")

        def work(node: _Node) -> None:
            bring = brings[node.service]
            if node.stage == "ready":
                bring.ready()
            else:
                self._start(bring, failures.get(node.service), restart=node.service in follow)

        hard, weak = _nodes(self.project, busy)
        result = schedule.run(hard, work, after=weak)
        for error in result.failed.values():
            if not isinstance(error, ServiceFailed):
                raise error
        for node, cause in result.skipped.items():
            self.ledger.skip(node.service, cause.service)

    def _followers(
        self,
        wanted: Collection[str],
        made: Collection[str],
        before: Mapping[str, Sequence[Container]],
        now: Mapping[str, Sequence[Container]],
    ) -> tuple[set[str], set[str]]:
        """Return what else has to start after containers were made, and what has to restart.

        Compose stops those that ask to be restarted with a service that it recreates; others still run.
        """
        stopped = {a.service for a in plan_start(self.project, wanted, Facts(now)).actions if a.verb == "start"}
        recreated = _recreated(made, before, now)
        follow = {action.service for action in restarts(self.project, wanted, recreated).actions}
        return stopped, follow - stopped

    def _start(self, bring: BringUp, failure: Failure | None, *, restart: bool = False) -> None:
        failure = failure or self._impossible(bring.name)
        if failure:
            mask = self._ground.redactor.text
            lines = tuple(mask(line) for line in failure.log_tail)
            failure = replace(failure, reason=mask(failure.reason), log_tail=lines)
            self.ledger.fail(bring.name, failure)
            raise ServiceFailed(failure)
        bring.start(restart=restart)

    def _impossible(self, name: str) -> Failure | None:
        """Return why a service can never start: it waits for the health of one that has no healthcheck."""
        for dependency in self.project.services[name].depends_on:
            record = self.records.get(dependency.service)
            if not self._with_containers([dependency.service]):
                continue
            if dependency.condition == "service_healthy" and record and record.state in ("running", "completed"):
                return Failure(
                    "dependency",
                    "no_healthcheck",
                    f"it waits for {dependency.service} to be healthy, which has no healthcheck",
                    retry=False,
                    hint=f"give {dependency.service} a healthcheck, or use condition: service_started",
                )
        return None

    def _with_containers(self, names: Collection[str]) -> list[str]:
        """Return those of the services that are to have containers at all (`replicas: 0` asks for none)."""
        return [name for name in names if name in self.project.services and self.project.services[name].replicas]

    def _look_again(self, wanted: Collection[str]) -> Mapping[str, Sequence[Container]]:
        """See whether all that was ready still is; what fell is started once more, then given up.

        Returns the containers as they were at the last look.
        """
        for last in (False, True):
            now = self._survey.containers(self.project, brief=True)
            fallen = [name for name in self._with_containers(wanted) if _fell(self.records[name], now.get(name, ()))]
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
        self.last_look = [each for some in now.values() for each in some]
        return now

    def _tell(self, service: str, kind: str, text: str) -> None:
        redacted = self._ground.redactor.text(text)
        self._emit(Step(service, kind, redacted, self._ground.now()))  # type: ignore[arg-type]

    def _emit(self, step: Step) -> None:
        for subscriber in self._subscribers:
            subscriber(step)


def _nodes(project: Project, busy: Collection[str]) -> tuple[dict[_Node, list[_Node]], dict[_Node, list[_Node]]]:
    """Return the graph of a start: what each node needs, and what it only waits for (`required: false`)."""
    hard: dict[_Node, list[_Node]] = {}
    weak: dict[_Node, list[_Node]] = {}
    for name in project.services:
        if name not in busy:
            continue
        start = _Node(name, "start")
        hard[start], weak[start] = [], []
        hard[_Node(name, "ready")] = [start]
        for dependency in project.services[name].depends_on:
            stage: Literal["start", "ready"] = "start" if dependency.condition == "service_started" else "ready"
            (hard if dependency.required else weak)[start].append(_Node(dependency.service, stage))
    return hard, weak


def _fell(record: Record, containers: Sequence[Container]) -> bool:
    if record.state in ("healthy", "running"):
        return not containers or not all(container.running for container in containers)
    return False


def _recreated(
    names: Collection[str], before: Mapping[str, Sequence[Container]], now: Mapping[str, Sequence[Container]]
) -> set[str]:
    """Return which of these services have lost a container that they had before."""
    return {
        name for name in names if {each.id for each in before.get(name, ())} - {each.id for each in now.get(name, ())}
    }
