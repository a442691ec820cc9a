"""The post-startup fixes: check, fix what a finding calls for, look again.

A check reads facts and returns findings; it changes nothing. A fix takes one finding and puts it right, and what it
did counts only when the same check, asked again, is content. All checks of a look run side by side, each with a time
limit; one that crashes is a finding.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial

from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Check, Fix, NoAnswer
from stackhand.engine.api.containers import Container
from stackhand.errors import EngineUnreachable, Interrupted, PrerequisiteMissing, StackError
from stackhand.graph import schedule
from stackhand.kinds.postgres import migrations
from stackhand.model import PHASES, Action, Finding, Outcome, Phase, Plan, Report, Status, count_by_status
from stackhand.services.checks import attached as network
from stackhand.services.checks import reach, ready
from stackhand.services.checks import stale_address as stale
from stackhand.services.checks import warm_up as caches

Steps = Mapping[str, Callable[[], object]]
Tell = Callable[[str], None]

_GENERAL = (ready, network, reach, stale, migrations, caches)
# A fix can bring to light what was hidden behind the trouble. It is given up where that has no end.
_ROUNDS = 3
_PAUSE = 0.4
# Several answers, each with its own time-out, go into one judgement.
_CHECK_LIMIT = 30.0
_ENGINE_LIMIT = 5.0
# Where `inv --debug` looks.
_log = logging.getLogger("invoke")


@dataclass(frozen=True)
class _Question:
    """One check of one service. The same question later is the one of the same id: kinds make their checks anew."""

    id: str
    service: str
    check: Check = field(compare=False)
    container: Container | None = field(default=None, compare=False)
    place: str = ""

    def judge(self, context: CheckContext) -> list[Finding]:
        """Ask it. A finding about one container of several has its name for a subject."""
        if self.container is None:
            return list(self.check.judge(context, self.service))
        found = self.check.judge(context.at(self.container), self.service)
        return [replace(each, subject=self.place, summary=f"{self.place}: {each.summary}") for each in found]


_Look = dict[_Question, list[Finding]]


def run(
    context: CheckContext, names: Sequence[str], steps: Steps | None = None, tell: Tell = lambda text: None
) -> Report:
    """Carry out all phases in order, then `steps`. Returns what was found at the end, and what was done.

    `tell` is called with each action when it begins. Raises LockHeld, and PrerequisiteMissing where nothing can be
    asked at all.
    """
    worker = _Run(context, names, tell)
    found = first = worker.grown(worker.look(PHASES))
    for _ in range(_ROUNDS):
        if not worker.repair(found):
            break
        found = worker.settle()
    own = [_step(context, name, step, tell) for name, step in (steps or {}).items()]
    if own:
        context.forget()
        found = worker.look(PHASES)
    before = count_by_status(tuple(_flat(first)))
    return Report((*worker.final(found), *own), tuple(worker.outcomes), before)


def plan(context: CheckContext, names: Sequence[str], steps: Iterable[str] = ()) -> tuple[Plan, tuple[Finding, ...]]:
    """Return what a run would do now, and the findings that it could do nothing about."""
    worker = _Run(context, names, lambda text: None)
    wrong = [each for each in _flat(worker.look(PHASES)) if each.status in ("fail", "warn")]
    own = tuple(Action("", f"run the step {name}", "fixes.steps names it") for name in steps)
    made = Plan((*(worker.action(each) for each in wrong if each.to_fix), *own))
    return made, tuple(each for each in wrong if not each.to_fix)


class _Run:
    """One run of the fixes: what was tried so far, and what became of it."""

    def __init__(self, context: CheckContext, names: Sequence[str], tell: Tell) -> None:
        self._scene = context
        self._names = names
        self._tell = tell
        self._tried: set[tuple[str, str | None, str]] = set()
        self._failed: set[tuple[str, str | None, str]] = set()
        self.outcomes: list[Outcome] = []
        self._fixes: dict[str, Fix] = {}
        for module in _GENERAL:
            self._fixes.update(module.FIXES)
        for service in names:
            for kind in context.kinds.of(service):
                self._fixes.update(kind.fixes())

    def look(self, phases: Collection[Phase]) -> _Look:
        """Ask all questions of these phases, side by side."""
        questions = {str(number): each for number, each in enumerate(self._questions(phases))}
        answers = schedule.gather({key: partial(_judge, self._scene, each) for key, each in questions.items()})
        return {each: answers[key] for key, each in questions.items()}

    def grown(self, found: _Look) -> _Look:
        """Wait for services that were started a moment ago and do not answer yet, where nothing else is to be done."""
        while not any(each.to_fix for each in _flat(found)) and self._young(found):
            time.sleep(_PAUSE)
            self._scene.forget()
            found = self.look(PHASES)
        return found

    def _young(self, found: _Look) -> bool:
        """Return whether a service that has a failure of its own was started within the time it may take."""
        since = datetime.now(timezone.utc) - timedelta(seconds=self._scene.settings.patience)
        wrong = {each.service for each in _flat(found) if each.status == "fail" and each.phase == "services"}
        return any(
            each.service in wrong and each.running and each.started_at is not None and each.started_at > since
            for each in self._scene.containers()
        )

    def final(self, found: _Look) -> list[Finding]:
        """Return the findings of a look; a warning that was to be put right, and could not, is a failure."""
        return [
            replace(each, status="fail") if each.status == "warn" and each.key in self._failed else each
            for each in _flat(found)
        ]

    def repair(self, found: _Look) -> bool:
        """Put right what these findings call for, phase by phase. Returns whether anything was done."""
        acted = False
        for phase in PHASES:
            current = self.look([phase]) if acted else {q: f for q, f in found.items() if q.check.phase == phase}
            broken = {question: self._untried(findings) for question, findings in current.items()}
            broken = {question: findings for question, findings in broken.items() if findings}
            if broken:
                acted = True
                self._repair(phase, broken)
        return acted

    def settle(self) -> _Look:
        """Ask everything again, until all services are well, there is something new to fix, or patience is over.

        A service may need a while to find what was missing; any other finding does not change by being waited for.
        """
        deadline = time.monotonic() + self._scene.settings.patience
        while True:
            self._scene.forget()
            found = self.look(PHASES)
            recovering = any(each.status == "fail" and each.phase == "services" for each in _flat(found))
            if not recovering or self._untried(_flat(found)) or time.monotonic() > deadline:
                return found
            time.sleep(_PAUSE)

    def action(self, finding: Finding) -> Action:
        """Return what is to be done about a finding."""
        does = self._fixes[finding.id].does.format(subject=finding.subject)
        return Action(finding.service or "", does, finding.summary)

    def _questions(self, phases: Collection[Phase]) -> list[_Question]:
        found: list[_Question] = []
        for service in self._names:
            found += [_Question(check.id, service, check) for module in _GENERAL for check in module.CHECKS]
            running = [each for each in self._scene.containers() if each.service == service and each.running]
            for kind in self._scene.kinds.of(service):
                if kind.every_container and len(running) > 1:
                    found += [_Question(c.id, service, c, one, one.name) for one in running for c in kind.checks()]
                elif running:
                    found += [_Question(check.id, service, check) for check in kind.checks()]
        return [question for question in found if question.check.phase in phases]

    def _untried(self, findings: Iterable[Finding]) -> list[Finding]:
        return [each for each in findings if each.to_fix and each.id in self._fixes and each.key not in self._tried]

    def _repair(self, phase: Phase, broken: _Look) -> None:
        errors: dict[tuple[str, str | None, str], str | None] = {}
        self._tried |= {finding.key for finding in _flat(broken)}

        def one(service: str) -> None:
            for finding in by_service[service]:
                self._tell(str(self.action(finding)))
                errors[finding.key] = self._act(finding)

        with self._scene.state.lock("services.fixes"):
            # Between the look and the lock another run may have put things right.
            self._scene.forget()
            now = {finding.key: finding for finding in _flat(self.look([phase])) if finding.to_fix}
            findings = [now[finding.key] for finding in _flat(broken) if finding.key in now]
            by_service: dict[str, list[Finding]] = {}
            for finding in findings:
                by_service.setdefault(finding.service or "", []).append(finding)
            failed = schedule.run(dict.fromkeys(by_service, ()), one).failed
        for reason in failed.values():
            raise reason
        left = self._left(phase, broken, {key for key, error in errors.items() if error is None})
        for finding in findings:
            error = errors[finding.key] or left.get(finding.key)
            (self._failed.add if error else self._failed.discard)(finding.key)
            self.outcomes.append(Outcome(self.action(finding), finding.id, error is None, error))

    def _act(self, finding: Finding) -> str | None:
        try:
            self._fixes[finding.id].act(self._scene, finding)
        except (PrerequisiteMissing, Interrupted):
            raise
        except StackError as error:
            return self._scene.mask(error.message)
        except Exception as bug:
            _log.debug("the fix of %s crashed", finding.id, exc_info=True)
            return f"the fix crashed: {type(bug).__name__}: {self._scene.mask(str(bug))}"
        return None

    def _left(
        self, phase: Phase, broken: _Look, done: Collection[tuple[str, str | None, str]]
    ) -> dict[tuple[str, str | None, str], str]:
        """Look until every finding that something was done about is gone. Returns what is left, and why."""
        waited = [self._fixes[each.id].patience for some in broken.values() for each in some if each.key in done]
        deadline = time.monotonic() + max(waited, default=0)
        while True:
            self._scene.forget()
            again = self.look([phase])
            left: dict[tuple[str, str | None, str], str] = {}
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
            time.sleep(_PAUSE)


def _judge(context: CheckContext, question: _Question) -> list[Finding]:
    check, service = question.check, question.service
    found: list[list[Finding]] = []
    errors: list[Exception] = []

    def judge() -> None:
        try:
            found.append(question.judge(context))
        except Exception as error:
            errors.append(error)

    # A daemon: a check that never ends is left behind, and does not hold up the end of the run.
    thread = threading.Thread(target=judge, name=f"{check.id} {service}", daemon=True)
    thread.start()
    thread.join(_CHECK_LIMIT)
    if found:
        return [replace(each, evidence=context.mask(each.evidence)) for each in found[0]]
    if not errors:
        return [_late(context, check, service)]
    error = errors[0]
    if isinstance(error, NoAnswer):
        return [Finding(check.id, service, check.phase, "skip", "not asked: the service does not answer")]
    if isinstance(error, PrerequisiteMissing | Interrupted):
        raise error
    if isinstance(error, StackError):
        return [_unchecked(check, service, "warn", context.mask(error.message))]
    _log.debug("the check %s of %s crashed", check.id, service, exc_info=error)
    why = f"the check crashed: {type(error).__name__}: {context.mask(str(error))}"
    return [_unchecked(check, service, "warn", why)]


def _late(context: CheckContext, check: Check, service: str) -> Finding:
    """Return the finding about a check that took too long. Raises EngineUnreachable where the engine hangs."""
    if not context.engine.answers(within=_ENGINE_LIMIT):
        raise EngineUnreachable(f"the engine does not answer within {_ENGINE_LIMIT:.0f} s", "see `inv engine.check`")
    guessed = context.kinds.is_guess(service, check.id.partition(".")[0])
    # Whether a service answers is the question itself.
    status: Status = "skip" if guessed else "fail" if check.phase == "services" else "warn"
    return _unchecked(check, service, status, f"no answer within {_CHECK_LIMIT:.0f} s")


def _unchecked(check: Check, service: str, status: Status, why: str) -> Finding:
    return Finding(
        check.id,
        service,
        check.phase,
        status,
        f"{check.id} could not be checked",
        evidence=why,
        remedy="`inv --debug services.fixes` shows more",
    )


def _step(context: CheckContext, name: str, step: Callable[[], object], tell: Tell) -> Finding:
    """Run one step of the project's own. What it raises is a finding."""
    tell(f"run the step {name}")
    try:
        step()
    except Exception as error:
        why = context.mask(str(error) or type(error).__name__)
        return Finding(
            "fixes.step",
            None,
            "steps",
            "fail",
            f"the step {name} failed",
            why,
            f"`inv {name}` shows more",
            subject=name,
        )
    return Finding("fixes.step", None, "steps", "ok", f"the step {name} ran", subject=name)


def _flat(look: _Look) -> list[Finding]:
    return [finding for findings in look.values() for finding in findings]
