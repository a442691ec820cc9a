"""What decisions are made of: findings, actions, plans and outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "warn", "fail", "skip"]
# What a fix does to the service, the weaker first. The weaker ones of a service are tried before the stronger ones.
Strength = Literal["reload", "restart", "recreate", "dependency"]
STRENGTHS: tuple[Strength, ...] = ("reload", "restart", "recreate", "dependency")


class Key(NamedTuple):
    """What a finding is about, from one look to the next. `subject` tells findings of one check and service apart."""

    id: str
    service: str | None
    subject: str


@dataclass(frozen=True)
class Fix:
    """How one finding is put right.

    `does` is the beginning of a sentence that ends with the service: "create the role app in". `act` does it, and
    raises StackError where it cannot. `settle` is how many seconds the check may take to come out well afterwards.
    """

    does: str
    act: Callable[[], None]
    strength: Strength = "reload"
    settle: float = 5.0


@dataclass(frozen=True)
class Finding:
    """What one check saw: its verdict, the evidence for it, and what to do about it.

    `id` names the check and stays the same from run to run (`network.attached`); `subject` tells findings of one
    check and service apart: a role, an index, a network. `fixable` says that stackhand itself can put it right.
    `caused_by` is the finding that explains this one: with that put right, this one should be gone.
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
        """What this finding is about, whatever was seen of it."""
        return Key(self.id, self.service, self.subject)

    @property
    def to_fix(self) -> bool:
        """Whether something is wrong here that stackhand can put right."""
        return self.fixable and self.status in ("fail", "warn")

    def to_json(self) -> dict[str, Any]:
        """Return the finding as the command-line contract has it."""
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
    """One thing to do to one service, and why.

    With `force`, a container is made anew although its configuration is the same.
    """

    service: str
    verb: str
    cause: str
    arguments: tuple[str, ...] = ()
    force: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.service}".rstrip() + f": {self.cause}"


@dataclass(frozen=True)
class Plan:
    """What will be done, in order. Empty when there is nothing to do."""

    actions: tuple[Action, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.actions)


@dataclass(frozen=True)
class Outcome:
    """What became of one action. `error` is None when it was done and seen to be done."""

    action: Action
    finding: str
    ok: bool
    error: str | None = None

    def to_json(self, number: int) -> dict[str, Any]:
        """Return the outcome as an entry of `fixes` in the contract's JSON."""
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
    """The findings of a run, and what was done about them."""

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
        """Return the report as the command-line contract has it."""
        return {
            "ok": self.ok,
            "findings": [finding.to_json() for finding in self.findings],
            "fixes": [outcome.to_json(number) for number, outcome in enumerate(self.outcomes, start=1)],
            "before": self.before,
            "after": count_by_status(self.findings),
        }


def count_by_status(findings: tuple[Finding, ...]) -> dict[str, int]:
    """Return how many findings there are of each status, every status present.

    >>> count_by_status(())
    {'ok': 0, 'warn': 0, 'fail': 0, 'skip': 0}
    """
    counts = {"ok": 0, "warn": 0, "fail": 0, "skip": 0}
    for finding in findings:
        counts[finding.status] += 1
    return counts
