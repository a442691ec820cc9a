"""The runner of checks: ask, fix what a finding calls for, look again.

It is given a suite. All checks of a look run side by side. A fix counts as done only when the same check, asked again,
comes out well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from stackhand.checks.ask import Asker, Question, questions
from stackhand.checks.causes import attribute
from stackhand.checks.check import Verdict
from stackhand.checks.context import CheckContext
from stackhand.checks.suite import Suite
from stackhand.errors import Interrupted, PrerequisiteMissing, StackError
from stackhand.graph import schedule
from stackhand.model import STRENGTHS, Action, Finding, Fix, Key, Outcome, Plan, Report, count_by_status

Steps = Mapping[str, Callable[[], object]]
Tell = Callable[[str], None]

# Where `inv --debug` looks.
_log = logging.getLogger("invoke")


_Look = dict[Question, list[Finding]]


def run(
    context: CheckContext,
    names: Sequence[str],
    suite: Suite,
    steps: Steps | None = None,
    tell: Tell = lambda text: None,
) -> Report:
    """Carry out all phases in order, then `steps`. Returns what was found at the end, and what was done.

    `tell` is called with each action when it begins. Raises LockHeld, and PrerequisiteMissing where nothing can be
    asked at all.
    """
    runner = _Runner(context, names, suite, tell)
    found = first = runner.wait_for_young(runner.look(suite.phases))
    for _ in range(suite.limits.rounds):
        if not runner.repair(found):
            break
        found = runner.settle()
    own = [_step(context, name, step, tell) for name, step in (steps or {}).items()]
    if own:
        context.invalidate()
        found = runner.look(suite.phases)
    before = count_by_status(tuple(_flat(first)))
    return Report((*runner.final(found), *own), tuple(runner.outcomes), before, suite.phases)


def plan(
    context: CheckContext, names: Sequence[str], suite: Suite, steps: Iterable[str] = ()
) -> tuple[Plan, tuple[Finding, ...]]:
    """Return the plan of a run as things are now, and the findings that it has no fix for."""
    runner = _Runner(context, names, suite, lambda text: None)
    wrong = [each for each in runner.final(runner.look(suite.phases)) if each.status in ("fail", "warn")]
    own = tuple(Action("", f"run the step {name}", "fixes.steps names it") for name in steps)
    actions = (_action(each, each.fix) for each in wrong if each.fix)
    return Plan((*actions, *own)), tuple(each for each in wrong if not each.fix)


class _Runner:
    """One run: the fixes that it tried so far, and their outcomes."""

    def __init__(self, context: CheckContext, names: Sequence[str], suite: Suite, tell: Tell) -> None:
        self._context = context
        self._names = names
        self._suite = suite
        self._tell = tell
        self._tried: set[Key] = set()
        self._failed: set[Key] = set()
        self._blames: dict[Key, tuple[str, ...]] = {}
        self._asker = Asker(context, suite)
        self.outcomes: list[Outcome] = []

    def look(self, phases: Collection[str]) -> _Look:
        """Ask all questions of these phases, side by side."""
        answers = self._asker.ask(questions(self._context, self._names, self._suite, phases))
        return {each: self._findings(each, verdicts) for each, verdicts in answers.items()}

    def wait_for_young(self, found: _Look) -> _Look:
        """Wait for services that started a moment ago and do not answer yet, where there is nothing to fix."""
        while not any(each.to_fix for each in _flat(found)) and self._is_young(found):
            time.sleep(self._suite.limits.pause)
            self._context.invalidate()
            found = self.look(self._suite.phases)
        return found

    def _is_young(self, found: _Look) -> bool:
        """Return whether a service has a failure of its own, and started within the time that it may take.

        So has one that uses a service which started just now: it has to find that again.
        """
        wrong = {each.service for each in _flat(found) if each.service and self._may_pass(each)}
        if not wrong:
            return False
        since = self._context.engine.now() - timedelta(seconds=self._context.settings.patience)
        started = {
            each.service
            for each in self._context.containers()
            if each.running and each.started_at is not None and each.started_at > since
        }
        return any(not started.isdisjoint((name, *self._context.needs(name))) for name in wrong)

    def _may_pass(self, finding: Finding) -> bool:
        return finding.status == "fail" and finding.phase == self._suite.phases[0]

    def final(self, found: _Look) -> list[Finding]:
        """Return the findings of a look, root causes first; a warning that could not be fixed is a failure."""
        findings = [
            replace(each, status="fail") if each.status == "warn" and each.key in self._failed else each
            for each in _flat(found)
        ]
        return attribute(findings, self._blames, self._suite)

    def repair(self, found: _Look) -> bool:
        """Fix what these findings call for, phase by phase. Returns whether anything was done."""
        acted = False
        for phase in self._suite.phases:
            current = self.look([phase]) if acted else {q: f for q, f in found.items() if q.check.phase == phase}
            broken = {question: self._untried(findings) for question, findings in current.items()}
            broken = {question: findings for question, findings in broken.items() if findings}
            if broken:
                acted = True
                self._repair(phase, broken)
        return acted

    def settle(self) -> _Look:
        """Ask everything again, until all services are well, there is something new to fix, or time is up.

        A service may need a while to find what was missing; any other finding does not change by waiting.
        """
        deadline = time.monotonic() + self._context.settings.patience
        while True:
            self._context.invalidate()
            found = self.look(self._suite.phases)
            recovering = any(self._may_pass(each) for each in _flat(found))
            if not recovering or self._untried(_flat(found)) or time.monotonic() > deadline:
                return found
            time.sleep(self._suite.limits.pause)

    def _untried(self, findings: Iterable[Finding]) -> list[Finding]:
        return [each for each in findings if each.to_fix and each.key not in self._tried]

    def _repair(self, phase: str, broken: _Look) -> None:
        errors: dict[Key, str | None] = {}
        self._tried |= {finding.key for finding in _flat(broken)}

        def fix_all_of(service: str) -> None:
            for finding, fix in by_service[service]:
                self._tell(str(_action(finding, fix)))
                errors[finding.key] = self._act(finding, fix)

        with self._context.state.lock(self._suite.task):
            # Between the look and the lock another run may have put things right. This look also binds each fix to
            # what is true now.
            self._context.invalidate()
            now = {finding.key: finding for finding in _flat(self.look([phase])) if finding.to_fix}
            keys = dict.fromkeys(each.key for each in _flat(broken))
            fixes = [(now[key], fix) for key in keys if key in now and (fix := now[key].fix)]
            by_service: dict[str, list[tuple[Finding, Fix]]] = {}
            for finding, fix in sorted(fixes, key=lambda pair: STRENGTHS.index(pair[1].strength)):
                by_service.setdefault(finding.service or "", []).append((finding, fix))
            failed = schedule.run(dict.fromkeys(by_service, ()), fix_all_of).failed
            self._asker.forget()
        for reason in failed.values():
            raise reason
        done = [(finding, fix) for finding, fix in fixes if errors[finding.key] is None]
        left = self._left(phase, broken, {finding.key: fix.settle for finding, fix in done})
        for finding, fix in fixes:
            error = errors[finding.key] or left.get(finding.key)
            (self._failed.add if error else self._failed.discard)(finding.key)
            self.outcomes.append(Outcome(_action(finding, fix), finding.id, error is None, error))

    def _act(self, finding: Finding, fix: Fix) -> str | None:
        redact = self._context.redact
        try:
            fix.act()
        except (PrerequisiteMissing, Interrupted):
            raise
        except StackError as error:
            return redact(error.message)
        except Exception as bug:
            _log.debug("the fix of %s crashed", finding.id, exc_info=True)
            return f"the fix crashed: {type(bug).__name__}: {redact(str(bug))}"
        return None

    def _left(self, phase: str, broken: _Look, done: Mapping[Key, float]) -> dict[Key, str]:
        """Look until every finding in `done`, each with its time to settle, is gone. Returns what is left, and why."""
        deadline = time.monotonic() + max(done.values(), default=0.0)
        while True:
            self._context.invalidate()
            again = self.look([phase])
            left: dict[Key, str] = {}
            for question, findings in broken.items():
                now = again.get(question)
                silent = now is None or any(each.status == "skip" and each.id == question.id for each in now)
                still = {each.key for each in now or () if each.status in ("fail", "warn")}
                for finding in findings:
                    if finding.key in still:
                        left[finding.key] = "it is still so after the fix"
                    elif silent:
                        left[finding.key] = "it cannot be seen any more: the service does not answer"
            if not set(left) & set(done) or time.monotonic() > deadline:
                return left
            time.sleep(self._suite.limits.pause)

    def _findings(self, question: Question, verdicts: Iterable[Verdict]) -> list[Finding]:
        """Return the findings of the answer to one question."""
        findings = []
        for verdict in verdicts:
            shown = replace(verdict, evidence=self._context.redact(verdict.evidence))
            finding = shown.finding(question.check, question.service)
            self._blames[finding.key] = verdict.blames
            findings.append(finding)
        return findings


def _action(finding: Finding, fix: Fix) -> Action:
    """Return the fix of a finding as an action."""
    return Action(finding.service or "", fix.does, finding.summary)


def _step(context: CheckContext, name: str, step: Callable[[], object], tell: Tell) -> Finding:
    """Run one step of the project's own. What it raises is a finding."""
    tell(f"run the step {name}")
    try:
        step()
    except Exception as error:
        why = context.redact(str(error) or type(error).__name__)
        remedy = f"`inv {name}` shows more"
        return Finding("fixes.step", None, "steps", "fail", f"the step {name} failed", why, remedy, subject=name)
    return Finding("fixes.step", None, "steps", "ok", f"the step {name} ran", subject=name)


def _flat(look: _Look) -> list[Finding]:
    return [finding for findings in look.values() for finding in findings]
