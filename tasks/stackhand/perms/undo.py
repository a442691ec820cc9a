"""Putting back what a run changed: owner and mode of every file that nobody has changed since."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.errors import JournalRefused, UnknownRun
from stackhand.perms.crew import Notes, Progress
from stackhand.perms.cursor import Cursor
from stackhand.perms.entry import Descriptors, Entry, Unchanged
from stackhand.perms.journal import Change, Journal, Journals, Writer
from stackhand.perms.rules import states

_BATCH = 64
# A run that was killed has no last line; what it journaled last it did at once, or not at all.
_MOMENT = 1_000_000_000
_SHOWN = 5


@dataclass
class Undone:
    """What came of it."""

    id: str | None
    root: Path
    restored: int = 0
    left: int = 0
    failed: int = 0
    journal: str | None = None
    notes: Notes = field(default_factory=Notes)

    @property
    def ok(self) -> bool:
        """Whether nothing failed. What was changed since is left alone rightly."""
        return not self.failed

    def head(self) -> dict[str, Any]:
        """Return what `--json` prints, but for the lists."""
        return {
            "ok": self.ok,
            "root": str(self.root),
            "undone": self.id,
            "restored": self.restored,
            "left": self.left,
            "journal": self.journal,
        }


def choose(journals: Journals, id: str | None) -> Journal | None:
    """Return the journal of a run, or of the last fix that was not undone yet; None where there is none.

    Raises UnknownRun, JournalRefused.
    """
    ids = journals.ids()
    if id is not None:
        if id not in ids:
            known = ", ".join(ids[:_SHOWN])
            raise UnknownRun(f"there is no run {id!r} to undo", f"the last ones: {known}" if known else "there is none")
        return _open(journals, id)
    undone = set()
    for each in ids:
        journal = _open(journals, each)
        if journal.head and journal.head.undoes:
            undone.add(journal.head.undoes)
        elif each not in undone:
            return journal
        journal.close()
    return None


def _open(journals: Journals, id: str) -> Journal:
    try:
        return journals.open(id)
    except OSError as error:
        who = "as the user who made it" if os.geteuid() == 0 else "as root: sudo"
        raise JournalRefused(
            f"the journal of run {id} can't be used: {error.strerror}", f"undo it {who}: `inv perms.undo --id {id}`"
        ) from error


def plan(root: Path, journal: Journal) -> Undone:
    """Look what undoing a run would do; change nothing."""
    return _Undoing(root, journal, None).run(lambda _: None)


def undo(root: Path, journal: Journal, journals: Journals, progress: Progress = lambda _: None) -> Undone:
    """Undo a run; what that changes is journaled itself, so it can be undone too. The caller holds the lock."""
    id, writer = journals.create("perms.undo", "", undoes=journal.id, root=journal.head.root if journal.head else None)
    try:
        result = _Undoing(root, journal, writer).run(progress)
        result.journal = id
        writer.end({"at": time.time_ns()})
    finally:
        os.close(writer.fd)
    return result


class _Undoing:
    def __init__(self, root: Path, journal: Journal, writer: Writer | None) -> None:
        elsewhere = journal.head.root if journal.head else None
        self._result = Undone(journal.id, Path(elsewhere) if elsewhere else root)
        self._journal, self._writer = journal, writer
        end = journal.end or {}
        self._limit = int(end.get("at") or journal.last_write + _MOMENT)
        self._cursor = Cursor(str(self._result.root))
        self._descriptors = Descriptors()

    def run(self, progress: Progress) -> Undone:
        seen = 0
        try:
            # Backwards, so what is in a folder is put back while the folder can still be entered.
            for folder, changes in self._journal.backwards():
                self._folder(folder, changes)
                seen += len(changes)
                progress(seen)
        finally:
            self._cursor.close()
            self._descriptors.close()
            self._journal.close()
        return self._result

    def _folder(self, folder: str, changes: list[Change]) -> None:
        try:
            self._cursor.go(folder.split("/") if folder else [])
        except OSError:
            for change in changes:
                self._leave(folder, change, "its folder is gone")
            return
        for start in range(0, len(changes), _BATCH):
            self._batch(folder, changes[start : start + _BATCH])

    def _batch(self, folder: str, changes: list[Change]) -> None:
        held: list[tuple[Entry, Change]] = []
        try:
            for change in changes:
                try:
                    entry = Entry(change.name, self._cursor.fd, self._descriptors)
                except OSError:
                    self._leave(folder, change, "it is gone")
                    continue
                reason = self._reason_to_leave(entry, change)
                if reason is None:
                    held.append((entry, change))
                    continue
                entry.close()
                if reason:
                    self._leave(folder, change, reason)
            if self._writer is None:
                self._result.restored += len(held)
                return
            if held:
                self._writer.write(folder, [change.reversed() for _, change in held])
            for entry, change in held:
                self._restore(folder, entry, change)
        finally:
            for entry, _ in held:
                entry.close()

    def _restore(self, folder: str, entry: Entry, change: Change) -> None:
        try:
            entry.become(change.uid, change.gid, change.mode, entry.attributes())
            self._result.restored += 1
        except (OSError, Unchanged) as error:
            self._result.failed += 1
            self._result.notes.add("failed", _path(folder, change), error.strerror or str(error))

    def _reason_to_leave(self, entry: Entry, change: Change) -> str | None:
        """Return why an entry stays as it is; "" where it is as it was before, None where it is to be put back."""
        seen = entry.seen
        now = (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode))
        link = stat.S_ISLNK(seen.st_mode)
        if seen.st_ino != change.ino:
            return "it is another file now"
        if not (link or stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
            return "it is no longer a file or folder"
        if now == (change.uid, change.gid, change.mode):
            return ""
        # A run that was killed may have left one entry half way.
        done = self._journal.end is not None
        if now not in states(*change[2:])[-1 if done else 1 :]:
            return "owner or mode were changed since"
        # A folder's times tell of what was put into it, too.
        if not stat.S_ISDIR(seen.st_mode) and seen.st_mtime_ns > self._limit:
            return "its content was changed since"
        return None if entry.is_alone else "it has other names (hard links), which may lie anywhere"

    def _leave(self, folder: str, change: Change, reason: str) -> None:
        self._result.left += 1
        self._result.notes.add("left", _path(folder, change), reason)


def _path(folder: str, change: Change) -> str:
    if change.name == ".":
        return folder or "."
    return f"{folder}/{change.name}" if folder else change.name
