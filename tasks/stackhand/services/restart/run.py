"""The restart: find what changed, build just that, then renew it and what asks to follow, in order and gated.

Building comes first and by itself: only its outcome tells what has changed in truth, and while it goes on, and where it
fails, all that runs runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackhand.engine.compose.project import Project
from stackhand.errors import StateFolderUnwritable
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.changes import inline_files as given
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.changes.builds import Source
from stackhand.services.restart import plan as deciding
from stackhand.services.restart.plan import Changes
from stackhand.services.start.plan import Facts
from stackhand.services.start.prepare import check_files
from stackhand.services.start.record import Failure, StartReport
from stackhand.services.start.remember import FILES
from stackhand.state.journal import Journal, Run, Unfinished

if TYPE_CHECKING:
    from stackhand.engine.api.containers import Container
    from stackhand.services.start.run import Starter
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
    """Restarts what changed of one project, with a starter's hands."""

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

    @property
    def _project(self) -> Project:
        return self._starter.project

    def plan(self, names: Sequence[str], named: Sequence[str] = ()) -> Plan:
        """Return what a restart would do: look at these services, renew `named` among them in any case."""
        seen = self._look(names, named)
        return self._worth_it(deciding.plan_restart(self._project, names, seen.facts, seen.changes))

    def run(
        self,
        names: Sequence[str],
        named: Sequence[str] = (),
        found: Callable[[Sequence[tuple[str, str]]], None] = lambda changed: None,
    ) -> Restarted:
        """Restart what changed of these services; return when all of it is ready, has failed or was skipped.

        `found` is told what has changed as soon as that is known, before anything is done about it.
        Raises LockHeld, MissingFile, and whatever makes the whole restart impossible.
        """
        seen = self._look(names, named)
        project = self._project
        plan = self._worth_it(deciding.plan_restart(project, names, seen.facts, seen.changes))
        check_files(project, {action.service for action in plan.actions})
        if not plan:
            self._settle(seen)
            # One that the engine has not asked yet may well be healthy: there is nothing to say about it.
            found_of = seen.facts.containers
            ill = tuple(name for name in names if any(each.health == "unhealthy" for each in found_of.get(name, ())))
            return Restarted(self._execute(names, plan, seen.facts), unhealthy=ill)
        with self._state.lock("services.restart"), self._starter.changing():
            found(deciding.changed(plan, seen.changes))
            failures = self._starter.get_images(plan)
            first = seen.changes
            if any(action.verb in ("build", "pull") for action in plan.actions):
                facts = self._starter.read()
                mine = {
                    name: failure for name, failure in failures.items() if name in deciding.scope(project, facts, names)
                }
                plan = deciding.plan_restart(project, names, facts, replace(first, contexts={}))
                plan, failures = _as_failed(plan, mine, facts)
                seen = replace(seen, facts=facts)
            # The run after one that was killed restarts those of these containers that it has not come to.
            with self._journal.run(TASK, steps=_restarts(plan, seen.facts)):
                report = self._execute(names, plan, seen.facts, failures)
            self._settle(seen, failures)
        return Restarted(report, tuple(deciding.changed(plan, first)))

    def _worth_it(self, plan: Plan) -> Plan:
        """Return the plan, empty where it only waits for the health of what has not changed.

        After a run that was interrupted, the waiting is what was left to do.
        """
        waits = all(action.verb == "check" for action in plan.actions)
        return Plan() if waits and not self._journal.unfinished(TASK) else plan

    def _execute(
        self, names: Sequence[str], plan: Plan, facts: Facts, failures: Mapping[str, Failure] | None = None
    ) -> StartReport:
        wanted = deciding.scope(self._project, facts, names)
        optional = set(wanted) - set(self._project.closure(names, required_only=True))
        return self._starter.execute(wanted, plan, facts, optional=optional, failures=failures or {})

    def _look(self, names: Sequence[str], named: Sequence[str]) -> _Seen:
        project = self._project
        found: dict[str, Any] = schedule.gather(
            {"facts": self._starter.read, "sources": lambda: self._starter.builds.sources(project, names)}
        )
        facts: Facts = found["facts"]
        sources: dict[str, Source] = found["sources"]
        builds = self._starter.builds
        contexts = builds.changed(project, sources, facts.images or {})
        files = mounted.changed(project, facts.containers, facts.stamps, FILES.read(self._state))
        texts = given.changed(project, facts.containers, self._environ, self._read_file)
        return _Seen(
            facts,
            sources,
            Changes(
                contexts=contexts,
                builders={name: builds.builder(project, name) for name in contexts},
                files={name: cause for name, cause in files.items() if name in names},
                texts={name: cause for name, cause in texts.items() if name in names},
                owed=self._owed(facts, names),
                named=tuple(named),
            ),
        )

    def _settle(self, seen: _Seen, failures: Mapping[str, Failure] | None = None) -> None:
        """Remember what has been seen to be as it should."""
        same = {
            name: source
            for name, source in seen.sources.items()
            if name not in seen.changes.contexts and name not in (failures or {})
        }
        # A run that has nothing to do needs no folder to write to.
        with suppress(StateFolderUnwritable):
            self._starter.builds.remember(self._project, same, seen.facts.images or {})
        self._journal.settle(*(run for run in self._journal.unfinished(TASK) if not run.is_under_way))

    def _owed(self, facts: Facts, names: Sequence[str]) -> dict[str, str]:
        """Return the services whose restart an interrupted run has not come to."""
        owed = {key: step.cause for run in self._journal.unfinished(TASK) for key, step in run.steps.items()}
        return {
            name: f"a restart was interrupted before it: {owed[container.run_key]}"
            for name in names
            for container in facts.containers.get(name, ())
            if container.run_key in owed
        }


def describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    """Return what a person is told of a restart that was not finished; None where all has restarted since."""
    left = run.left(lambda key: all(each.run_key != key for each in containers))
    services = list(dict.fromkeys(each.service for each in containers if each.run_key in left))
    if not services:
        return None
    return Unfinished(
        TASK,
        run.began,
        f"a restart was interrupted before all had restarted: {', '.join(services)}",
        "`inv services.restart` finishes it",
    )


def _restarts(plan: Plan, facts: Facts) -> dict[str, str]:
    """Return the runs of containers that a plan ends by a restart, and why each does."""
    return {
        container.run_key: action.cause
        for action in plan.actions
        if action.verb == "restart"
        for container in facts.containers.get(action.service, ())
    }


def _as_failed(plan: Plan, failures: Mapping[str, Failure], facts: Facts) -> tuple[Plan, dict[str, Failure]]:
    """Return a plan in which services without their new image only fail, and failures that say what runs on."""
    told: dict[str, Failure] = {}
    for name, failure in failures.items():
        runs = any(each.running for each in facts.containers.get(name, ()))
        told[name] = replace(failure, reason=f"{failure.reason}; what ran before runs on") if runs else failure
    kept = [action for action in plan.actions if action.service not in failures]
    failed = [Action(name, "build", failure.reason) for name, failure in told.items()]
    return Plan((*kept, *failed)), told
