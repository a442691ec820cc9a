"""Checking and fixing a tree: look, or journal and change; then tell what came of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stackhand.errors import StackError, StateFolderUnwritable
from stackhand.model import Finding
from stackhand.perms.context import PermsContext
from stackhand.perms.facts import Survey, opened, read
from stackhand.perms.journal import Journals, Writer
from stackhand.perms.policy.rules import Rules, Target, why
from stackhand.perms.recover import finish
from stackhand.perms.result import Result
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.entry import TICK, Descriptors, Entry
from stackhand.perms.tree.evaluate import NEEDS_ROOT
from stackhand.perms.tree.walk import Known
from stackhand.perms.tree.workers import Progress, walk
from stackhand.settings import Perms
from stackhand.state.folder import FOLDER, StateFolder

_MEMORY = "perms"


def check_project(context: PermsContext, settings: Perms, owner: str | None) -> Result:
    """Look at the whole project; change nothing. `owner` is `--owner`, None for the usual one.

    Raises UnknownUser, BadArgument; what ends the look early is in the result.
    """
    return _look(context, read(context, settings, owner))


def fix_project(context: PermsContext, settings: Perms, owner: str | None) -> Result:
    """Put right what is wrong in the project, under its lock; where the context is `dry`, only look.

    Raises UnknownUser, BadArgument, LockHeld, StateFolderUnwritable; what ends the run early is in the result.
    """
    survey = read(context, settings, owner)
    if context.dry:
        return _look(context, survey)
    with context.lock("perms.fix"):
        result = fix(context.root, survey.rules, survey.findings, context.state, context.progress)
        result.findings = (*survey.looked_again(), *opened(result.notes))
    return result


def _look(context: PermsContext, survey: Survey) -> Result:
    result = check(context.root, survey.rules, survey.findings, context.state, context.progress)
    result.findings += opened(result.notes)
    return result


def check(
    root: Path, rules: Rules, findings: tuple[Finding, ...], state: StateFolder, progress: Progress = lambda _: None
) -> Result:
    """Look at the whole tree; change nothing."""
    result = Result(root, rules.target, findings=findings)
    with _early_end_noted(result):
        walk(str(root), rules, _known(state, rules), None, result.notes, progress, result.tally)
    if os.geteuid() != 0:  # root's fix needs not be told of what it does anyway
        _own_folder(root, rules.target, result, change=False)
    return result


def fix(
    root: Path, rules: Rules, findings: tuple[Finding, ...], state: StateFolder, progress: Progress = lambda _: None
) -> Result:
    """Put right what is wrong, the journal first. The caller holds the project's lock.

    Raises StateFolderUnwritable.
    """
    result = Result(root, rules.target, findings=findings)
    known, began = _known(state, rules), time.time_ns() - TICK

    def work(writer: Writer) -> Counts:
        return walk(str(root), rules, known, writer, result.notes, progress, result.tally)

    journaled(state, result, work)
    if result.stopped is not None:
        return result
    tally = result.tally
    if not tally.failed and not tally.needs_root:
        # In the project, where a container can write: who believes it reads less, and changes nothing for it.
        with contextlib.suppress(OSError, StateFolderUnwritable):
            state.remember(_MEMORY, {"rules": rules.fingerprint(), "began": began, "ended": time.time_ns()})
    _own_folder(root, rules.target, result, change=True)
    return result


def journaled(state: StateFolder, result: Result, work: Callable[[Writer], Counts], volume: str | None = None) -> None:
    """Do work that writes to a journal, after what a run that was killed has left half way.

    `result` gets the journal's id, none where it is empty, and what ended the work early: Ctrl-C, a full disk. The work
    counts in the result's tally. `volume` is the one whose files it changes, where they are not the project's.
    """
    journals = Journals(state.private)
    id, writer = journals.create("perms.fix", result.target.user, volume=volume)
    try:
        with _early_end_noted(result):
            finish(result.root, journals, volume, writer, result.tally, result.notes.add)
            result.tally = work(writer)
        interrupted = isinstance(result.stopped, KeyboardInterrupt)
        # One of which a process died, or that has no room, may have left something half way: it gets no last line.
        if not writer.is_empty and (result.stopped is None or interrupted):
            with _early_end_noted(result):
                writer.end(failed=result.tally.failed, complete=not interrupted)
    finally:
        if writer.is_empty:
            journals.remove(id)
        else:
            result.journal = id
        writer.close()


@contextlib.contextmanager
def _early_end_noted(result: Result) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, StackError) as error:
        result.stopped = error


def _known(state: StateFolder, rules: Rules) -> Known:
    found = state.recall(_MEMORY)
    if not isinstance(found, dict) or found.get("rules") != rules.fingerprint():
        return Known()
    began, ended = found.get("began"), found.get("ended")
    if not (isinstance(began, int) and isinstance(ended, int) and ended <= time.time_ns()):
        return Known()
    return Known(began, ended)


def _own_folder(root: Path, target: Target, result: Result, *, change: bool) -> None:
    """See to it that stackhand's own folder is the target user's too, where root has made it.

    Not the journals: root believes only those that are root's.
    """
    if target.uid == 0:
        return
    descriptors = Descriptors()
    folder = -1
    try:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _hand_over(FOLDER, parent, FOLDER, descriptors, target, result, change=change)
            folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
        for name in os.listdir(folder):  # noqa: PTH208  a descriptor
            _hand_over(name, folder, f"{FOLDER}/{name}", descriptors, target, result, change=change)
    except OSError:
        pass  # there is none, or it is nothing that this user may look into
    finally:
        if folder >= 0:
            os.close(folder)
        descriptors.close()


def _hand_over(
    name: str, folder: int, path: str, descriptors: Descriptors, target: Target, result: Result, *, change: bool
) -> None:
    entry = Entry(name, folder, descriptors)
    try:
        seen = entry.seen
        result.tally.scanned += not change
        if seen.st_uid != 0 or not entry.is_alone:
            return
        mode = seen.st_mode & 0o7777
        if change and os.geteuid() == 0:
            entry.become(target.uid, target.gid, mode, [])
            return
        result.tally.wrong += 1
        result.tally.needs_root += os.geteuid() != 0
        kind = "failed" if change else "wrong"
        needs = f"{NEEDS_ROOT}: " if os.geteuid() != 0 else ""
        reason = needs + why(seen.st_uid, seen.st_gid, mode, target.uid, target.gid, mode)
        result.notes.add(kind, path, reason)
    finally:
        entry.close()
