"""Checking and fixing a tree: look, or journal and change; then tell what came of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.model import Finding
from stackhand.perms.crew import Noted, Notes, Progress, walk
from stackhand.perms.entry import TICK, Descriptors, Entry
from stackhand.perms.journal import Journals, Writer
from stackhand.perms.rules import Rules, Target, why
from stackhand.perms.walk import NEEDS_ROOT, Known, Tally
from stackhand.state import FOLDER, StateFolder

_MEMORY = "perms"


@dataclass
class Result:
    """What a check or a fix found and did."""

    root: Path
    target: Target
    tally: Tally = field(default_factory=Tally)
    notes: Notes = field(default_factory=Notes)
    findings: tuple[Finding, ...] = ()
    journal: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more: nothing refused, failed, or left for root to do."""
        tally = self.tally
        left = tally.wrong > tally.changed or tally.failed or tally.needs_root
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
    result.tally = walk(str(root), rules, _known(state, rules), None, result.notes, progress)
    if os.geteuid() != 0:  # root's fix needs not be told of what it does anyway
        _own_folder(root, rules.target, result, change=False)
    return result


def fix(
    root: Path, rules: Rules, findings: tuple[Finding, ...], state: StateFolder, progress: Progress = lambda _: None
) -> Result:
    """Put right what is wrong, the journal first. The caller holds the project's lock.

    Raises StateFolderUnwritable, FixFailed.
    """
    result = Result(root, rules.target, findings=findings)
    known, began = _known(state, rules), time.time_ns() - TICK

    def work(writer: Writer) -> Tally:
        return walk(str(root), rules, known, writer, result.notes, progress)

    journaled(state, result, work)
    tally = result.tally
    if not tally.failed and not tally.needs_root:
        with contextlib.suppress(OSError):
            state.remember(_MEMORY, {"rules": rules.fingerprint(), "began": began, "ended": time.time_ns()})
    _own_folder(root, rules.target, result, change=True)
    return result


def journaled(state: StateFolder, result: Result, work: Callable[[Writer], Tally], root: str | None = None) -> None:
    """Do work that writes to a journal; `result` gets what it counted and the journal's id, none where it is empty."""
    folder = state.open()
    try:
        journals = Journals(folder)
        id, writer = journals.create("perms.fix", result.target.user, root=root)
        try:
            result.tally = work(writer)
            if not writer.is_empty:
                writer.end({"at": time.time_ns(), "changed": result.tally.changed})
        finally:
            if writer.is_empty:
                journals.remove(id)
            else:
                result.journal = id
            os.close(writer.fd)
    finally:
        os.close(folder)


def _known(state: StateFolder, rules: Rules) -> Known:
    found = state.recall(_MEMORY)
    if not isinstance(found, dict) or found.get("rules") != rules.fingerprint():
        return Known()
    began, ended = found.get("began"), found.get("ended")
    return Known(began, ended) if isinstance(began, int) and isinstance(ended, int) else Known()


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
