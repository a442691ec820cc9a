"""The post-startup fixes: which checks are asked after a start, and in which phases they are put right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stackhand.checks import run as runner
from stackhand.checks.context import CheckContext
from stackhand.checks.run import Steps, Tell
from stackhand.checks.suite import Limits, Suite
from stackhand.kinds.postgres import migrations
from stackhand.model import Finding, Plan, Report
from stackhand.services.checks import attached, reach, ready, stale_address, warm_up

# In this order: a database that nobody can log in to is fixed before its clients are judged by what they reach.
PHASES = ("services", "databases", "network", "caches", "tuning")
_MODULES = (ready, attached, reach, stale_address, migrations, warm_up)
LIMITS = Limits()


def _suite() -> Suite:
    checks = tuple(check for module in _MODULES for check in module.CHECKS)
    return Suite("services.fixes", PHASES, checks, limits=LIMITS)


def run(
    context: CheckContext, names: Sequence[str], steps: Steps | None = None, tell: Tell = lambda text: None
) -> Report:
    """Check these services, fix what is wrong, then run the project's own steps. Raises as `checks.run.run`."""
    return runner.run(context, names, _suite(), steps, tell)


def plan(context: CheckContext, names: Sequence[str], steps: Iterable[str] = ()) -> tuple[Plan, tuple[Finding, ...]]:
    """Return what a run would do now, and the findings that it could do nothing about."""
    return runner.plan(context, names, _suite(), steps)
