"""What a check is: one question about one service, answered with verdicts.

A check reads facts and changes nothing. The runner makes findings of its verdicts: it adds the check's id, the
service and the phase, so that a check says only what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.model import Finding, Fix, Status

__all__ = ["CannotAsk", "Check", "Fix", "NoAnswer", "Verdict", "fail", "ok", "skip", "warn"]


@dataclass(frozen=True)
class Verdict:
    """What a check says about one subject: a role, an index, a network, or "" for the service as a whole.

    `fix` puts it right; it is bound here, where the data is. `blames` names the services whose own failure would
    explain this one. `id` is set where the finding has another id than its check. `about_service` is False for a
    verdict about the project as a whole: a setting that names nothing, for one. `late` is True where more time might
    have changed it: the question is asked again.
    """

    status: Status
    summary: str
    evidence: str = ""
    remedy: str = ""
    subject: str = ""
    fix: Fix | None = None
    blames: tuple[str, ...] = ()
    id: str = ""
    about_service: bool = True
    late: bool = False

    def finding(self, check: Check, service: str) -> Finding:
        """Return the finding: this verdict with where it comes from."""
        return Finding(
            self.id or check.id,
            service if self.about_service else None,
            check.phase,
            self.status,
            self.summary,
            self.evidence,
            self.remedy,
            self.fix is not None,
            self.subject,
            fix=self.fix,
        )


@dataclass(frozen=True)
class Check:
    """One question about one service. `run` also yields a verdict when all is well, so that the result shows it."""

    id: str
    phase: str
    run: Callable[[CheckContext, str], Iterable[Verdict]]


def ok(summary: str, evidence: str = "", *, subject: str = "", id: str = "") -> Verdict:
    """All is well."""
    return Verdict("ok", summary, evidence, subject=subject, id=id)


def skip(summary: str, evidence: str = "", remedy: str = "", *, subject: str = "", id: str = "") -> Verdict:
    """It was not looked at, or could not be."""
    return Verdict("skip", summary, evidence, remedy, subject, id=id)


def warn(
    summary: str,
    evidence: str = "",
    remedy: str = "",
    *,
    subject: str = "",
    fix: Fix | None = None,
    blames: tuple[str, ...] = (),
    id: str = "",
) -> Verdict:
    """It works, and should not stay as it is."""
    return Verdict("warn", summary, evidence, remedy, subject, fix, blames, id)


def fail(
    summary: str,
    evidence: str = "",
    remedy: str = "",
    *,
    subject: str = "",
    fix: Fix | None = None,
    blames: tuple[str, ...] = (),
    id: str = "",
) -> Verdict:
    """It is broken."""
    return Verdict("fail", summary, evidence, remedy, subject, fix, blames, id)
