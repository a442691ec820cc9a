"""Asks before a run changes containers that were made from another folder with the same project name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stackhand.cli.confirm import agreed
from stackhand.context import Stack

if TYPE_CHECKING:
    from stackhand.errors import OtherFolder
    from stackhand.services.origin import Takeover


def ask_to_take_over(stack: Stack, *, yes: bool | None = None) -> Takeover:
    """Have a person asked, and return who asks; `yes` is the answer beforehand.

    Where it is None, the command line is looked at: a main task's flags do not reach its pre-tasks.
    """
    said = any(flag in sys.argv[1:] for flag in ("--yes", "-y")) if yes is None else yes

    def ask(error: OtherFolder) -> None:
        with stack.lock, stack.display.paused():
            question, hint = f"{error.message}; go on here?", error.hint or ""
            if not agreed(stack.console, question, yes=said, why=error.message, hint=hint):
                raise error

    takeover = stack.actions.takeover
    takeover.ask = ask
    return takeover
