"""The restart: find what changed, build just that, then renew it and what asks to follow, in order and gated.

Building comes first and by itself: only its outcome says what has really changed, and while it goes on, and where it
fails, all that runs runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackhand.errors import StateFolderUnwritable
from stackhand.graph import schedule
from stackhand.services.changes import inline_files, mounted_files
from stackhand.services.changes.builds import Source
from stackhand.services.restart.plan import Changes, changed, plan_restart, scope
from stackhand.services.start.facts import Facts
from stackhand.services.start.plan import IMAGES, StartAction, StartPlan, connect
from stackhand.services.start.prepare import check_files
from stackhand.services.start.record import Failure, StartReport
from stackhand.services.start.remember import FILES
from stackhand.state.journal import Journal, Run, Unfinished

if TYPE_CHECKING:
    from stackhand.engine.api.containers import Container
    from stackhand.services.start.run import Starter, StartRun
    from stackhand.state.folder import StateFolder

TASK = "services.restart"


@dataclass(frozen=True)
class Restarted:
    """What a restart has found and done. `changed` holds services and causes.

    `unhealthy` are those that run unchanged and that the engine has seen fail.
    """

    report: StartReport
    changed: tuple[tuple[str, str], ...] = ()
    unhealthy: tuple[str, ...] = ()

    def to_json(self) -> list[dict[str, str]]:
        """Return `changed` of the contract's JSON."""
        return [{"service": service, "cause": cause} for service, cause in self.changed]


@dataclass(frozen=True)
class _Seen:
    """Everything that was read: the facts of a start, and what only a restart asks for."""

    facts: Facts
    sources: Mapping[str, Source]
    changes: Changes


class Restarter:
    """Restarts what changed of one project, through the starter's runs."""

    def __init__(
        self,
        starter: Starter,
        state: StateFolder,
        environ: Mapping[str, str],
        read_file: Callable[[str, str], bytes | None],
    ) -> None:
        """Make it; secrets and configs may come from `environ`, `read_file` reads what a container has of them."""
        self._starter = starter
        self._state = state
        self._journal = Journal(state)
        self._environ = environ
        self._read_file = read_file

    def plan(self, names: Sequence[str], named: Sequence[str] = ()) -> StartPlan:
        """Return what a restart would do: look at these services, renew `named` among them in any case."""
        run = self._starter.begin()
        seen = self._look(run, names, named)
        return self._worth_it(plan_restart(run.project, names, seen.facts, seen.changes))

    def run(
        self,
        names: Sequence[str],
        named: Sequence[str] = (),
        found: Callable[[Sequence[tuple[str, str]]], None] = lambda changed: None,
    ) -> Restarted:
        """Restart what changed of these services; return when all of it is ready, has failed or was skipped.

        `found` is called with what has changed as soon as that is known, before anything is done about it.
        Raises LockHeld, OtherFolder, MissingFile, and what makes the whole restart impossible.
        """
        run = self._starter.begin()
        seen = self._look(run, names, named)
        plan = self._worth_it(plan_restart(run.project, names, seen.facts, seen.changes))
        check_files(run.project, plan.services())
        run.ask_first(plan, seen.facts)
        if not plan:
            self._settle(run, seen, names)
            # One that the engine has not asked yet may well be healthy: there is nothing to say about it.
            unhealthy = [name for name in names if any(each.health == "unhealthy" for each in seen.facts.of(name))]
            return Restarted(_execute(run, names, plan, seen.facts), unhealthy=tuple(unhealthy))
        with self._state.lock(TASK), run.locked():
            found(changed(plan, seen.changes))
            failures = run.context.preparation.images(plan)
            first = seen.changes
            if plan.services(*IMAGES):
                facts = run.observe()
                mine = scope(run.project, facts, names)
                plan = plan_restart(run.project, names, facts, replace(first, contexts={}))
                failures = {name: _told(failures[name], facts, name) for name in failures if name in mine}
                plan = _without_images(run, plan, failures)
                seen = replace(seen, facts=facts)
            # The run after one that was killed restarts those of these containers that it has not come to.
            with self._journal.run(TASK, steps=_restarts(plan, seen.facts)):
                report = _execute(run, names, plan, seen.facts, failures)
            self._settle(run, seen, names, failures)
        return Restarted(report, tuple(changed(plan, first)))

    def _worth_it(self, plan: StartPlan) -> StartPlan:
        """Return the plan, empty where it only waits for the health of what has not changed.

        After a run that was interrupted, the waiting is what was left to do.
        """
        waits = plan.services() == plan.services("check")
        return StartPlan() if waits and not self._journal.unfinished(TASK) else plan

    def _look(self, run: StartRun, names: Sequence[str], named: Sequence[str]) -> _Seen:
        project, builds = run.project, run.context.shared.builds
        found: dict[str, Any] = schedule.gather(
            {"facts": run.observe, "sources": lambda: builds.sources(project, names)}
        )
        facts: Facts = found["facts"]
        sources: dict[str, Source] = found["sources"]
        contexts = builds.changed(project, sources, facts.images or {})
        files = mounted_files.changed(
            project, facts.containers, facts.file_stats, FILES.read(self._state), facts.clock_offset
        )
        texts = inline_files.changed(project, facts.containers, self._environ, self._read_file)
        return _Seen(
            facts,
            sources,
            Changes(
                contexts=contexts,
                builders={name: builds.builder(project, name) for name in contexts},
                files={name: cause for name, cause in files.items() if name in names},
                inline_files={name: cause for name, cause in texts.items() if name in names},
                interrupted=self._interrupted(facts, names),
                named=tuple(named),
            ),
        )

    def _settle(
        self, run: StartRun, seen: _Seen, names: Sequence[str], failures: Mapping[str, Failure] | None = None
    ) -> None:
        """Remember what has been seen to be as it should, and settle interrupted runs of which nothing more is left.

        What such a run has left to services that this one was not to look at is for a later run.
        """
        same = {
            name: source
            for name, source in seen.sources.items()
            if name not in seen.changes.contexts and name not in (failures or {})
        }
        # A run that has nothing to do needs no folder to write to.
        with suppress(StateFolderUnwritable):
            run.context.shared.builds.remember(run.project, same, seen.facts.images or {})
        others = [each for name in run.project.services if name not in names for each in seen.facts.of(name)]
        ended = [each for each in self._journal.unfinished(TASK) if not each.is_under_way]
        self._journal.settle(*(each for each in ended if not each.left(lambda key: _is_gone(key, others))))

    def _interrupted(self, facts: Facts, names: Sequence[str]) -> dict[str, str]:
        """Return the services whose restart an interrupted run has not come to."""
        causes = {key: step.cause for each in self._journal.unfinished(TASK) for key, step in each.steps.items()}
        return {
            name: f"a restart was interrupted before it: {causes[container.run_key]}"
            for name in names
            for container in facts.of(name)
            if container.run_key in causes
        }


def describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    """Return what a person is told of a restart that was not finished; None where all has restarted since."""
    left = run.left(lambda key: _is_gone(key, containers))
    services = list(dict.fromkeys(container.service for container in containers if container.run_key in left))
    if not services:
        return None
    return Unfinished(
        TASK,
        run.began,
        f"a restart was interrupted before all had restarted: {', '.join(services)}",
        "`inv services.restart` finishes it",
    )


def _is_gone(key: str, containers: Sequence[Container]) -> bool:
    """Return whether a run of a container, by its `run_key`, has ended: its restart, or a later one, was made."""
    return all(container.run_key != key for container in containers)


def _restarts(plan: StartPlan, facts: Facts) -> dict[str, str]:
    """Return the runs of containers that a plan ends by a restart, and why each does."""
    return {
        container.run_key: action.cause
        for action in plan.actions
        if action.verb == "restart"
        for container in facts.of(action.service)
    }


def _execute(
    run: StartRun,
    names: Sequence[str],
    plan: StartPlan,
    facts: Facts,
    failures: Mapping[str, Failure] | None = None,
) -> StartReport:
    wanted = scope(run.project, facts, names)
    optional = set(wanted) - set(run.project.closure(names, required_only=True))
    return run.execute(wanted, plan, facts, optional=optional, failures=failures or {})


def _told(failure: Failure, facts: Facts, name: str) -> Failure:
    """Return why a service's image could not be got, and that its containers run on where they do."""
    if not any(container.running for container in facts.of(name)):
        return failure
    return replace(failure, reason=f"{failure.reason}; what ran before runs on")


def _without_images(run: StartRun, plan: StartPlan, failures: Mapping[str, Failure]) -> StartPlan:
    """Return a plan in which services whose image could not be got only fail."""
    kept = [action for action in plan.actions if action.service not in failures]
    failed = [StartAction(name, "build", failure.reason) for name, failure in failures.items()]
    return connect(run.project, [*kept, *failed])
