"""The tasks of the namespace `engine`: is there an engine, and installing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from stackhand.cli.confirm import agreed, can_ask
from stackhand.cli.render import engine as render
from stackhand.cli.task import task
from stackhand.context import Stack
from stackhand.output.pulse import ProgressTicker

if TYPE_CHECKING:
    from stackhand.model import Plan


@task()
def check(c: Context, json: bool = False) -> None:
    """Say whether engine, Compose plugin and socket are usable, and which versions and how much disk."""
    from stackhand.install.check import observe

    stack = Stack.of(c)
    console, seen = stack.console, observe(stack.commands, stack.environ)
    if json:
        console.document(seen.to_json())
    else:
        render.findings(console, seen)
    if seen.error:
        raise seen.error


@task()
def install(c: Context, yes: bool = False, json: bool = False) -> None:
    """Install and start an engine with Compose v2 from the distribution's packages, where there is none."""
    from stackhand.install.decide import ensure

    stack = Stack.of(c)
    console = stack.console

    def become_root(plan: Plan) -> bool:
        from stackhand.engine.host.sudo import rerun_with_sudo

        for action in plan.actions:
            console.progress("info", render.describe(action))
        why = "this needs root"
        approved = agreed(console, f"{why}; go on with sudo?", yes=yes, why=why, hint="run it as root, or with --yes")
        return approved and rerun_with_sudo(stack.environ, may_prompt=can_ask(console))

    result = ensure(
        stack.commands,
        stack.environ,
        dry=stack.dry,
        become_root=become_root,
        on_action=lambda action: console.progress("wait", render.describe(action)),
        on_line=ProgressTicker(console),
    )
    if json:
        console.document(result.to_json())
    else:
        render.installed(console, result, dry=stack.dry)
