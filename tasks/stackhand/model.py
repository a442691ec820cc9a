"""The data that decisions consist of: findings, actions, plans, outcomes and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "warn", "fail", "skip"]
# What a fix does to the service, weakest first. Weaker fixes of a service are tried before stronger ones.
Strength = Literal["reload", "restart", "recreate", "dependency"]
STRENGTHS: tuple[Strength, ...] = ("reload", "restart", "recreate", "dependency")


class Key(NamedTuple):
    """The identity of a finding. `subject` distinguishes findings of the same check and service."""

    id: str
    service: str | None
    subject: str


@dataclass(frozen=True)
class Fix:
    """A fix for one finding.

    `does` says what it does, in words that end before the service's name: "create the role app in". `act` does it, and
    raises StackError if it cannot. Afterwards, the check may take `settle` seconds to pass.
    """

    does: str
    act: Callable[[], None]
    strength: Strength = "reload"
    settle: float = 5.0


@dataclass(frozen=True)
class Finding:
    """The result of a check: its status, the evidence, and what to do about it.

    `id` names the check and never changes (`network.attached`). `subject` distinguishes findings of the same check and
    service: a role, an index, a network. `fixable` says that stackhand itself can fix it. `caused_by` is the finding
    that explains this one: once that one is fixed, this one should be gone.
    """

    id: str
    service: str | None
    phase: str
    status: Status
    summary: str
    evidence: str = ""
    remedy: str = ""
    fixable: bool = False
    subject: str = ""
    caused_by: Key | None = None
    fix: Fix | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> Key:
        """The identity of the finding: check, service and subject, without its status."""
        return Key(self.id, self.service, self.subject)

    @property
    def to_fix(self) -> bool:
        """Whether something is wrong that stackhand can fix."""
        return self.fixable and self.status in ("fail", "warn")

    def to_json(self) -> dict[str, Any]:
        """Return the finding as it stands in JSON."""
        return {
            "id": self.id,
            "service": self.service,
            "phase": self.phase,
            "status": self.status,
            "summary": self.summary,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "fixable": self.fixable,
            "subject": self.subject,
            "caused_by": self.caused_by._asdict() if self.caused_by else None,
        }


@dataclass(frozen=True)
class Action:
    """One thing to do to one service, and its cause.

    With `force`, a container is recreated even if its configuration is the same. Where it is not `certain`, it may turn
    out that nothing has to be done.
    """

    service: str
    verb: str
    cause: str
    arguments: tuple[str, ...] = ()
    force: bool = False
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.verb} {self.service}".rstrip() + f": {self.cause}"


@dataclass(frozen=True)
class Plan:
    """The actions to take, in order. It is empty if there is nothing to do."""

    actions: tuple[Action, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)


@dataclass(frozen=True)
class Outcome:
    """The result of one action. `error` is None if a look afterwards confirmed the action."""

    action: Action
    finding: str
    ok: bool
    error: str | None = None

    def to_json(self, number: int) -> dict[str, Any]:
        """Return the outcome as an entry of `fixes` in JSON."""
        return {
            "id": str(number),
            "finding": self.finding,
            "action": str(self.action),
            "applied": True,
            "ok": self.ok,
            "error": self.error,
        }


@dataclass(frozen=True)
class Report:
    """The findings of a run, the outcomes of its fixes, and how many findings of each status there were `before`."""

    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...] = ()
    before: dict[str, int] = field(default_factory=dict)
    # The phases in their order.
    phases: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no finding is `fail`."""
        return not any(finding.status == "fail" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {
            "ok": self.ok,
            "findings": [finding.to_json() for finding in self.findings],
            "fixes": [outcome.to_json(number) for number, outcome in enumerate(self.outcomes, start=1)],
            "before": self.before,
            "after": count_by_status(self.findings),
        }


def count_by_status(findings: tuple[Finding, ...]) -> dict[str, int]:
    """Return the number of findings of each status; every status is present.

    >>> count_by_status(())
    {'ok': 0, 'warn': 0, 'fail': 0, 'skip': 0}
    """
    counts = {"ok": 0, "warn": 0, "fail": 0, "skip": 0}
    for finding in findings:
        counts[finding.status] += 1
    return counts
