"""The task `services.restart`."""

from __future__ import annotations

from collections.abc import Sequence

from invoke.context import Context

from stackhand.cli.outcome import RunOutcome
from stackhand.cli.render import services as render
from stackhand.cli.services import fixes_after_start, prefetch
from stackhand.cli.take_over import ask_to_take_over
from stackhand.cli.task import number, task
from stackhand.context import Stack


@task(
    iterable=["service"],
    post=[fixes_after_start],
    help={"service": "only this service, also where nothing changed (may be repeated)"},
)
def restart(
    c: Context,
    service: list[str] | None = None,
    timeout: str | None = None,
    no_fixes: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Rebuild and restart just what changed, and what asks to follow it; data stays."""
    from stackhand.engine.compose.files import variables
    from stackhand.services.restart.run import Restarter

    stack = Stack.of(c)
    limit = number("timeout", timeout)
    prefetch(stack)
    names = stack.loader.select(service or [])
    stack.starter.configure(timeout=limit)
    environ = variables(stack.directory, stack.environ)
    restarter = Restarter(stack.starter, stack.state, environ, stack.engine.read_file)
    if stack.dry:
        render.dry(stack, restarter.plan(names, service or []), json=json, idle="nothing changed")
        return
    changed: list[dict[str, str]] = []
    outcome = RunOutcome.of(stack)
    if json:
        outcome.set_document(lambda: {"changed": changed})

    def on_changes(changes: Sequence[tuple[str, str]]) -> None:
        changed[:] = [{"service": name, "cause": cause} for name, cause in changes]
        render.changes(stack, changes)

    ask_to_take_over(stack, yes=yes)
    with render.live(stack, kept=False):
        done = restarter.run(names, service or [], on_changes)
    changed[:] = done.to_json()
    if not json:
        render.restart(stack, done)
    restarted = [record.name for record in done.report.services] if done.report.changed else []
    outcome.started(done.report, fix=() if no_fixes else restarted)
