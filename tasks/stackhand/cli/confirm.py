"""The one yes-or-no question that a task may ask."""

from __future__ import annotations

import sys

from stackhand.errors import ApprovalNeeded
from stackhand.output.console import Console


def can_ask(console: Console) -> bool:
    """Return whether somebody sits at a terminal."""
    return sys.stdin.isatty() and console.stderr.isatty()


def agreed(
    console: Console,
    question: str,
    *,
    yes: bool,
    why: str = "this needs a yes",
    hint: str = "say it beforehand, with --yes",
) -> bool:
    """Return whether the answer is yes: beforehand with `yes`, or on the terminal.

    Raises ApprovalNeeded without a terminal: `why` somebody has to be asked, and a `hint` how to do without.
    """
    if yes:
        return True
    if not can_ask(console):
        raise ApprovalNeeded(f"{why}, and there is nobody to ask", hint)
    console.question(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
