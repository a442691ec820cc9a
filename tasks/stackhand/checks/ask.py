"""Asks questions, each of which is one check of one service, in time.

Time limits are decided here. They are made for a machine that has time: a kind says how long an answer usually takes
at most, and passes that through `CheckContext.within`. What got no answer in time is asked again, alone and with more
time; if the machine has too much to do even for that, nothing is known. A check that crashes gives a verdict, too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from stackhand.checks.check import Check, Verdict
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import NoAnswer, time_ran_out
from stackhand.checks.kind import Kind
from stackhand.checks.suite import Suite
from stackhand.engine.api.containers import Container
from stackhand.errors import EngineUnreachable, Interrupted, PrerequisiteMissing, StackError
from stackhand.graph import schedule
from stackhand.graph.slots import EXECS_AT_ONCE
from stackhand.model import Status

# Where `inv --debug` looks.
_log = logging.getLogger("invoke")
# Questions that are asked at once. Most of the time they wait: for a slot to run a program (`CheckContext.ask`), for
# facts that another one asks for, for an answer.
_AT_ONCE = 8 * EXECS_AT_ONCE
_LATER = "ask again when the machine has less to do, or find out what keeps it busy: `top`, `docker stats`"

Answers = dict["Question", list[Verdict]]


@dataclass(frozen=True)
class Question:
    """One check of one service, or of one `container` of several. Two with the same id and place are the same."""

    id: str
    service: str
    check: Check = field(compare=False)
    container: Container | None = field(default=None, compare=False)
    place: str = ""

    def ask(self, context: CheckContext) -> list[Verdict]:
        """Ask it. A verdict about one container of several has its name for a subject."""
        if self.container is None:
            return list(self.check.run(context, self.service))
        verdicts = self.check.run(context.for_container(self.container), self.service)
        return [replace(each, subject=self.place, summary=f"{self.place}: {each.summary}") for each in verdicts]


def questions(context: CheckContext, names: Sequence[str], suite: Suite, phases: Collection[str]) -> list[Question]:
    """Return all questions about these services in these phases. A service is asked as its kinds are while it runs."""
    found: list[Question] = []
    for service in names:
        found += [Question(check.id, service, check) for check in suite.checks]
        running = [each for each in context.containers() if each.service == service and each.running]
        kinds: Sequence[Kind[object]] = context.kinds.of(service) if suite.kinds and running else ()
        for kind in kinds:
            if kind.every_container and len(running) > 1:
                found += [Question(c.id, service, c, one, one.name) for one in running for c in kind.checks()]
            else:
                found += [Question(check.id, service, check) for check in kind.checks()]
    return [question for question in found if question.check.phase in phases]


class Asker:
    """Asks the questions of one run. Remembers which are late with more time, too, on a machine that is not busy."""

    def __init__(self, context: CheckContext, suite: Suite) -> None:
        self._context = context
        self._suite = suite
        self._surely_late: set[Question] = set()

    def ask(self, asked: Sequence[Question]) -> Answers:
        """Ask all questions side by side, and those again that got no answer in time. Raises as `answer`."""
        found = self._side_by_side(self._context, asked)
        late = [each for each in asked if _is_late(found[each]) and each not in self._surely_late]
        return found | self._ask_again(late) if late else found

    def forget(self) -> None:
        """Forget what is known of late answers: something was changed."""
        self._surely_late.clear()

    def _ask_again(self, late: Sequence[Question]) -> Answers:
        """Ask again with more time, one question after another.

        One that is late even so, on a machine that has time, is late by itself; so the others are asked side by side
        again. With one after another, a network that is down would keep a large stack waiting for minutes.
        """
        self._context.invalidate()
        patient = self._context.with_more_time(self._suite.limits.stretch)
        found: Answers = {}
        waiting = list(late)
        while waiting and not self._surely_late.intersection(found):
            found |= self._judged({waiting[0]: answer(patient, waiting.pop(0), self._suite)})
        return found | self._judged(self._side_by_side(patient, waiting))

    def _side_by_side(self, context: CheckContext, asked: Sequence[Question]) -> Answers:
        work = {str(number): partial(answer, context, each, self._suite) for number, each in enumerate(asked)}
        answers = schedule.gather(work, workers=_AT_ONCE)
        return {each: answers[str(number)] for number, each in enumerate(asked)}

    def _judged(self, answers: Answers) -> Answers:
        """Return the answers of a second look, in which what is late on a busy machine becomes `not asked in time`."""
        late = [each for each, verdicts in answers.items() if _is_late(verdicts)]
        why = self._context.overload() if late else ""
        if not why:
            self._surely_late.update(late)
            return answers
        return {each: [_not_asked_in_time(v, why) if v.late else v for v in said] for each, said in answers.items()}


def _is_late(verdicts: Iterable[Verdict]) -> bool:
    return any(each.late for each in verdicts)


def _not_asked_in_time(verdict: Verdict, why: str) -> Verdict:
    said = f"{verdict.summary}; {verdict.evidence}" if verdict.evidence else verdict.summary
    return replace(
        verdict,
        status="skip",
        summary="not asked in time",
        evidence=f"the machine has too much to do: {why}; so this proves nothing: {said}",
        remedy=_LATER,
        fix=None,
        late=False,
    )


def answer(context: CheckContext, question: Question, suite: Suite) -> list[Verdict]:
    """Return the verdicts of one question.

    Raises PrerequisiteMissing where nothing can be asked at all, and Interrupted.
    """
    answers: list[list[Verdict]] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question.ask(context))
        except Exception as error:
            errors.append(error)

    check, service = question.check, question.service
    # A daemon: a check that never ends is left behind, and does not hold up the end of the run.
    thread = threading.Thread(target=ask, name=f"{check.id} {service}", daemon=True)
    thread.start()
    thread.join(context.within(suite.limits.check))
    if answers:
        return [_with_lateness(each) for each in answers[0]]
    return [_failed(check, service, errors[0]) if errors else _late(context, check, service, suite)]


def _with_lateness(verdict: Verdict) -> Verdict:
    """Return a verdict which knows that it is late where its evidence says that the time ran out."""
    told = verdict.status in ("warn", "fail") and time_ran_out(verdict.evidence or verdict.summary)
    return replace(verdict, late=True) if told else verdict


def _failed(check: Check, service: str, error: Exception) -> Verdict:
    """Return the verdict of a check that raised an error."""
    if isinstance(error, NoAnswer):
        return Verdict("skip", "not asked: the service does not answer", late=error.late)
    if isinstance(error, PrerequisiteMissing | Interrupted):
        raise error
    if isinstance(error, StackError):
        return _unchecked(check, "warn", error.message)
    _log.debug("the check %s of %s crashed", check.id, service, exc_info=error)
    return _unchecked(check, "warn", f"the check crashed: {type(error).__name__}: {error}")


def _late(context: CheckContext, check: Check, service: str, suite: Suite) -> Verdict:
    """Return the verdict of a check that took too long. Raises EngineUnreachable where the engine hangs."""
    limits = suite.limits
    if not context.engine.answers(within=limits.engine):
        raise EngineUnreachable(f"the engine does not answer within {limits.engine:.0f} s", "see `inv engine.check`")
    guessed = context.kinds.is_guess(service, check.id.partition(".")[0])
    # Whether a service answers is the question itself.
    status: Status = "skip" if guessed else "fail" if check.phase == suite.phases[0] else "warn"
    return replace(_unchecked(check, status, f"no answer within {context.within(limits.check):.0f} s"), late=True)


def _unchecked(check: Check, status: Status, why: str) -> Verdict:
    return Verdict(status, f"{check.id} could not be checked", why, "`inv --debug services.fixes` shows more")
