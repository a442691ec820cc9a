"""Goes through the entries that a journal names, the last one first, and changes them once more."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import NamedTuple

from stackhand.perms.journal import Change, Journal, Writer
from stackhand.perms.tree.apply import Batch
from stackhand.perms.tree.cursor import MOUNTED, Cursor, OtherFileSystem
from stackhand.perms.tree.entry import Entry, ProcFd
from stackhand.perms.tree.events import AddEvent

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


class Apply(NamedTuple):
    """Change an entry. `attributes` are its extended attributes that matter; `remark` is told to people, if any."""

    change: Change
    attributes: list[str]
    remark: str = ""


class Keep(NamedTuple):
    """Leave an entry as it is. `reason` is told to people; "" if nobody needs to know."""

    reason: str = ""


Decision = Apply | Keep
Decide = Callable[[Entry | None, Change], Decision]
"""Takes an entry (None if it is gone) and the change that the journal has of it."""


class Replay:
    """Goes through one journal; `decide` says what happens to each entry. Without a writer it only looks.

    It adds events of the kinds `left` and `failed`.
    """

    def __init__(
        self,
        root: str,
        journal: Journal,
        writer: Writer | None,
        decide: Decide,
        add_event: AddEvent,
    ) -> None:
        self.changed = self.left = self.failed = 0
        self._journal, self._decide, self._add_event = journal, decide, add_event
        self._dry = writer is None
        self._folder = ""
        self._cursor = Cursor(root)
        self._proc_fd = ProcFd()
        self._batch = Batch(writer, self._fail)

    def run(self, step: Callable[[int], None]) -> None:
        """Go through the whole journal. After each folder, `step` gets the number of entries so far.

        Raises JournalFailed.
        """
        seen = 0
        try:
            # Backwards: a folder may become closed to this user, so what is in it comes first.
            for folder, changes in self._journal.backwards():
                self._folder = folder
                self._go(changes)
                seen += len(changes)
                step(seen)
        finally:
            self._batch.close()
            self._cursor.close()
            self._proc_fd.close()

    def _go(self, changes: list[Change]) -> None:
        try:
            self._cursor.go(self._folder.split("/") if self._folder else [])
        except OSError as error:
            for change in changes:
                if isinstance(error, OtherFileSystem):
                    self._leave(change.name, MOUNTED)
                elif error.errno in _GONE:
                    self._take(change, None)
                else:
                    self._fail(change.name, error)
            return
        for change in changes:
            try:
                entry = Entry(change.name, self._cursor.fd, self._proc_fd)
            except OSError as error:
                if error.errno in _GONE:
                    self._take(change, None)
                else:
                    self._fail(change.name, error)
                continue
            if not self._take(change, entry):
                entry.close()
            elif self._batch.is_full:
                self._flush()
        self._flush()

    def _take(self, change: Change, entry: Entry | None) -> bool:
        """Decide on an entry; return whether it is in the batch now, which closes it."""
        mounted = entry is not None and self._is_mounted(entry)
        decision = Keep(MOUNTED) if mounted else self._decide(entry, change)
        if isinstance(decision, Keep):
            if decision.reason:
                self._leave(change.name, decision.reason)
            return False
        if entry is None:
            return False
        if decision.remark:
            self._add_event("left", self._path(change.name), decision.remark)
        self._batch.held.append((entry, decision.change, decision.attributes, True))
        return True

    def _is_mounted(self, entry: Entry) -> bool:
        if entry.seen.st_dev == self._cursor.dev:
            return False
        return entry.kind == stat.S_IFDIR or self._cursor.is_mounted(entry.held)

    def _flush(self) -> None:
        if self._dry:
            self.changed += len(self._batch.held)
            self._batch.close()
        elif self._batch.held:
            self.changed += self._batch.do(self._folder)[0]

    def _leave(self, name: str, reason: str) -> None:
        self.left += 1
        self._add_event("left", self._path(name), reason)

    def _fail(self, name: str, error: OSError) -> None:
        self.failed += 1
        self._add_event("failed", self._path(name), error.strerror or str(error))

    def _path(self, name: str) -> str:
        if name == ".":
            return self._folder or "."
        return f"{self._folder}/{name}" if self._folder else name
