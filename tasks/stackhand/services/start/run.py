"""The start: read, plan, prepare, start in graph order, look again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.loader import ChosenProject
from stackhand.engine.compose.project import Project
from stackhand.graph import clock as clocks
from stackhand.graph import schedule
from stackhand.graph.clock import Clock
from stackhand.graph.slots import EXEC_COSTS, EXECS_AT_ONCE, TimedSemaphore
from stackhand.output.redact import Redactor
from stackhand.services.changes.builds import Builds
from stackhand.services.origin import Takeover
from stackhand.services.start import failures as explain
from stackhand.services.start import sharing
from stackhand.services.start.context import RunContext, Shared
from stackhand.services.start.decide import plan_alone, plan_start, plan_with_sharers
from stackhand.services.start.decide_again import crashed, has_done_its_work, plan_retry, replan
from stackhand.services.start.facts import (
    NOT_PROVIDED,
    Containers,
    Facts,
    all_new,
    flat,
    recreated,
    with_network_users,
)
from stackhand.services.start.launch import Launcher, ServiceStart
from stackhand.services.start.limits import StartLimiter, Turn
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.observe import collect_facts, containers_of
from stackhand.services.start.plan import LAUNCHES, MAKES, Node, StartPlan, unable
from stackhand.services.start.prepare import Preparation, check_files
from stackhand.services.start.progress import RunRecords
from stackhand.services.start.record import Failure, ServiceFailed, StartReport, Step
from stackhand.services.start.remember import StartHistory
from stackhand.services.start.session import Session
from stackhand.settings import Start
from stackhand.state.folder import StateFolder


class StartRun:
    """One run: carries out plans for one project, which stays as it was when the run began.

    It decides nothing: it dispatches the nodes of a plan. What changes on the way is a new plan, from `decide`.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.project = context.project
        self._shared = context.shared
        self._records = context.shared.records

    def observe(self, only: str | None = None) -> Facts:
        """Return what the project is like now, or one service of it."""
        shared = self._shared
        context = self.context
        replaced = context.preparation.replaced_networks
        return collect_facts(shared.engine, shared.state, self.project, context.read_hashes, replaced, only)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the project's lock and listen to the engine while the body runs. Raises LockHeld."""
        return self._shared.session.locked(self.project.name)

    def ask_first(self, plan: StartPlan, facts: Facts) -> None:
        """Ask before a plan changes containers that were made from another folder. Raises OtherFolder."""
        touched, elsewhere = plan.services(*MAKES, *LAUNCHES), facts.elsewhere
        self._shared.takeover.check(self.project, {name: elsewhere[name] for name in touched if name in elsewhere})

    def execute(
        self,
        wanted: Collection[str],
        plan: StartPlan,
        facts: Facts,
        *,
        optional: Collection[str] = (),
        failures: Mapping[str, Failure] | None = None,
        recreate: bool = True,
    ) -> StartReport:
        """Carry out a plan that was made from these facts, look again, and report.

        The run is no failure when a service fails that is `optional`. `failures` are those of images that were got
        before; without them the plan's images are got. Without `recreate`, containers that are there are kept.
        Raises LockHeld, OtherFolder, MissingFile, and what makes the whole start impossible.
        """
        self.ask_first(plan, facts)
        self._records.begin(wanted, plan, facts.containers)
        self._records.mark_optional(optional)
        for name in wanted:
            if name not in plan.services() and name in facts.elsewhere:
                self._shared.tell(name, "note", f"it was started from another folder, {facts.elsewhere[name]}")
        if plan:
            check_files(self.project, plan.services())
            with self.locked():
                self._carry_out(wanted, plan, facts.containers, failures, recreate=recreate)
                self.remember(facts, self._look_again(wanted, recreate=recreate))
        else:
            self._remember_completed(facts)
        return self._records.report(self.project, self._shared.now(), wanted)

    def start_alone(self, name: str) -> tuple[ServiceStart, Facts]:
        """Have one service running whose dependencies have been seen to. Raises ServiceFailed."""
        facts, involved = self.observe(name), self._shared.involved
        if facts.networks and facts.networks.changed.intersection(self.project.services[name].networks):
            self._renew_networks(name)
            facts = self.observe(name)
        plan = plan_alone(self.project, name, facts, involved.recreated, rebuild=self.context.rebuild)
        self.ask_first(plan, facts)
        self._records.begin([name], plan, facts.containers)
        if not plan:
            self._remember_completed(facts)
            return ServiceStart(self.context, self._records[name]), facts
        check_files(self.project, [name])
        with self.locked():
            failures, now, left = self._prepare(
                [name], plan, facts.containers, None, recreate=True, leaders=involved.recreated
            )
            start = self._begin(left, now, failures)[name]
            for node in left.needs:
                if node.verb != "check":
                    start.start(restart=node.verb == "restart")
        return start, facts

    def _renew_networks(self, name: str) -> None:
        """Renew all that runs on the networks of a service that have changed, and the service with it."""
        with self._shared.renewing:
            facts = self.observe()
            names = [each for each in with_network_users(self.project, [name], facts) if each not in self._records]
            self.execute(names, plan_start(self.project, names, facts), facts)

    def watch(self, names: Collection[str]) -> StartReport:
        """Wait until services are ready, without starting anything."""
        facts = self.observe()
        plan = plan_start(self.project, names, facts.without_configuration())
        self._records.begin(names, plan, facts.containers)
        awaited = [name for name in plan.services() if self.project.services[name].replicas]

        for name in plan.services():
            if self.project.services[name].provider:
                hint = f"`inv up.{name}` asks it"
                failure = Failure("ready", "not_asked", NOT_PROVIDED, hint=hint)
                self._records.fail(name, failure)

        def watch(name: str) -> None:
            ServiceStart(self.context, self._records[name], only_watch=True).ready()

        graph: dict[str, tuple[str, ...]] = dict.fromkeys(awaited, ())
        with self._shared.session.listening(self.project.name):
            schedule.run(graph, watch, clock=self._shared.clock)
        return self._records.report(self.project, self._shared.now(), names)

    def _remember_completed(self, facts: Facts) -> None:
        self._shared.history.keep_completed(flat(facts.containers), self._records)

    def remember(self, facts: Facts, now: Containers) -> None:
        """Remember what the runs after this one can't see: `now` are the containers at its end."""
        history, involved = self._shared.history, self._shared.involved
        history.keep(self.project, facts, now, self._records, involved.created)
        # The list of containers lacks the moment of start, which counts for those that this run has started.
        touched = {n for n in involved.busy if any(container.started_at is None for container in now.get(n, ()))}
        if touched and facts.file_stats:
            engine = self._shared.engine
            now = {**now, **{name: engine.containers(self.project.name, name) for name in touched}}
        history.keep_files(self.project, facts, flat(now))

    def _carry_out(
        self,
        wanted: Collection[str],
        plan: StartPlan,
        before: Containers,
        images: Mapping[str, Failure] | None = None,
        *,
        recreate: bool,
    ) -> None:
        failures, now, left = self._prepare(wanted, plan, before, images, recreate=recreate)
        starts = self._begin(left, now, failures)

        def work(node: Node) -> None:
            if node.verb == "check":
                starts[node.service].ready()
            else:
                starts[node.service].start(restart=node.verb == "restart")

        result = schedule.run(left.needs, work, after=left.after, clock=self._shared.clock)
        for error in result.failed.values():
            if not isinstance(error, ServiceFailed):
                raise error
        for node, cause in result.skipped.items():
            self._records.skip(node.service, cause.service)

    def _prepare(
        self,
        wanted: Collection[str],
        plan: StartPlan,
        before: Containers,
        images: Mapping[str, Failure] | None,
        *,
        recreate: bool,
        leaders: Collection[str] = (),
    ) -> tuple[dict[str, Failure], Containers, StartPlan]:
        """Get images and make containers. Returns who can't be started, the containers, and what is left to do."""
        failures = self.context.preparation.run(plan, images, recreate=recreate)
        made, now = plan.services(*MAKES), before
        if made:
            lost = unable(self.project, failures)
            only = next(iter(wanted)) if len(wanted) == 1 else None
            now = containers_of(self._shared.engine, self.project, only)
            # Compose has kept what is as configured now; what it was to keep as it is may be anything.
            self._shared.involved.created.update(
                name
                for name in made
                if name not in lost and (recreate or all_new(before.get(name, ()), now.get(name, ())))
            )
            self._shared.involved.recreated.update(recreated(made, before, now))
        return failures, now, replan(self.project, wanted, plan, before, now, failures, leaders)

    def _begin(self, plan: StartPlan, now: Containers, failures: Mapping[str, Failure]) -> dict[str, ServiceStart]:
        """Open the records of what a plan starts, and tell what each waits for."""
        names = plan.services()
        self._shared.involved.busy.update(names)
        for name in names:
            awaited = [entry.service for entry in self.project.services[name].depends_on if entry.service in names]
            if awaited and name not in failures:
                self._shared.tell(name, "wait", f"waiting for {', '.join(awaited)}")
        return {
            name: ServiceStart(self.context, self._records.reopen(name), now.get(name, ()), failures.get(name))
            for name in names
        }

    def _look_again(self, wanted: Collection[str], *, recreate: bool) -> Containers:
        """See whether all that was ready still is; what crashed is started once more, then given up.

        Returns the containers as they were at the last look.
        """
        notifier = self._shared.notifier
        brief = not any(service.shares for service in self.project.services.values())
        for last in (False, True):
            now = containers_of(self._shared.engine, self.project, brief=brief)
            crashes = {name: notifier.crashes(name) for name in wanted}
            fallen = crashed(self.project, self._records, wanted, now, crashes)
            behind = sharing.behind(self.project, wanted, now)
            for name in [*fallen]:
                mine = now.get(name, ())
                signalled = any(notifier.was_signalled(each.id) for each in mine)
                if not signalled and has_done_its_work(self.project.services[name], self._records[name], mine):
                    self._records.complete(name)
                    fallen.remove(name)
                else:
                    self._records.fail(name, self._fell(mine))
            if last or not (fallen or behind):
                break
            again = plan_retry(self.project, wanted, self._records, fallen, now, behind)
            self._carry_out(wanted, again, now, recreate=recreate)
        return now

    def _fell(self, containers: Sequence[Container]) -> Failure:
        """Return the failure of a service that was ready and ended again, with its last log lines."""
        container = next((each for each in containers if not each.running), None)
        failure = explain.fell(container)
        if container is None:
            return failure
        lines, shared = self.context.settings.log_lines, self._shared
        return explain.with_evidence(failure, shared.engine, container, lines, None, "", shared.redactor)


class Starter:
    """Starts services of a project, for all tasks of one process, and remembers what became of each.

    `select` returns the project as it is chosen at that moment: a task may activate a profile. Each run asks once, when
    it begins.
    """

    def __init__(
        self,
        select: Callable[[], ChosenProject],
        engine: Engine,
        settings: Start,
        state: StateFolder,
        redactor: Redactor,
        clock: Clock | None = None,
        takeover: Takeover | None = None,
    ) -> None:
        clock = clock or clocks.SYSTEM
        self._select = select
        self._settings = settings
        self._chosen = settings
        self._rebuild = False
        self._lock = threading.Lock()
        self.subscribers: list[Callable[[Step], None]] = []
        notifier = Notifier(clock)
        self.records = RunRecords(self._tell)
        self.shared = Shared(
            engine=engine,
            state=state,
            redactor=redactor,
            clock=clock,
            notifier=notifier,
            probes=TimedSemaphore(EXECS_AT_ONCE, EXEC_COSTS, clock),
            session=Session(engine, state, notifier),
            builds=Builds(engine, state),
            history=StartHistory(state),
            records=self.records,
            tell=self._tell,
            began=clock.monotonic(),
            renewing=Turn(clock),
            takeover=takeover or Takeover(),
        )
        self._limiter = StartLimiter(clock)
        self._tools: tuple[Project, Compose, Launcher, Preparation] | None = None

    def configure(self, *, timeout: float | None = None, retries: int | None = None, dev: bool = False) -> None:
        """Override settings by the command line's, for the runs from here on."""
        changes: dict[str, float] = {}
        if timeout:
            changes["timeout"] = timeout
        if retries:
            changes["retries"] = retries
        if dev:
            changes["settle"] = 0.0
        # From the project's own settings: the flags of one task are not for the next.
        self._chosen = msgspec.structs.replace(self._settings, **changes)
        self._rebuild = dev

    def begin(self) -> StartRun:
        """Return a new run, of the project as it is chosen now."""
        chosen, shared = self._select(), self.shared
        project, compose = chosen.project, chosen.compose
        with self._lock:
            if self._tools is None or self._tools[0] is not project or self._tools[1] is not compose:
                launcher = Launcher(
                    project, compose, shared.engine, shared.notifier, self._limiter, shared.history, shared.clock
                )
                preparation = Preparation(
                    project,
                    compose,
                    shared.engine,
                    shared.builds,
                    shared.notifier,
                    shared.tell,
                    shared.clock,
                    shared.redactor,
                )
                self._tools = (project, compose, launcher, preparation)
            _, _, launcher, preparation = self._tools
        return StartRun(
            RunContext(project, chosen.read_hashes, self._chosen, self._rebuild, launcher, preparation, shared)
        )

    def plan(self, names: Sequence[str], named: Collection[str] = ()) -> StartPlan:
        """Return what a start of these services would do, with all that they depend on and what has to follow."""
        run = self.begin()
        return plan_with_sharers(run.project, names, run.observe(), named=named, rebuild=self._rebuild)[1]

    def run(self, names: Sequence[str], named: Collection[str] = (), *, as_is: bool = False) -> StartReport:
        """Start services and all that they depend on; return when each is ready, has failed or was skipped.

        With `as_is` they start as they were made, whatever has changed since. What runs and shares a namespace or
        volumes with one of them follows it.
        Raises LockHeld, MissingFile, and what makes the whole start impossible.
        """
        run = self.begin()
        facts = run.observe()
        known, rebuild = (facts.without_configuration(), False) if as_is else (facts, self._rebuild)
        names, plan = plan_with_sharers(run.project, names, known, named=named, rebuild=rebuild)
        needed = run.project.closure(names)
        wanted = [name for name in run.project.services if name in needed]
        optional = set(wanted) - set(run.project.closure(names, required_only=True))
        return run.execute(wanted, plan, facts, optional=optional, recreate=not as_is)

    def start_as_is(self, name: str) -> StartReport:
        """Start one service and what it depends on as they were made; a one-shot runs again.

        What has changed since stays as it is: a fix does not decide to renew it.
        """
        return self.run([name], [name], as_is=True)

    def was_made(self, name: str) -> None:
        """Take note that a service's containers were just made from its configuration: a start remembers that."""
        self.shared.involved.created.add(name)

    def wait(self, names: Sequence[str]) -> StartReport:
        """Wait until services are ready, without starting anything."""
        return self.begin().watch(names)

    def report(self) -> StartReport:
        """Return what became of all services that this process has touched."""
        return self.records.report(self._select().project, self.shared.now())

    def cancel(self) -> None:
        """Make every thread of this process leave at its next look."""
        self.shared.session.cancel()

    def _tell(self, service: str, kind: str, text: str) -> None:
        step = Step(service, kind, text, self.shared.now())  # type: ignore[arg-type]
        for subscriber in self.subscribers:
            subscriber(step)
