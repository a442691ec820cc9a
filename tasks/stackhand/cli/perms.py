"""The tasks of the namespace `perms`."""

from __future__ import annotations

import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.parser.argument import Argument

from stackhand.cli.confirm import agreed
from stackhand.cli.render import perms as report
from stackhand.cli.task import StackTask, task
from stackhand.context import Stack
from stackhand.errors import ApprovalNeeded, JournalRefused, PermissionsWrong, UnknownRun

if TYPE_CHECKING:
    from stackhand.engine.compose.project import Project
    from stackhand.perms.facts import Survey
    from stackhand.perms.run import Result
    from stackhand.perms.undo import Undone

_TELL_EVERY = 2.0
# What is meant as the id of a run, be there such a run or not: no task begins with a digit.
_ID = re.compile(r"\d[\w.-]*")
_HELP = {"owner": "user[:group] that the files shall belong to"}


@task(help=_HELP)
def check(c: Context, owner: str | None = None, json: bool = False) -> None:
    """Say what is wrong with owners and modes in the project; exit 1 when something is."""
    stack = Stack.of(c)
    root, survey = _survey(stack, owner)
    result = _check(stack, root, survey)
    report.tell(stack, result, json=json, intro="Checking file permissions", show=report.show_check)
    if not result.ok:
        raise PermissionsWrong(f"{report.wrong_in(result)} in {root}", report.what_helps(result, owner))


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
    root, survey = _survey(stack, owner)
    if stack.dry:
        result = _check(stack, root, survey)
        report.tell(stack, result, json=json, intro="Fixing file permissions (dry run)", show=report.show_dry)
        return
    with stack.state.lock("perms.fix", of_ones_own=True):
        result = _fix(stack, root, survey)
    report.tell(stack, result, json=json, intro="Fixing file permissions", show=report.show_fix)
    if not result.ok:
        again = report.once_more(owner or report.spelt(result.target), root=True)
        hint = f"`{again}` does the rest" if report.needs_root(result) else "each is named above, with the reason"
        raise PermissionsWrong(f"left as it was: {report.wrong_in(result)}", hint)


class _UndoTask(StackTask):
    """A task whose run may be named by `--id ID` or by ID alone."""

    def get_arguments(self, *args: Any, **kwargs: Any) -> list[Argument]:
        arguments: list[Argument] = super().get_arguments(*args, **kwargs)
        # To Invoke every positional argument is required. Nothing else on a command line looks like an id.
        named = any(
            before != "--id" and _ID.fullmatch(word) for before, word in zip(sys.argv, sys.argv[1:], strict=False)
        )
        for argument in arguments:
            argument.positional = argument.name == "id" and named
        return arguments


def _undo(c: Context, id: str | None = None, json: bool = False) -> None:
    """Put back owners and modes that a run of perms.fix changed: the last one, or the one named."""
    stack = Stack.of(c)
    if stack.dry:
        result = _undone(stack, id)
    else:
        with stack.state.lock("perms.undo", of_ones_own=True):
            result = _undone(stack, id)
    report.show_undo(stack, result, json=json)
    if result.stopped is not None:
        raise result.stopped
    if not result.ok:
        raise PermissionsWrong(f"{result.failed:,} of the entries could not be put back", "each is named above")


def _undone(stack: Stack, id: str | None) -> Undone:
    from stackhand.perms import undo as undoing
    from stackhand.perms.journal import Journals

    journals, root = Journals(stack.state.private), stack.state.path.parent
    try:
        journal = undoing.choose(journals, id)
    except UnknownRun as unknown:
        raise _roots(stack, unknown.message, id) or unknown from None
    if journal is None:
        roots = _roots(stack, "there is no run of yours to undo", id)
        if roots is not None:
            raise roots
        return undoing.Undone(None, root, any_runs=bool(journals.ids()))
    volume = journal.head.volume if journal.head else None
    links_stay_inside = False
    if volume is not None:
        from stackhand.perms.volume import folder

        root, links_stay_inside = folder(stack.engine, volume)
    if stack.dry:
        return undoing.plan(root, journal, journals, links_stay_inside=links_stay_inside)
    return undoing.undo(root, journal, journals, _progress(stack), links_stay_inside=links_stay_inside)


def _roots(stack: Stack, message: str, id: str | None) -> JournalRefused | None:
    """Return what to tell an ordinary user of a project that root has runs of."""
    from stackhand.engine.host.sudo import typed
    from stackhand.state.private import PrivateFolder

    if os.geteuid() == 0 or not PrivateFolder(stack.state.path.parent, stack.environ, uid=0).exists():
        return None
    again = shlex.join(["sudo", *typed("perms.undo"), *([id] if id else [])])
    return JournalRefused(f"{message}; root has changed files here", f"what root did root undoes: `{again}`")


undo = _UndoTask(
    _undo,
    name="undo",
    help={"id": "the run to undo, as perms.fix named it", "json": "print one JSON document on stdout"},
)


def _fix_volume(stack: Stack, name: str, owner: str | None, *, yes: bool, json: bool) -> None:
    from stackhand.engine.api.client import Engine
    from stackhand.errors import InvalidComposeFile
    from stackhand.perms import volume
    from stackhand.perms.policy import owner as targets

    uid, gid = targets.ids(owner)
    engine: Engine = stack.engine
    try:
        project: str | None = stack.project.name
    except InvalidComposeFile:
        project = None
    way = volume.reach(engine, project, name)
    if way.volume.running and not stack.dry:
        why = f"volume {way.volume.name} is in use by {', '.join(way.volume.running)}"
        if not agreed(stack.console, f"{why}; go on?", yes=yes, why=why):
            raise ApprovalNeeded("not agreed", "nothing was changed")
    if stack.dry:
        result = volume.fix(way, engine, uid, gid, None, _progress(stack))
    else:
        with stack.state.lock("perms.fix", of_ones_own=True):
            result = volume.fix(way, engine, uid, gid, stack.state, _progress(stack))
    how = "" if way.folder else " (through a helper container)"
    show = report.show_dry if stack.dry else report.show_volume
    report.tell(stack, result, json=json, intro=f"Fixing the owner of volume {way.volume.name}{how}", show=show)
    if not stack.dry and not result.ok:
        raise PermissionsWrong(f"left as it was: {report.wrong_in(result)}", "each is named above, with the reason")


def _check(stack: Stack, root: Path, survey: Survey) -> Result:
    from stackhand.perms import run
    from stackhand.perms.facts import opened

    result = run.check(root, survey.rules, survey.findings, stack.state, _progress(stack))
    result.findings += opened(result.notes)
    return result


def _fix(stack: Stack, root: Path, survey: Survey) -> Result:
    from stackhand.perms import run
    from stackhand.perms.facts import opened

    result = run.fix(root, survey.rules, survey.findings, stack.state, _progress(stack))
    result.findings = (*survey.looked_again(), *opened(result.notes))
    return result


def _survey(stack: Stack, owner: str | None) -> tuple[Path, Survey]:
    settings, commands, root = stack.settings.perms, stack.commands, stack.state.path.parent
    # Before all else: Compose is the slowest of what is asked. Until it has answered the stack is not to be asked for
    # anything that it has not made yet: that would wait for it.
    project = _ahead(lambda: stack.project)
    from stackhand.engine.compose.files import chosen_files
    from stackhand.perms import run as _  # noqa: F401  loaded while Compose reads
    from stackhand.perms.facts import survey
    from stackhand.perms.policy.owner import target

    files = chosen_files(stack.directory, stack.environ)
    return root, survey(root, settings, target(owner, stack.environ), commands, project, lambda: stack.engine, files)


def _ahead(work: Callable[[], Project]) -> Callable[[], Project]:
    """Begin work that waits for another program, on a thread of its own; return what waits for its result."""
    from concurrent.futures import Future

    future: Future[Project] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: an interrupted run does not wait for it.
    thread = threading.Thread(target=run, name="compose", daemon=True)
    thread.start()

    def result() -> Project:
        # Not only the result: from here on processes are forked, which no thread should witness.
        thread.join()
        return future.result()

    return result


def _progress(stack: Stack) -> Callable[[int], None]:
    """Return what tells now and then how many entries have been looked at."""
    told = time.monotonic()

    def tell(entries: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_EVERY:
            told = time.monotonic()
            stack.console.progress("wait", f"{entries:,} entries looked at")

    return tell
