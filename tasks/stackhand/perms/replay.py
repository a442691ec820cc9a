"""Goes through what a journal names, the last first, and changes it once more."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import NamedTuple

from stackhand.perms.journal import Change, Journal, Writer
from stackhand.perms.tree.apply import Batch
from stackhand.perms.tree.cursor import MOUNTED, Cursor, OtherFileSystem
from stackhand.perms.tree.entry import Descriptors, Entry

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


class Step(NamedTuple):
    """What is done with an entry, which of its attributes matter, and what is to be said about it."""

    change: Change
    attributes: list[str]
    remark: str = ""


Decide = Callable[["Entry | None", Change], "Step | str | None"]
"""Takes an entry (None where it is gone) and what its journal says; returns what to do, or why it stays as it is.

None where it stays, and nobody needs to know.
"""


class Replay:
    """Goes through one journal. Without a writer it only looks.

    `note` takes a kind (left, failed), a path and a reason, as a walk's does.
    """

    def __init__(
        self,
        root: str,
        journal: Journal,
        writer: Writer | None,
        decide: Decide,
        note: Callable[[str, str, str], None],
    ) -> None:
        self.changed = self.left = self.failed = 0
        self._journal, self._decide, self._note = journal, decide, note
        self._dry = writer is None
        self._folder = ""
        self._cursor = Cursor(root)
        self._descriptors = Descriptors()
        self._batch = Batch(writer, self._fail)

    def run(self, step: Callable[[int], None]) -> None:
        """Go through it all; `step` is told after each folder how many entries that were. Raises JournalFailed."""
        seen = 0
        try:
            # Backwards, so what is in a folder is put back while the folder can still be entered.
            for folder, changes in self._journal.backwards():
                self._folder = folder
                self._go(changes)
                seen += len(changes)
                step(seen)
        finally:
            self._batch.close()
            self._cursor.close()
            self._descriptors.close()

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
                entry = Entry(change.name, self._cursor.fd, self._descriptors)
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
        """Decide on an entry; return whether the batch has it now."""
        step = MOUNTED if entry is not None and self._is_mounted(entry) else self._decide(entry, change)
        if isinstance(step, str):
            self._leave(change.name, step)
        if entry is None or not isinstance(step, Step):
            return False
        if step.remark:
            self._note("left", self._path(change.name), step.remark)
        self._batch.held.append((entry, step.change, step.attributes, True))
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
        self._note("left", self._path(name), reason)

    def _fail(self, name: str, error: OSError) -> None:
        self.failed += 1
        self._note("failed", self._path(name), error.strerror or str(error))

    def _path(self, name: str) -> str:
        if name == ".":
            return self._folder or "."
        return f"{self._folder}/{name}" if self._folder else name
