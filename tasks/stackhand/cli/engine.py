"""engine.*: is there an engine, and getting one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from invoke.context import Context

from stackhand.cli.task import task
from stackhand.context import Stack
from stackhand.errors import ApprovalNeeded
from stackhand.output.pulse import ProgressTicker

if TYPE_CHECKING:
    from stackhand.install.check import Observation
    from stackhand.model import Action, Plan
    from stackhand.output.console import Console


@task()
def check(c: Context, json: bool = False) -> None:
    """Say whether engine, Compose plugin and socket are usable, and which versions and how much disk."""
    from stackhand.install.check import observe

    stack = Stack.of(c)
    seen = observe(stack.commands, stack.environ)
    if json:
        stack.console.document(seen.to_json())
    else:
        show(stack.console, seen)
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
            console.progress("info", describe(action))
        terminal = sys.stdin.isatty() and console.stderr.isatty()
        if not yes and not terminal:
            raise ApprovalNeeded("this needs root, and there is nobody to ask", "run it as root, or with --yes")
        agreed = yes or (terminal and _agreed("this needs root; go on with sudo? [y/N]"))
        return agreed and rerun_with_sudo(stack.environ, may_prompt=terminal)

    result = ensure(
        stack.commands,
        stack.environ,
        dry=stack.dry,
        become_root=become_root,
        on_action=lambda action: console.progress("wait", describe(action)),
        on_line=ProgressTicker(console),
    )
    if json:
        console.document(result.to_json())
    elif stack.dry and result.actions:
        for action in result.actions:
            console.result(f"would {describe(action)}")
    else:
        if not result.actions:
            console.result("nothing to do: the engine is usable")
        show(console, result.seen)


def show(console: Console, seen: Observation) -> None:
    """Write the findings, one line each, with what to do about those that are not ok."""
    from stackhand.install.check import evaluate

    for finding in evaluate(seen):
        evidence = f"  ({finding.evidence})" if finding.evidence else ""
        console.result(f"{console.symbol(finding.status, console.stdout)} {finding.summary}{evidence}")
        if finding.status == "warn" and finding.remedy:
            console.result(f"  {finding.remedy}")


def describe(action: Action) -> str:
    """Return an action in words: `install docker.io, iptables: there is no engine`."""
    words = ", ".join(action.arguments) if action.verb == "install" and action.arguments else action.service
    return f"{action.verb} {words}: {action.cause}"


def _agreed(question: str) -> bool:
    # On stderr, as stdout is for results.
    sys.stderr.write(f"{question} ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
