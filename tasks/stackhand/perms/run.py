"""Checks and fixes the files of a project: look only, or write the journal and change."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stackhand.errors import StackError, StateFolderUnwritable
from stackhand.model import Finding
from stackhand.perms.context import PermsContext
from stackhand.perms.facts import ProjectFacts, collect_facts
from stackhand.perms.journal import Journals, Writer
from stackhand.perms.policy.rules import Rules, Target
from stackhand.perms.policy.steps import why
from stackhand.perms.recover import complete_killed_runs
from stackhand.perms.result import Result
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.entry import TICK, Entry, ProcFd
from stackhand.perms.tree.evaluate import NEEDS_ROOT
from stackhand.perms.tree.walk import LastCleanRun
from stackhand.perms.tree.workers import Progress, walk
from stackhand.settings import Perms
from stackhand.state.document import Document
from stackhand.state.folder import FOLDER, StateFolder


def _clean_run(value: Any) -> tuple[str, LastCleanRun]:
    if not (isinstance(value["began"], int) and isinstance(value["ended"], int)):
        raise TypeError(value)
    return str(value["rules"]), LastCleanRun(value["began"], value["ended"])


_LAST_CLEAN: Document[tuple[str, LastCleanRun]] = Document(
    "perms",
    _clean_run,
    lambda: ("", LastCleanRun()),
    lambda known: {"rules": known[0], "began": known[1].began, "ended": known[1].ended},
)
"""The last run that left the whole tree right, and the fingerprint of the rules by which it was right."""


def check_project(context: PermsContext, settings: Perms, owner: str | None) -> Result:
    """Look at the whole project; change nothing. `owner` is `--owner`, None for the usual one.

    Raises UnknownUser, BadArgument; what ends the look early is in the result.
    """
    return _look(context, collect_facts(context, settings, owner))


def fix_project(context: PermsContext, settings: Perms, owner: str | None) -> Result:
    """Put right what is wrong in the project, under its lock; where the context is `dry`, only look.

    Raises UnknownUser, BadArgument, LockHeld, StateFolderUnwritable; what ends the run early is in the result.
    """
    facts = collect_facts(context, settings, owner)
    if context.dry:
        return _look(context, facts)
    with context.lock("perms.fix"):
        result = fix(context.root, facts.rules, facts.findings, context.state, context.progress)
        result.findings = facts.findings_after()
    return result


def _look(context: PermsContext, facts: ProjectFacts) -> Result:
    return check(context.root, facts.rules, facts.findings, context.state, context.progress)


def check(
    root: Path, rules: Rules, findings: tuple[Finding, ...], state: StateFolder, progress: Progress = lambda _: None
) -> Result:
    """Look at the whole tree by these rules; change nothing."""
    result = Result(root, rules.target, findings=findings)
    with _note_early_end(result):
        walk(str(root), rules, _last_clean(state, rules), None, result.events, progress, result.counts)
    if os.geteuid() != 0:  # a fix by root does it anyway
        _own_state_folder(root, rules.target, result, change=False)
    return result


def fix(
    root: Path, rules: Rules, findings: tuple[Finding, ...], state: StateFolder, progress: Progress = lambda _: None
) -> Result:
    """Put right what is wrong by these rules, the journal first. The caller holds the project's lock.

    Raises StateFolderUnwritable.
    """
    result = Result(root, rules.target, findings=findings)
    last_clean, began = _last_clean(state, rules), time.time_ns() - TICK

    def work(writer: Writer) -> Counts:
        return walk(str(root), rules, last_clean, writer, result.events, progress, result.counts)

    run_journaled(state, result, work)
    if result.stopped is not None:
        return result
    counts = result.counts
    if not counts.failed and not counts.needs_root:
        # This lies in the project, where a container can write. At worst a run believes it, and leaves a file unread.
        with contextlib.suppress(OSError, StateFolderUnwritable):
            _LAST_CLEAN.write(state, (rules.fingerprint(), LastCleanRun(began, time.time_ns())))
    _own_state_folder(root, rules.target, result, change=True)
    return result


def run_journaled(
    state: StateFolder, result: Result, work: Callable[[Writer], Counts], volume: str | None = None
) -> None:
    """Begin a journal, complete what killed runs have left half way, do the work, and end the journal.

    `result` gets the counts, the journal's id, and the error that ended the work early: Ctrl-C, a full disk. An empty
    journal is removed. `volume` is the engine's name of the volume whose files are changed, None for the project's.
    Raises StateFolderUnwritable.
    """
    journals = Journals(state.private)
    id, writer = journals.create("perms.fix", result.target.user, volume=volume)
    try:
        with _note_early_end(result):
            complete_killed_runs(result.root, journals, id, volume, writer, result.counts, result.events.add)
            result.counts = work(writer)
        interrupted = isinstance(result.stopped, KeyboardInterrupt)
        # A run of which a process died, or that ran out of disk space, may have left an entry half way. Without a last
        # line it counts as killed, and the next run looks at it.
        if not writer.is_empty and (result.stopped is None or interrupted):
            with _note_early_end(result):
                writer.end(failed=result.counts.failed, complete=not interrupted)
    finally:
        if writer.is_empty:
            journals.remove(id)
        else:
            result.journal = id
        writer.close()


@contextlib.contextmanager
def _note_early_end(result: Result) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, StackError) as error:
        result.stopped = error


def _last_clean(state: StateFolder, rules: Rules) -> LastCleanRun:
    fingerprint, run = _LAST_CLEAN.read(state)
    # A run that ends in the future was written by another clock, or made up.
    return run if fingerprint == rules.fingerprint() and run.ended <= time.time_ns() else LastCleanRun()


def _own_state_folder(root: Path, target: Target, result: Result, *, change: bool) -> None:
    """Give `.stackhand` to the target user, too, if root has made it.

    Not the journals, which lie elsewhere: root believes only journals that belong to root.
    """
    if target.uid == 0:
        return
    proc_fd = ProcFd()
    folder = -1
    try:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _hand_over(FOLDER, parent, FOLDER, proc_fd, target, result, change=change)
            folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
        for name in os.listdir(folder):  # noqa: PTH208  a descriptor
            _hand_over(name, folder, f"{FOLDER}/{name}", proc_fd, target, result, change=change)
    except OSError:
        pass  # there is none, or this user may not look into it
    finally:
        if folder >= 0:
            os.close(folder)
        proc_fd.close()


def _hand_over(
    name: str, folder: int, path: str, proc_fd: ProcFd, target: Target, result: Result, *, change: bool
) -> None:
    entry = Entry(name, folder, proc_fd)
    try:
        seen = entry.seen
        result.counts.scanned += not change
        if seen.st_uid != 0 or not entry.is_alone:
            return
        mode = seen.st_mode & 0o7777
        if change and os.geteuid() == 0:
            entry.become(target.uid, target.gid, mode, [])
            return
        result.counts.wrong += 1
        result.counts.needs_root += os.geteuid() != 0
        kind = "failed" if change else "wrong"
        needs = f"{NEEDS_ROOT}: " if os.geteuid() != 0 else ""
        reason = needs + why(seen.st_uid, seen.st_gid, mode, target.uid, target.gid, mode)
        result.events.add(kind, path, reason)
    finally:
        entry.close()
