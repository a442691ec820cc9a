"""Checking and fixing a tree: look, or journal and change; then tell what came of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.errors import Interrupted, StackError, StateFolderUnwritable
from stackhand.model import Finding
from stackhand.perms.journal import Journals, Writer
from stackhand.perms.policy.rules import Rules, Target, why
from stackhand.perms.recover import finish
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.entry import TICK, Descriptors, Entry
from stackhand.perms.tree.evaluate import NEEDS_ROOT
from stackhand.perms.tree.walk import Known
from stackhand.perms.tree.workers import Noted, Notes, Progress, walk
from stackhand.state.folder import FOLDER, StateFolder

_MEMORY = "perms"


@dataclass
class Result:
    """What a check or a fix found and did. `stopped` is what ended it early."""

    root: Path
    target: Target
    tally: Counts = field(default_factory=Counts)
    notes: Notes = field(default_factory=Notes)
    findings: tuple[Finding, ...] = ()
    journal: str | None = None
    stopped: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more: nothing refused, failed, or left for root to do."""
        tally = self.tally
        left = tally.wrong > tally.changed or tally.failed or tally.needs_root or self.stopped is not None
        return not left and not any(f.status == "fail" for f in self.findings)

    def head(self) -> dict[str, Any]:
        """Return the contract's JSON, but for the lists."""
        tally = self.tally
        return {
            "ok": self.ok,
            "root": str(self.root),
            "owner": self.target.user,
            "group": self.target.group,
            "scanned": tally.scanned,
            "wrong": tally.wrong,
            "changed": tally.changed,
            "partial": tally.partial,
            "unchanged": tally.scanned - tally.changed,
            "needs_root": tally.needs_root,
            "journal": self.journal,
            "findings": [each.to_json() for each in self.findings],
            **early_end(self.stopped),
        }

    def lists(self) -> dict[str, Iterator[dict[str, str]]]:
        """Return the contract's lists, each as long as there is something to tell."""
        return {
            "entries": ({"path": each.path, "reason": each.reason} for each in self.notes.read("wrong")),
            "refused": ({"path": each.path, "reason": each.reason} for each in self.notes.read("refused")),
            "failed": ({"path": each.path, "error": each.reason} for each in self.notes.read("failed")),
            "left_alone": ({"path": each.path, "reason": each.reason} for each in self.notes.read("left")),
        }


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


def early_end(stopped: BaseException | None) -> dict[str, Any]:
    """Return what the JSON document says of a run that ended early: the field `error`."""
    if stopped is None:
        return {}
    error = stopped if isinstance(stopped, StackError) else Interrupted("interrupted")
    return {"error": error.to_json()["error"]}


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


def first(notes: Notes, most: int, *kinds: str) -> list[Noted]:
    """Return the first notes of these kinds."""
    found: list[Noted] = []
    for noted in notes.read(*kinds):
        if len(found) == most:
            break
        found.append(noted)
    return found
