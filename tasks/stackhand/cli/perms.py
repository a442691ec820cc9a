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

from stackhand.cli.task import StackTask, agreed, task
from stackhand.context import Stack
from stackhand.errors import ApprovalNeeded, JournalRefused, PermissionsWrong, UnknownRun

if TYPE_CHECKING:
    from stackhand.engine.project import Project
    from stackhand.perms.rules import Target
    from stackhand.perms.run import Result
    from stackhand.perms.survey import Survey
    from stackhand.perms.undo import Undone

_SHOWN = 50
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
    _tell(stack, result, json=json, intro="Checking file permissions", show=_show_check)
    if not result.ok:
        raise PermissionsWrong(f"{_wrong(result)} in {root}", _what_helps(result, owner))


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
        _tell(stack, result, json=json, intro="Fixing file permissions (dry run)", show=_show_dry)
        return
    with stack.state.lock("perms.fix", of_ones_own=True):
        result = _fix(stack, root, survey)
    _tell(stack, result, json=json, intro="Fixing file permissions", show=_show_fix)
    if not result.ok:
        again = _again(owner or _spelt(result.target), root=True)
        rest = f"`{again}` does the rest" if _needs_root(result) else None
        raise PermissionsWrong(f"left as it was: {_wrong(result)}", rest or "each is named above, with the reason")


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
    _show_undo(stack, result, json=json)
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
    from stackhand.engine.root import typed
    from stackhand.private import PrivateFolder

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
    from stackhand.engine.client import Engine
    from stackhand.errors import InvalidComposeFile
    from stackhand.perms import targets, volume

    uid, gid = targets.ids(owner)
    engine: Engine = stack.engine
    try:
        project: str | None = stack.project.name
    except InvalidComposeFile:
        project = None
    way = volume.reach(engine, project, name)
    if way.volume.running and not stack.dry:
        why = f"volume {way.volume.name} is in use by {', '.join(way.volume.running)}"
        if not yes and not agreed(stack.console, f"{why}; go on?", why):
            raise ApprovalNeeded("not agreed", "nothing was changed")
    if stack.dry:
        result = volume.fix(way, engine, uid, gid, None, _progress(stack))
    else:
        with stack.state.lock("perms.fix", of_ones_own=True):
            result = volume.fix(way, engine, uid, gid, stack.state, _progress(stack))
    how = "" if way.folder else " (through a helper container)"
    show = _show_dry if stack.dry else _show_volume
    _tell(stack, result, json=json, intro=f"Fixing the owner of volume {way.volume.name}{how}", show=show)
    if not stack.dry and not result.ok:
        raise PermissionsWrong(f"left as it was: {_wrong(result)}", "each is named above, with the reason")


def _check(stack: Stack, root: Path, survey: Survey) -> Result:
    from stackhand.perms import run
    from stackhand.perms.survey import opened

    result = run.check(root, survey.rules, survey.findings, stack.state, _progress(stack))
    result.findings += opened(result.notes)
    return result


def _fix(stack: Stack, root: Path, survey: Survey) -> Result:
    from stackhand.perms import run
    from stackhand.perms.survey import opened

    result = run.fix(root, survey.rules, survey.findings, stack.state, _progress(stack))
    result.findings = (*survey.looked_again(), *opened(result.notes))
    return result


def _survey(stack: Stack, owner: str | None) -> tuple[Path, Survey]:
    # Before all else: Compose is the slowest of what is asked.
    project = _ahead(lambda: stack.project)
    from stackhand.engine.files import chosen_files
    from stackhand.perms import run as _  # noqa: F401  loaded while Compose reads
    from stackhand.perms.survey import survey
    from stackhand.perms.targets import target

    settings = stack.settings.perms
    root = stack.state.path.parent
    return root, survey(
        root,
        settings,
        target(owner, stack.environ),
        stack.commands,
        project,
        lambda: stack.engine,
        chosen_files(stack.directory, stack.environ),
    )


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


def _tell(stack: Stack, result: Result, *, json: bool, intro: str, show: Callable[[Stack, Result], None]) -> None:
    if json:
        stack.console.document_of_many({**result.head(), **({"dry": True} if stack.dry else {})}, result.lists())
        _raise_early_end(result)
        return
    target = result.target
    root = f"{'project root' if result.root == stack.state.path.parent else 'its folder'}:"
    stack.console.result(
        f"{intro}\n  target user:  {target.user}\n  target group: {target.group}\n  {root:13} {result.root}"
    )
    show(stack, result)
    for finding in result.findings:
        sign = stack.console.symbol(finding.status, stack.console.stdout)
        # Names of files are in all of it.
        remedy = f"\n    remedy: {shown(finding.remedy)}" if finding.remedy else ""
        stack.console.result(f"{sign} {shown(finding.summary)}\n    {shown(finding.evidence)}{remedy}")
    _raise_early_end(result)


def _raise_early_end(result: Result) -> None:
    """Raise what ended a run early, now that it was told what was done until then."""
    if result.stopped is not None:
        raise result.stopped


def _show_check(stack: Stack, result: Result) -> None:
    _list(stack, result, "wrong", most=_SHOWN)
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    tally = result.tally
    if tally.wrong:
        what = f"{tally.wrong:,} of {_entries(tally.scanned)} {_are(tally.wrong)} wrong"
    else:
        what = f"{_entries(tally.scanned)}, {'no other is wrong' if tally.failed else 'all right'}"
    stack.console.result(what)


def _show_dry(stack: Stack, result: Result) -> None:
    from stackhand.perms.walk import NEEDS_ROOT

    for noted in result.notes.read("wrong"):
        sign = "would not fix" if noted.reason.startswith(NEEDS_ROOT) else "would fix"
        stack.console.result(f"{sign} {shown(noted.path)}: {noted.reason}")
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    tally = result.tally
    would = _fixable(result)
    if would or tally.wrong or tally.failed:
        rest = f"; {tally.needs_root:,} {'needs' if tally.needs_root == 1 else 'need'} root" if tally.needs_root else ""
        stack.console.result(f"would fix {would:,} of {_entries(tally.scanned)}{rest}")
    else:
        stack.console.result("nothing to do")


def _show_fix(stack: Stack, result: Result) -> None:
    console, tally = stack.console, result.tally
    for top, (_, wrong, changed) in sorted(tally.tops.items(), key=lambda item: (not item[0], item[0])):
        if wrong:
            sign = console.symbol("ok" if wrong == changed else "warn", console.stdout)
            console.result(f"{sign} {shown(top) or 'the rest of the project'}: {changed:,} of {wrong:,} fixed")
    # What is wrong: where nothing could be changed, for want of a journal.
    _list(stack, result, "wrong", most=_SHOWN)
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    if result.journal:
        in_part = f", {tally.partial:,} in part" if tally.partial else ""
        console.result(f"{tally.changed:,} of {_entries(tally.scanned)} changed{in_part}")
        console.result(f"to put it back: inv perms.undo {result.journal}")
    elif not (tally.wrong or tally.failed or result.stopped):
        console.result(f"nothing to do: {_entries(tally.scanned)}, all right")
    if result.ok:
        _epilogue(stack, result)


def _show_volume(stack: Stack, result: Result) -> None:
    _list(stack, result, "failed", most=_SHOWN)
    _rest(stack, result)
    tally = result.tally
    stack.console.result(f"{tally.changed:,} of {_entries(tally.scanned)} changed")
    if result.journal:
        stack.console.result(f"to put it back: inv perms.undo {result.journal}")


def _epilogue(stack: Stack, result: Result) -> None:
    from stackhand.perms.targets import docker_group_missing

    scripts = [f"./{name}" for name in ("run.sh",) if (result.root / name).is_file()]
    scripts += [f"./scripts/{each.name}" for each in sorted((result.root / "scripts").glob("*.sh"))[:3]]
    if scripts:
        stack.console.result(f"{result.target.user} can run the scripts without sudo now:")
        stack.console.result("\n".join(f"  {shown(each)}" for each in scripts))
    group = docker_group_missing(result.target.user)
    if group:
        stack.console.result(
            f"{result.target.user} is not in the group {group}, so docker needs sudo: "
            f"sudo usermod -aG {group} {result.target.user}, then log in again"
        )


def _show_undo(stack: Stack, result: Undone, *, json: bool) -> None:
    if json:
        notes = result.notes
        stack.console.document_of_many(
            {**result.head(), **({"dry": True} if stack.dry else {})},
            {
                "left_alone": ({"path": each.path, "reason": each.reason} for each in notes.read("left")),
                "failed": ({"path": each.path, "error": each.reason} for each in notes.read("failed")),
            },
        )
        return
    if result.id is None:
        why = "all runs were undone" if result.any_runs else "no run of perms.fix has changed anything"
        stack.console.result(f"nothing to undo: {why}")
        return
    for number, noted in enumerate(result.notes.read("left", "failed")):
        if number == _SHOWN:
            stack.console.result("    … and more; --json has all")
            break
        sign = stack.console.symbol("skip" if noted.kind == "left" else "fail", stack.console.stdout)
        stack.console.result(f"{sign} {shown(noted.path)}: {noted.reason}")
    would = "would put back" if stack.dry else "put back:"
    stack.console.result(f"{would} {result.restored:,} entries of run {result.id}; left as they are: {result.left:,}")
    if result.stopped is not None:
        stack.console.result("the next perms.undo goes on with it")


def _rest(stack: Stack, result: Result) -> None:
    _list(stack, result, "refused", most=_SHOWN)
    _list(stack, result, "left", most=_SHOWN)


def _list(stack: Stack, result: Result, kind: str, most: int) -> None:
    words = {
        "wrong": ("warn", ""),
        "failed": ("fail", ""),
        "refused": ("fail", "refused: "),
        "left": ("skip", "left alone: "),
    }
    status, word = words[kind]
    for number, noted in enumerate(result.notes.read(kind)):
        if number == most:
            stack.console.result("    … and more; --json has all")
            return
        sign = stack.console.symbol(status, stack.console.stdout)
        stack.console.result(f"{sign} {word}{shown(noted.path)}: {noted.reason}")


def shown(path: str) -> str:
    """Return a path as it can be printed: line feeds, control characters and bytes that are no text are escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in path)


def _wrong(result: Result) -> str:
    tally, parts = result.tally, []
    wrong = tally.wrong - tally.changed
    if wrong:
        parts.append(f"{_entries(wrong)} {_are(wrong)} wrong")
    if tally.failed:
        parts.append(f"{tally.failed:,} could not be looked at or changed")
    unread = sum(1 for each in result.findings if each.status == "fail")
    if unread:
        what = "secret or mount" if unread == 1 else "secrets or mounts"
        parts.append(f"{unread} {what} can't be read by {'its' if unread == 1 else 'their'} services")
    return ", ".join(parts)


def _what_helps(result: Result, owner: str | None) -> str:
    """Return the hint below what `perms.check` saw: a fix puts right what it may, and not what it can only tell."""
    named = "each is named above, with the reason"
    fixable = _fixable(result) + result.tally.needs_root
    if not fixable:
        return named
    again = f"`{_again(owner, root=_needs_root(result))}`"
    if fixable == result.tally.wrong and not result.tally.failed and _all_read(result):
        return f"{again} puts it right"
    return f"{again} puts {fixable:,} of them right; {named}"


def _fixable(result: Result) -> int:
    """Return how many entries this user's fix would put right."""
    return result.tally.wrong - result.tally.refused - result.tally.needs_root


def _all_read(result: Result) -> bool:
    return not any(each.status == "fail" for each in result.findings)


def _entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _needs_root(result: Result) -> bool:
    return result.tally.needs_root > 0


def _spelt(target: Target) -> str:
    return f"{target.user}:{target.group}"


def _again(owner: str | None, *, root: bool) -> str:
    """Return the command line that does the rest."""
    from stackhand.engine.root import typed

    words = [*typed("perms.fix"), *(["--owner", owner] if owner else [])]
    return shlex.join(["sudo", *words] if root else ["inv", "perms.fix", *words[words.index("perms.fix") + 1 :]])
