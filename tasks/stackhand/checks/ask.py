"""Asks one question, which is one check of one service, in time. A check that crashes gives a verdict, too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from stackhand.checks.check import Check, Verdict
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import NoAnswer
from stackhand.checks.kind import Kind
from stackhand.checks.suite import Suite
from stackhand.engine.api.containers import Container
from stackhand.errors import EngineUnreachable, Interrupted, PrerequisiteMissing, StackError
from stackhand.model import Status

# Where `inv --debug` looks.
_log = logging.getLogger("invoke")


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
    thread.join(suite.limits.check)
    if answers:
        return answers[0]
    return [_failed(check, service, errors[0]) if errors else _late(context, check, service, suite)]


def _failed(check: Check, service: str, error: Exception) -> Verdict:
    """Return the verdict of a check that raised an error."""
    if isinstance(error, NoAnswer):
        return Verdict("skip", "not asked: the service does not answer")
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
    return _unchecked(check, status, f"no answer within {limits.check:.0f} s")


def _unchecked(check: Check, status: Status, why: str) -> Verdict:
    return Verdict(status, f"{check.id} could not be checked", why, "`inv --debug services.fixes` shows more")
