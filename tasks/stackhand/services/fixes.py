"""The post-startup fixes: which checks are asked after a start, and in which phases they are put right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from stackhand.checks import run as runner
from stackhand.checks.context import CheckContext, ServiceActions
from stackhand.checks.run import Steps, Tell
from stackhand.checks.suite import Limits, Suite
from stackhand.engine.api.client import Engine
from stackhand.engine.compose.project import Project
from stackhand.errors import FixFailed
from stackhand.kinds.postgres import migrations
from stackhand.kinds.registry import recognise
from stackhand.model import Finding, Plan, Report
from stackhand.output.redact import Redactor
from stackhand.services.actions import Actions
from stackhand.services.checks import attached, reach, ready, shared, stale_address, volumes, warm_up
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

# In this order: a database that nobody can log in to is fixed before its clients are judged by what they reach.
PHASES = ("services", "databases", "network", "caches", "tuning")
_MODULES = (ready, volumes, shared, attached, reach, stale_address, migrations, warm_up)
LIMITS = Limits()


def check_context(
    project: Project,
    engine: Engine,
    settings: Fixes,
    state: StateFolder,
    actions: Actions,
    redactor: Redactor,
    *,
    named: Collection[str] = (),
    dry: bool = False,
) -> CheckContext:
    """Return the context of the checks of a project; `named` are the services that a person named.

    Raises UnknownKind, BrokenKind.
    """
    return CheckContext(
        project,
        engine,
        recognise(project),
        settings,
        state,
        ServiceActions(actions.start, actions.restart, actions.recreate, actions.run_once, actions.renew_sharers),
        named=named,
        verified_healthy=actions.starter.records.proven,
        redact=redactor.text,
        register_secret=lambda secret: redactor.add([secret]),
        dry=dry,
    )


def raise_unless_ok(report: Report) -> None:
    """Raise FixFailed, with the first failure that is left."""
    if report.ok:
        return
    wrong = [finding for finding in report.findings if finding.status == "fail"]
    first, number = wrong[0], f"{len(wrong)} post-startup failure{'' if len(wrong) == 1 else 's'}"
    raise FixFailed(f"{number} left: {first.service or 'stack'}: {first.summary}", first.remedy or None)


def _suite() -> Suite:
    checks = tuple(check for module in _MODULES for check in module.CHECKS)
    return Suite("services.fixes", PHASES, checks, explaining=("databases", "network"), limits=LIMITS)


def run(
    context: CheckContext, names: Sequence[str], steps: Steps | None = None, tell: Tell = lambda text: None
) -> Report:
    """Check these services, fix what is wrong, then run the project's own steps. Raises as `checks.run.run`."""
    return runner.run(context, names, _suite(), steps, tell)


def plan(context: CheckContext, names: Sequence[str], steps: Iterable[str] = ()) -> tuple[Plan, tuple[Finding, ...]]:
    """Return what a run would do now, and the findings that it could do nothing about."""
    return runner.plan(context, names, _suite(), steps)
