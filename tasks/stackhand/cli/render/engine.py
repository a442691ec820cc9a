"""How the engine's check and its installation look to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackhand.install.check import Observation
    from stackhand.install.decide import Result
    from stackhand.model import Action
    from stackhand.output.console import Console


def installed(console: Console, result: Result, *, dry: bool) -> None:
    """Write what was done or, with `dry`, would be done, and how the engine is now."""
    if dry and result.actions:
        for action in result.actions:
            console.result(f"would {describe(action)}")
        return
    if not result.actions:
        console.result("nothing to do: the engine is usable")
    findings(console, result.seen)


def findings(console: Console, seen: Observation) -> None:
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
