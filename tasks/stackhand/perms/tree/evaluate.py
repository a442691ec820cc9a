"""Judges entries of the folder that a walk stands in, and changes what is wrong when it is told to.

Each is held by a descriptor before it is looked at, and what was looked at is what is changed. Plain files go together,
which takes far less time for each; whatever is not plain goes one by one.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from stackhand.perms.journal import Change, Writer
from stackhand.perms.policy.rules import (
    BUNDLE,
    HEAD,
    PLAIN,
    SECRET,
    SHORTEST,
    Area,
    Rules,
    Special,
    may_hold_a_key,
    steps,
    usual_mode,
    why,
)
from stackhand.perms.tree.apply import Batch, refusal
from stackhand.perms.tree.counts import Counts, Note
from stackhand.perms.tree.cursor import MOUNTED, Cursor
from stackhand.perms.tree.entry import Descriptors, Entry
from stackhand.perms.tree.plain_files import PlainFiles

_FILE, _LINK = stat.S_IFREG, stat.S_IFLNK
# Something else took the place of an entry, or nothing.
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NO_DESCRIPTOR_LEFT = (errno.EMFILE, errno.ENFILE)
NEEDS_ROOT = "needs root"


class Place(NamedTuple):
    """A folder that is still to be visited: its path below the root, its area, whether it may hold moved entries.

    `data` names the service that keeps its data there. Where `keeps_executable`, what is executable stays so.
    """

    names: tuple[str, ...]
    area: Area
    fresh: bool
    data: str = ""
    keeps_executable: bool = False


class Evaluator:
    """Judges what is in the folder where the cursor stands. With a journal it changes what is wrong.

    `note` is told of everything that people may want to read. `before` is a moment before those entries
    are opened that are judged now. `most` is how many files may be judged together.
    """

    def __init__(
        self, cursor: Cursor, rules: Rules, journal: Writer | None, note: Note, *, devices_closed: bool = False
    ) -> None:
        self._me = os.geteuid()
        self.tally = Counts()
        self.before = 0
        # Only what changes something: a check tells of each entry that is wrong.
        self.together = devices_closed and journal is not None and self._me == 0
        # Where one is wrong the next one often is: then looking at it by name first would be in vain.
        self.likely_wrong = False
        self._cursor = cursor
        self._descriptors = Descriptors(devices_closed=devices_closed)
        self._rules = rules
        self._journal = journal
        self._note = note
        self._groups = {os.getegid(), *os.getgroups()}
        self._batch = Batch(journal, lambda name, error: self.fail(self.path(name), error))
        self.most = self._batch.most
        self._uid, self._gid = rules.target.uid, rules.target.gid
        self._trusted = (0, self._uid)

    def close(self) -> None:
        """Let go of what is held."""
        self._batch.close()
        self._descriptors.close()

    def files(self, names: list[str], place: Place, path: str | None) -> None:
        """Hold files and judge them, as `file` does for each, those that are plain together."""
        handful = PlainFiles(names, self._cursor.fd)
        try:
            wrong = handful.wrong(
                self._rules, place.area, self._cursor.dev, self.before, keeps_executable=place.keeps_executable
            )
            found = sum(len(each.names) for each in wrong.values())
            self.tally.wrong += found
            if found:
                self.tally.changed += self._batch.do_alike(self._cursor.path, wrong)
        finally:
            handful.close()
        for name in handful.others:
            self.file(name, place, path, None)
        self.likely_wrong = 2 * found > len(names)

    def file(self, name: str, place: Place, path: str | None, exception: Special | None) -> None:
        """Hold a file or symbolic link, judge it, and take it into the batch where it is wrong."""
        area = place.area
        if exception is not None:
            area = PLAIN if exception.plain else SECRET
        elif path is not None:
            area = self._rules.file(area, f"{path}/{name}" if path else name, name)
        entry = self._hold(name, self.before)
        if entry is None:
            return
        kept = False
        try:
            if entry.seen.st_dev != self._cursor.dev and self._cursor.is_mounted(entry.held):
                self.leave(self.path(name), MOUNTED)
            elif place.data and self._is_a_containers(entry):
                if entry.kind in (stat.S_IFREG, stat.S_IFLNK):
                    self.leave(self.path(name), _data_of(place.data, entry))
            elif entry.kind == _FILE:
                usual = self._usual(entry, name, area, exception, place.keeps_executable)
                kept = self._judge(entry, name, area, usual, exception)
            elif entry.kind == _LINK:
                kept = self._judge(entry, name, area)
        finally:
            if not kept:
                entry.close()
        if self._batch.is_full:
            self.flush()

    def _hold(self, name: str, before: int | None = None) -> Entry | None:
        """Hold an entry of the current folder; None where it has just vanished, or can't be held, which is told."""
        try:
            return Entry(name, self._cursor.fd, self._descriptors, before)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR_LEFT and self._batch.held:
                self.flush()  # which lets go of some
                return self._hold(name, before)
            if error.errno not in VANISHED:
                self.fail(self.path(name), error)
        return None

    def _usual(self, entry: Entry, name: str, area: Area, exception: Special | None, keeps_executable: bool) -> int:
        """Return the mode that a regular file has where no rule names one. Only in a plain area its content counts."""
        mode = entry.mode
        script = (exception is not None and exception.plain) or self._rules.is_executable(name)
        if area is not PLAIN:
            return 0o755 if script else 0o644
        size = entry.seen.st_size
        head = entry.read(min(size, HEAD)) if size >= SHORTEST else b""
        if head and size > HEAD and may_hold_a_key(head):
            head = entry.read(BUNDLE) or head
        return usual_mode(head, mode, name, script=script or (keeps_executable and bool(mode & 0o100)))

    def folder(self, name: str, area: Area, data: str) -> tuple[os.stat_result | None, int | None]:
        """Judge a folder by its name in the current one; return what it was, and a descriptor if it has been opened.

        None where it is gone, or not to be entered.
        """
        self.tally.scanned += 1
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
        if not self._judge(entry, name, area):
            return entry.seen, entry.release()
        seen = entry.seen
        self.flush()  # which closes it
        return seen, None

    def _reason_to_leave(self, folder: Entry, data: str) -> str | None:
        """Return why a folder is left alone with all in it, None where it is not."""
        if folder.seen.st_dev != self._cursor.dev:
            return MOUNTED
        if data and self._is_a_containers(folder):
            return _data_of(data, folder)
        return self._rules.left_to_its_database(folder.seen.st_uid, folder.mode, folder.holds)

    def _is_a_containers(self, entry: Entry) -> bool:
        """Whether an entry of a service's data was made by its container: neither by root nor by the target user."""
        return entry.seen.st_uid not in (0, self._uid)

    def _judge(self, entry: Entry, name: str, area: Area, usual: int = 0o644, exception: Special | None = None) -> bool:
        """Take an entry into the batch when it is wrong; return whether it was taken, and stays open."""
        seen, tally = entry.seen, self.tally
        uid, gid, mode = seen.st_uid, seen.st_gid, entry.mode
        new_uid, new_gid, wanted = self._rules.desired(area, entry.kind, uid, gid, mode, usual, exception)
        same_owner = new_uid == uid and new_gid == gid
        if same_owner and wanted == mode:
            return False
        attributes = entry.attributes()
        if attributes:
            wanted = entry.mode_with_acl(wanted, attributes)
            if same_owner and wanted == mode:
                return False
        tally.wrong += 1
        whole = Change(name, seen.st_ino, uid, gid, mode, new_uid, new_gid, wanted)
        reason = refusal(entry, whole, self._trusted, links_stay_inside=self._rules.links_stay_inside)
        if reason is not None:
            return self._refuse(name, reason)
        change = whole if self._me == 0 else self._within_rights(whole)
        if change is not whole:
            tally.needs_root += 1
        if name.endswith(".env") and area is not SECRET and not mode & 0o007 and change.new_mode & 0o004:
            self._note("opened", self.path(name), f"mode {mode:03o} before")
        if self._journal is None:
            needs = "" if change is whole else f"{NEEDS_ROOT}: "
            self._note("wrong", self.path(name), needs + why(*whole[2:]))
            return False
        if change is not whole:
            self._note("failed", self.path(name), f"{NEEDS_ROOT}: {why(*whole[2:])}")
            if not steps(*change[2:]):
                return False
        self._batch.held.append((entry, change, attributes, change is whole))
        return True

    def _within_rights(self, change: Change) -> Change:
        """Return as much of a change as this user may do who is not root."""
        if change.uid != self._me:
            return change.keeping_all()
        may_give = change.new_uid == change.uid and (change.new_gid == change.gid or change.new_gid in self._groups)
        return change if may_give else change.keeping_owner()

    def flush(self) -> None:
        """Journal what is in the batch, then do it."""
        if self._batch.held:
            changed, partial = self._batch.do(self._cursor.path)
            self.tally.changed += changed
            self.tally.partial += partial

    def path(self, name: str) -> str:
        """Return the path below the root of something in this folder, or of the folder itself (`.`)."""
        above = self._cursor.path
        if name == ".":
            return above or "."
        return f"{above}/{name}" if above else name

    def _refuse(self, name: str, reason: str) -> bool:
        self.tally.refused += 1
        self._note("refused", self.path(name), reason)
        return False

    def leave(self, path: str, reason: str) -> None:
        """Count and note what is left alone."""
        self.tally.left += 1
        self._note("left", path, reason)

    def fail(self, path: str, error: OSError) -> None:
        """Count and note what could not be looked at or changed."""
        self.tally.failed += 1
        self._note("failed", path, error.strerror or str(error))


def _data_of(service: str, entry: Entry) -> str:
    return f"it is data of {service}, whose container made it uid {entry.seen.st_uid}'s"
