"""The task `services.restart`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invoke.context import Context
from invoke.tasks import Task

from stackhand.cli.render import services as render
from stackhand.cli.services import fail_unless_ready, fixes_after_start
from stackhand.cli.task import number, task
from stackhand.context import Stack
from stackhand.errors import BadArgument, NoDashboard

_DASHBOARD = "watch.dashboard"


@task()
def dashboard_after_restart(c: Context) -> None:
    """Open the dashboard where that was asked for (the last post-task of the restart)."""
    dashboard = _dashboard()
    if Stack.of(c).to_watch and dashboard:
        dashboard(c)


@task(
    iterable=["service"],
    post=[fixes_after_start, dashboard_after_restart],
    help={
        "service": "only this service, also where nothing changed (may be repeated)",
        "watch": "open the dashboard afterwards",
    },
)
def restart(
    c: Context,
    service: list[str] | None = None,
    timeout: str | None = None,
    no_fixes: bool = False,
    watch: bool = False,
    json: bool = False,
) -> None:
    """Rebuild and restart just what changed, and what asks to follow it; data stays."""
    from stackhand.engine.compose.files import variables
    from stackhand.services.restart.run import Restarter

    stack = Stack.of(c)
    limit = number("timeout", timeout)
    if watch:
        _check_dashboard(json)
    stack.prefetch()
    names = stack.select(service or [])
    stack.starter.configure(timeout=limit)
    environ = variables(stack.directory, stack.environ)
    restarter = Restarter(stack.starter, stack.state, environ, stack.engine.read_file)
    if stack.dry:
        render.dry(stack, restarter.plan(names, service or []), json=json, idle="nothing changed")
        return
    changed: list[dict[str, str]] = []
    if json:
        stack.due(lambda: {**stack.start_document(), "changed": changed})

    def found(changes: Sequence[tuple[str, str]]) -> None:
        changed[:] = [{"service": name, "cause": cause} for name, cause in changes]
        render.changes(stack, changes)

    with render.live(stack, kept=False):
        done = restarter.run(names, service or [], found)
    stack.start_report = done.report
    changed[:] = done.to_json()
    if not json:
        render.restart(stack, done)
    fail_unless_ready(done.report)
    if done.report.changed and not no_fixes:
        stack.to_fix = [record.name for record in done.report.services]
    stack.to_watch = watch


def _check_dashboard(json: bool) -> None:
    if json:
        raise BadArgument("--watch shows the dashboard and --json prints a document: only one of them is possible")
    if _dashboard() is None:
        raise NoDashboard(
            "--watch opens the dashboard, and this version has none yet",
            "without --watch the restart works; `inv services.status` shows how every service is",
        )


def _dashboard() -> Task[Any] | None:
    """Return the task that shows the dashboard, where this version has it."""
    from stackhand.cli.namespace import ns

    return ns[_DASHBOARD] if _DASHBOARD in ns.task_names else None
