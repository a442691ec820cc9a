"""The tasks of the namespace `perms`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.parser.argument import Argument

from stackhand.cli.confirm import agreed
from stackhand.cli.render import perms as report
from stackhand.cli.task import StackTask, task
from stackhand.context import Stack
from stackhand.errors import PermissionsWrong

if TYPE_CHECKING:
    from stackhand.perms.context import PermsContext

_TELL_EVERY = 2.0
# An argument that is meant as the id of a run, whether there is such a run or not: no task begins with a digit.
_ID = re.compile(r"\d[\w.-]*")
_HELP = {"owner": "user[:group] that the files shall belong to"}


@task(help=_HELP)
def check(c: Context, owner: str | None = None, json: bool = False) -> None:
    """Say what is wrong with owners and modes in the project; exit 1 when something is."""
    stack = Stack.of(c)
    settings, context = stack.settings.perms, _context(stack, ahead=True)
    from stackhand.perms.run import check_project

    result = check_project(context, settings, owner)
    report.print_result(stack, result, json=json, intro="Checking file permissions", show=report.show_check)
    if not result.ok:
        raise PermissionsWrong(f"{report.wrong_in(result)} in {context.root}", report.what_helps(result, owner))


@task(
    help={
        **_HELP,
        "volume": "give a volume's files to --owner UID:GID, instead of the project's",
    }
)
def fix(c: Context, owner: str | None = None, volume: str | None = None, yes: bool = False, json: bool = False) -> None:
    """Put owners and modes of the project's files right."""
    stack = Stack.of(c)
    if volume is not None:
        _fix_volume(stack, volume, owner, yes=yes, json=json)
        return
    settings, context = stack.settings.perms, _context(stack, ahead=True)
    from stackhand.perms.run import fix_project

    result = fix_project(context, settings, owner)
    if stack.dry:
        report.print_result(stack, result, json=json, intro="Fixing file permissions (dry run)", show=report.show_dry)
        return
    report.print_result(stack, result, json=json, intro="Fixing file permissions", show=report.show_fix)
    if not result.ok:
        raise PermissionsWrong(f"left as it was: {report.wrong_in(result)}", report.what_is_left(result, owner))


def _fix_volume(stack: Stack, name: str, owner: str | None, *, yes: bool, json: bool) -> None:
    from stackhand.perms.volume import fix_volume

    def agree(why: str) -> bool:
        return agreed(stack.console, f"{why}; go on?", yes=yes, why=why)

    access, result = fix_volume(_context(stack), name, owner, agree)
    how = "" if access.folder else " (through a helper container)"
    show = report.show_dry if stack.dry else report.show_volume
    report.print_result(
        stack, result, json=json, intro=f"Fixing the owner of volume {access.volume.name}{how}", show=show
    )
    if not stack.dry and not result.ok:
        raise PermissionsWrong(f"left as it was: {report.wrong_in(result)}", "each is named above, with the reason")


class _UndoTask(StackTask):
    """A task whose run may be named by `--id ID` or by ID alone."""

    def get_arguments(self, *args: Any, **kwargs: Any) -> list[Argument]:
        arguments: list[Argument] = super().get_arguments(*args, **kwargs)
        # Invoke requires every positional argument. So ID is one only where the command line has a word that looks so.
        named = any(
            before != "--id" and _ID.fullmatch(word) for before, word in zip(sys.argv, sys.argv[1:], strict=False)
        )
        for argument in arguments:
            argument.positional = argument.name == "id" and named
        return arguments


def _undo(c: Context, id: str | None = None, json: bool = False) -> None:
    """Put back owners and modes that a run of perms.fix changed: the last one, or the one named."""
    from stackhand.perms.undo import undo_run

    stack = Stack.of(c)
    result = undo_run(_context(stack), id)
    report.show_undo(stack, result, json=json)
    if result.stopped is not None:
        raise result.stopped
    if not result.ok:
        raise PermissionsWrong(f"{result.failed:,} of the entries could not be put back", "each is named above")


undo = _UndoTask(
    _undo,
    name="undo",
    help={"id": "the run to undo, as perms.fix named it", "json": "print one JSON document on stdout"},
)


def _context(stack: Stack, *, ahead: bool = False) -> PermsContext:
    """Return what the perms tasks work with. With `ahead`, Compose is asked at once, while the rest is loaded.

    Compose is the slowest of all that is asked. Meanwhile the rest of the stack can be used: only what needs the
    project waits for it.
    """
    from stackhand.perms.context import PermsContext, read_ahead

    return PermsContext(
        stack.state,
        stack.environ,
        stack.directory,
        stack.commands,
        read_ahead(lambda: stack.project) if ahead else lambda: stack.project,
        lambda: stack.engine,
        _progress(stack),
        stack.dry,
    )


def _progress(stack: Stack) -> Callable[[int], None]:
    """Return a function that says now and then how many entries have been looked at."""
    last = time.monotonic()

    def tell(entries: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _TELL_EVERY:
            last = time.monotonic()
            stack.console.progress("wait", f"{entries:,} entries looked at")

    return tell
