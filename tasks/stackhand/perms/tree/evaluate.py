"""Evaluates entries of the folder that a walk stands in, and changes what is wrong if it has a journal.

Each entry is held by a descriptor before it is looked at, so the file that is changed is the one that was looked at.
Plain files go together, which takes far less time for each. All else goes one by one.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from stackhand.perms.journal import Change, Writer
from stackhand.perms.policy import strict
from stackhand.perms.policy.content import BUNDLE, HEAD, SHORTEST, may_hold_a_key, usual_mode
from stackhand.perms.policy.rules import BY_CONTENT, PLAIN, SECRET, STRICT, PathRule, Rules, Zone
from stackhand.perms.policy.steps import steps, why
from stackhand.perms.tree.apply import Batch, refusal
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.cursor import MOUNTED, Cursor
from stackhand.perms.tree.entry import Entry, ProcFd
from stackhand.perms.tree.events import AddEvent
from stackhand.perms.tree.plain_files import PlainFiles

_FILE, _LINK = stat.S_IFREG, stat.S_IFLNK
# The errors of a name that has just vanished, or that something else has now.
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NO_DESCRIPTOR_LEFT = (errno.EMFILE, errno.ENFILE)
NEEDS_ROOT = "needs root"


class PendingDir(NamedTuple):
    """A folder that is still to be visited: the names of its path below the root, its zone, and how to treat its files.

    With `fresh`, it or a folder above it has changed since the last clean run, so files may have been moved into it.
    `data` is the rule for what containers made there. With `keeps_executable`, files that are executable stay so.
    """

    names: tuple[str, ...]
    zone: Zone
    fresh: bool
    data: PathRule | None = None
    keeps_executable: bool = False


class Evaluator:
    """Evaluates entries of the folder where the cursor stands. With a journal it changes what is wrong.

    `before` must be set to a moment before the next entries are opened, in nanoseconds since the epoch. `most` is how
    many files may be evaluated together, `together` whether that is worth it, and `likely_wrong` whether most of the
    last files were wrong.
    """

    def __init__(
        self, cursor: Cursor, rules: Rules, journal: Writer | None, add_event: AddEvent, *, devices_closed: bool = False
    ) -> None:
        self._me = os.geteuid()
        self.counts = Counts()
        self.before = 0
        # Not for a check: that adds an event for each entry that is wrong.
        self.together = devices_closed and journal is not None and self._me == 0
        # Where one file is wrong the next often is, too: then a look at it by name, before it is opened, is wasted.
        self.likely_wrong = False
        self._cursor = cursor
        self._proc_fd = ProcFd(devices_closed=devices_closed)
        self._rules = rules
        self._journal = journal
        self._add_event = add_event
        self._groups = {os.getegid(), *os.getgroups()}
        self._batch = Batch(journal, lambda name, error: self.fail(self.path(name), error))
        self.most = self._batch.most
        self._uid, self._gid = rules.target.uid, rules.target.gid
        self._trusted = (0, self._uid)

    def close(self) -> None:
        """Close all descriptors."""
        self._batch.close()
        self._proc_fd.close()

    def files(self, names: list[str], directory: PendingDir, path: str | None) -> None:
        """Do what `file` does for each of these files; the plain ones go together."""
        plain_files = PlainFiles(names, self._cursor.fd)
        try:
            wrong = plain_files.wrong(
                self._rules,
                directory.zone,
                self._cursor.dev,
                self.before,
                mounted=directory.data,
                keeps_executable=directory.keeps_executable,
            )
            found = sum(len(each.names) for each in wrong.values())
            self.counts.wrong += found
            if found:
                self.counts.changed += self._batch.do_alike(self._cursor.path, wrong)
        finally:
            plain_files.close()
        for name in plain_files.others:
            self.file(name, directory, path, None)
        self.likely_wrong = 2 * found > len(names)

    def file(self, name: str, directory: PendingDir, path: str | None, exception: PathRule | None) -> None:
        """Open a file or symbolic link, evaluate it, and add it to the batch if it is wrong."""
        zone = directory.zone
        if exception is not None:
            zone = STRICT if exception.strict else PLAIN if exception.plain else SECRET
        else:
            at = "" if path is None else f"{path}/{name}" if path else name
            zone = self._rules.file(zone, at, name)
        entry = self._hold(name, self.before)
        if entry is None:
            return
        kept = False
        try:
            if entry.seen.st_dev != self._cursor.dev and self._cursor.is_mounted(entry.held):
                self.leave(self.path(name), MOUNTED)
            elif (reason := self._reason_of_container(entry, directory.data)) is not None:
                if entry.kind in (stat.S_IFREG, stat.S_IFLNK):
                    self.leave(self.path(name), reason)
            elif entry.kind == _FILE:
                if zone is STRICT and directory.zone is not STRICT:
                    self.leave_to_program(name, exception)
                usual = self._usual(entry, name, zone, exception, directory.keeps_executable)
                kept = self._evaluate(entry, name, zone, usual, exception)
            elif entry.kind == _LINK:
                kept = self._evaluate(entry, name, zone)
        finally:
            if not kept:
                entry.close()
        if self._batch.is_full:
            self.flush()

    def _hold(self, name: str, before: int | None = None) -> Entry | None:
        """Open an entry of the current folder; None if it has just vanished, or failed to open."""
        try:
            return Entry(name, self._cursor.fd, self._proc_fd, before)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR_LEFT and self._batch.held:
                self.flush()  # which closes some
                return self._hold(name, before)
            if error.errno not in VANISHED:
                self.fail(self.path(name), error)
        return None

    def _usual(self, entry: Entry, name: str, zone: Zone, exception: PathRule | None, keeps_executable: bool) -> int:
        """Return the mode that a regular file gets if no rule names one. Its content counts only in a plain zone."""
        mode = entry.mode
        script = (exception is not None and exception.plain) or self._rules.is_executable(name)
        if zone not in BY_CONTENT:
            return 0o755 if script else 0o644
        size = entry.seen.st_size
        head = entry.read(min(size, HEAD)) if size >= SHORTEST else b""
        if head and size > HEAD and may_hold_a_key(head):
            head = entry.read(BUNDLE) or head
        return usual_mode(head, mode, name, script=script or (keeps_executable and bool(mode & 0o100)))

    def folder(self, name: str, zone: Zone, data: PathRule | None) -> tuple[os.stat_result | None, int | None]:
        """Evaluate a folder of the current one; return what it was, and a readable descriptor if there is one.

        The first is None if the folder is gone, or must not be entered. The caller closes the descriptor.
        """
        self.counts.scanned += 1
        entry = self._hold(name)
        if entry is None:
            return None, None
        if entry.kind != stat.S_IFDIR:
            entry.close()
            return None, None
        reason = self._reason_to_leave(entry, data) if name != "." else None
        if reason is not None:
            entry.close()
            self.leave(self.path(name), reason)
            return None, None
        if not self._evaluate(entry, name, zone):
            return entry.seen, entry.release()
        seen = entry.seen
        self.flush()  # which closes it
        return seen, None

    def _reason_to_leave(self, folder: Entry, data: PathRule | None) -> str | None:
        """Return why a folder is left alone with all that is in it; None if it is not."""
        if folder.seen.st_dev != self._cursor.dev:
            return MOUNTED
        reason = self._reason_of_container(folder, data)
        return reason or self._rules.left_to_its_database(folder.seen.st_uid, folder.mode, folder.holds)

    def _reason_of_container(self, entry: Entry, data: PathRule | None) -> str | None:
        """Return why an entry is left to the containers that mount it; None if it is not."""
        if data is None:
            return None
        return self._rules.reason_of_container(data, entry.seen.st_uid, entry.seen.st_gid, entry.mode)

    def _evaluate(
        self, entry: Entry, name: str, zone: Zone, usual: int = 0o644, exception: PathRule | None = None
    ) -> bool:
        """Add an entry to the batch if it is wrong; return whether it was added, and stays open."""
        seen, counts = entry.seen, self.counts
        uid, gid, mode = seen.st_uid, seen.st_gid, entry.mode
        new_uid, new_gid, wanted = self._rules.desired(zone, entry.kind, uid, gid, mode, usual, exception)
        same_owner = new_uid == uid and new_gid == gid
        if same_owner and wanted == mode:
            return False
        attributes = entry.attributes()
        if attributes:
            wanted = entry.mode_with_acl(wanted, attributes)
            if same_owner and wanted == mode:
                return False
        counts.wrong += 1
        whole = Change(name, seen.st_ino, uid, gid, mode, new_uid, new_gid, wanted)
        reason = refusal(entry, whole, self._trusted, links_stay_inside=self._rules.links_stay_inside)
        if reason is not None:
            return self._refuse(name, reason)
        change = whole if self._me == 0 else self._within_rights(whole)
        if change is not whole:
            counts.needs_root += 1
        if self._journal is None:
            needs = "" if change is whole else f"{NEEDS_ROOT}: "
            self._add_event("wrong", self.path(name), needs + why(*whole[2:]))
            return False
        if change is not whole:
            self._add_event("failed", self.path(name), f"{NEEDS_ROOT}: {why(*whole[2:])}")
            if not steps(*change[2:]):
                return False
        self._batch.held.append((entry, change, attributes, change is whole))
        return True

    def _within_rights(self, change: Change) -> Change:
        """Return as much of a change as this user may make, who is not root."""
        if change.uid != self._me:
            return change.keeping_all()
        may_give = change.new_uid == change.uid and (change.new_gid == change.gid or change.new_gid in self._groups)
        return change if may_give else change.keeping_owner()

    def flush(self) -> None:
        """Change what is in the batch, the journal first. Raises JournalFailed."""
        if self._batch.held:
            changed, partial = self._batch.do(self._cursor.path)
            self.counts.changed += changed
            self.counts.partial += partial

    def path(self, name: str) -> str:
        """Return the path below the root of an entry of the current folder, or of the folder itself (`.`)."""
        above = self._cursor.path
        if name == ".":
            return above or "."
        return f"{above}/{name}" if above else name

    def _refuse(self, name: str, reason: str) -> bool:
        self.counts.refused += 1
        self._add_event("refused", self.path(name), reason)
        return False

    def leave(self, path: str, reason: str) -> None:
        """Count an entry that is left alone, and add an event with the reason."""
        self.counts.left += 1
        self._add_event("left", path, reason)

    def leave_to_program(self, name: str, exception: PathRule | None) -> None:
        """Add an event that says which strict program reads an entry of the current folder, and so keeps its owner."""
        known = exception.strict if exception is not None else ""
        program = strict.BY_NAME[known] if known else strict.FOLDERS.get(name) or strict.FILES[name]
        self.leave(self.path(name), program.reason)

    def fail(self, path: str, error: OSError) -> None:
        """Count an entry that could not be looked at or changed, and add an event with the error."""
        self.counts.failed += 1
        self._add_event("failed", path, error.strerror or str(error))
