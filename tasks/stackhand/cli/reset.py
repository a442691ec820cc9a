"""The task `services.reset`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from stackhand.cli.confirm import agreed
from stackhand.cli.outcome import RunOutcome
from stackhand.cli.render import services as render
from stackhand.cli.services import fixes_after_start
from stackhand.cli.task import task
from stackhand.context import Stack
from stackhand.errors import ApprovalNeeded, BadArgument

if TYPE_CHECKING:
    from stackhand.services.reset.plan import Item, Reset


@task(
    post=[fixes_after_start],
    help={
        "soft": "keep every volume that is not surely a cache; the label stackhand.keep says otherwise",
        "full": "remove everything of this project, its data included",
    },
)
def reset(
    c: Context,
    soft: bool = False,
    full: bool = False,
    yes: bool = False,
    no_fixes: bool = False,
    json: bool = False,
) -> None:
    """Remove containers, networks and volumes of this project, and start again; asks first."""
    from stackhand.services.reset.run import Resetter

    if soft == full:
        raise BadArgument("services.reset takes either --soft or --full", "--soft keeps the data, --full removes it")
    stack = Stack.of(c)
    resetter = Resetter(stack.loader, stack.engine, stack.state, stack.starter)
    plan = resetter.plan("full" if full else "soft")
    render.resumed(stack, plan)
    if stack.dry:
        render.dry(stack, plan.plan(), json=json)
        return
    render.reset(stack, plan, aside=json)
    if plan.going and not agreed(stack.console, _question(plan), yes=yes):
        raise ApprovalNeeded("not agreed to: nothing was removed")
    removed: list[Item] = []
    outcome = RunOutcome.of(stack)
    if json:
        outcome.set_document(lambda: _document(plan, removed))
    with render.live(stack):
        report = resetter.run(plan, stack.display.update, removed.extend)
    if not json:
        render.removed(stack, plan, removed)
        render.start(stack, report)
    outcome.started(report, fix=() if no_fixes else plan.names)


def _question(plan: Reset) -> str:
    what = "everything of this project, its data included" if plan.mode == "full" else "what goes"
    return f"remove {what}, and start {plan.project} again?"


def _document(plan: Reset, removed: Sequence[Item]) -> dict[str, Any]:
    return {
        "mode": plan.mode,
        "removed": [item.to_json() for item in removed],
        "kept": [item.to_json() for item in plan.staying],
    }
