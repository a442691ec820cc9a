"""Checks that still return findings, and fixes that are found by id: adapted to verdicts until they are rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stackhand import model
from stackhand.checks import check as new
from stackhand.model import Finding

if TYPE_CHECKING:
    from stackhand.checks.context import CheckContext


@dataclass(frozen=True)
class Check:
    """One question about one service, answered with findings."""

    id: str
    phase: str
    judge: Callable[[CheckContext, str], Iterable[Finding]]


@dataclass(frozen=True)
class Fix:
    """How the findings of one id are put right."""

    does: str
    act: Callable[[CheckContext, Finding], None]
    patience: float = 5.0


def adapted(checks: Sequence[Any], fixes: Mapping[str, Fix]) -> list[new.Check]:
    """Return checks that yield verdicts."""
    return [_adapted(each, fixes) if isinstance(each, Check) else each for each in checks]


def _adapted(check: Check, fixes: Mapping[str, Fix]) -> new.Check:
    def run(context: CheckContext, service: str) -> Iterable[new.Verdict]:
        for one in check.judge(context, service):
            fix = fixes.get(one.id) if one.fixable else None
            bound = None
            if fix:
                does = fix.does.format(subject=one.subject)
                bound = model.Fix(does, partial(fix.act, context, one), settle=fix.patience)
            yield new.Verdict(one.status, one.summary, one.evidence, one.remedy, one.subject, bound, id=one.id)

    return new.Check(check.id, check.phase, run)
