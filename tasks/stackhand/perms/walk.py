"""Goes through the tree, judges every entry by the rules, and changes what is wrong when it is told to.

This is the hot loop: hundreds of thousands of entries pass here. An entry that is right costs one `lstat`; only what
may be wrong is opened. Nothing is kept of an entry once it was dealt with.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from stackhand.perms.batch import Batch, refusal
from stackhand.perms.cursor import MOUNTED, Cursor, OtherFileSystem
from stackhand.perms.entry import Descriptors, Entry, keep_special
from stackhand.perms.handful import Handful
from stackhand.perms.journal import Change, Writer
from stackhand.perms.rules import (
    BUNDLE,
    HEAD,
    PLAIN,
    REST,
    SECRET,
    SHORTEST,
    VENDORED,
    VENV_MARK,
    Area,
    Rules,
    Special,
    may_hold_a_key,
    mode_by_content,
    steps,
    why,
)

_MODES = (0o755, 0o644, 0o600)
# What files may be that are right, by area; in the others every mode may be.
_RIGHT = {
    PLAIN.name: frozenset(stat.S_IFREG | mode for mode in _MODES),
    SECRET.name: frozenset({stat.S_IFREG | 0o600}),
}
# Later than any time of a file.
_EVER = 2**64
_FILE, _LINK = stat.S_IFREG, stat.S_IFLNK
# Something else took the place of an entry, or nothing.
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# How often `step` is called, at most, in nanoseconds.
_STEP = 20_000_000
_NO_DESCRIPTOR_LEFT = (errno.EMFILE, errno.ENFILE)
NEEDS_ROOT = "needs root"


@dataclass
class Tally:
    """What was counted; `tops` has for each part of the project how many entries were wrong, and how many changed.

    `changed` are right now; `partial` were changed as far as this user may, and are wrong still.
    """

    scanned: int = 0
    wrong: int = 0
    changed: int = 0
    partial: int = 0
    refused: int = 0
    failed: int = 0
    needs_root: int = 0
    left: int = 0
    tops: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add what another walker counted."""
        for name in ("scanned", "wrong", "changed", "partial", "refused", "failed", "needs_root", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for top, counts in other.tops.items():
            mine = self.tops.setdefault(top, [0, 0, 0])
            mine[:] = [one + two for one, two in zip(mine, counts, strict=True)]


@dataclass(frozen=True)
class Known:
    """When the whole tree was last seen to be right: `began` and `ended`, in nanoseconds since the epoch.

    A file whose content is older than `began`, and that nobody but that run touched before `ended`, needs not be read
    again to tell whether it is a script or a key.
    """

    began: int = 0
    ended: int = 0


class Place(NamedTuple):
    """A folder that is still to be visited: its path below the root, its area, whether it may hold moved entries.

    `data` names the service that keeps its data there. Where `keeps_executable`, what is executable stays so.
    """

    names: tuple[str, ...]
    area: Area
    fresh: bool
    data: str = ""
    keeps_executable: bool = False


Note = Callable[[str, str, str], None]
"""Takes a kind (wrong, refused, failed, left, opened), a path below the root, and why."""


class Walker:
    """Walks in one process. With a journal it changes what is wrong, without one it only looks.

    `note` is told of everything that people may want to read. `step` is called now and then.
    """

    def __init__(
        self,
        root: str,
        rules: Rules,
        known: Known,
        journal: Writer | None,
        note: Note,
        step: Callable[[Tally], None] = lambda _: None,
        *,
        devices_closed: bool = False,
    ) -> None:
        self.tally = Tally()
        self._top, self._counted = "", (0, 0, 0)
        self._cursor = Cursor(root)
        self._descriptors = Descriptors(devices_closed=devices_closed)
        self._rules = rules
        self._known = known
        self._journal = journal
        self._note = note
        self._step = step
        self._before = self._next_step = 0
        self._me = os.geteuid()
        self._groups = {os.getegid(), *os.getgroups()}
        # Only what changes something: a check tells of each entry that is wrong.
        self._together = devices_closed and journal is not None and self._me == 0
        # Where one is wrong the next one often is: then looking at it by name first would be in vain.
        self._likely_wrong = False
        self._batch = Batch(journal, lambda name, error: self._fail(self._path(name), error))
        self._uid, self._gid = rules.target.uid, rules.target.gid
        self._trusted = (0, self._uid)

    def close(self) -> None:
        """Let go of the tree; only now the tally is whole."""
        self._count_for(self._top)
        self._batch.close()
        self._cursor.close()
        self._descriptors.close()

    def root(self) -> list[Place]:
        """Visit the root itself; return the folders in it."""
        place = Place((), self._rules.root_area, fresh=False, keeps_executable=self._rules.keeps_executable)
        _, fd = self._itself(".", place.area, place.data)
        if fd is not None:
            os.close(fd)
        return self._visit(place)

    def visit(self, place: Place) -> list[Place]:
        """Visit one folder, not those in it, which are returned."""
        top = "" if place.area is REST else place.names[0]
        if top != self._top:
            self._count_for(top)
        try:
            self._cursor.go(place.names[:-1])
            return self._enter(place)
        except OSError as error:
            if error.errno not in _VANISHED:
                self._fail("/".join(place.names), error)
            return []

    def walk(self, place: Place) -> None:
        """Visit a folder and all below it. However deep that is, it takes one descriptor and no recursion."""
        pending = self.visit(place)
        while pending:
            place = pending.pop()
            pending += self.visit(place)

    def _enter(self, place: Place) -> list[Place]:
        """Go down into a folder of the current one, put the folder itself right, and visit it."""
        names, area, fresh, data, keeps = place
        name = names[-1]
        if area is PLAIN:
            if self._is_there(f"{name}/{VENV_MARK}"):
                area = VENDORED
            # Another repository, which was not asked what it records.
            keeps = keeps or self._is_there(f"{name}/.git")
        # Before going in: who is not root may have to open the folder to himself first.
        found, fd = self._itself(name, area, data)
        if found is None:
            return []
        try:
            if fd is None:
                found = self._cursor.down(name)
            else:
                self._cursor.into(name, fd, found)
        except OtherFileSystem as error:
            self._leave(self._path(name), str(error.strerror))
            return []
        known = self._known
        fresh = fresh or found.st_mtime_ns >= known.began or found.st_ctime_ns > known.ended
        return self._visit(Place(names, area, fresh, data, keeps))

    def _visit(self, place: Place) -> list[Place]:
        cursor, rules = self._cursor, self._rules
        # Further down no path has a rule of its own.
        path = cursor.path if cursor.depth < rules.deepest else None
        by_name = path is not None and (path == "" or path in rules.special or path in rules.named)
        folders: list[Place] = []
        try:
            with os.scandir(cursor.fd) as listing:
                while chunk := list(islice(listing, self._batch.most)):
                    self._before = time.time_ns()
                    if path is not None and by_name:
                        chunk = [each for each in chunk if not self._by_its_own_rule(each, place, path, folders)]
                    self._files(chunk, place, path, folders)
                    self._flush()
                    if self._before > self._next_step:
                        self._next_step = self._before + _STEP
                        self._step(self.tally)
        except OSError as error:
            self._fail(cursor.path, error)
        return folders

    def _by_its_own_rule(self, entry: os.DirEntry[str], place: Place, path: str, folders: list[Place]) -> bool:
        """Deal with an entry whose name has a rule of its own; return whether it has."""
        name = entry.name
        exception = self._rules.special.get(path, {}).get(name)
        if exception is not None and exception.mode is None and not exception.data:
            if exception.leave:
                self._leave(self._path(name), exception.leave)
            return True
        if entry.is_dir(follow_symlinks=False):
            if exception is not None:
                folders.append(self._inner(name, place._replace(data=exception.data), path))
            return exception is not None
        # Each file in the root itself can be one of the project's own.
        if exception is None and path and name not in self._rules.named.get(path, ()):
            return False
        self.tally.scanned += 1
        if entry.is_file(follow_symlinks=False) or entry.is_symlink():
            self._closer(name, place, path, exception)
        return True

    def _inner(self, name: str, place: Place, path: str | None) -> Place:
        """Return the place of a folder in this one."""
        at = "" if path is None else f"{path}/{name}" if path else name
        inner = self._rules.folder(place.area, at, name)
        return Place((*place.names, name), inner, place.fresh, place.data, place.keeps_executable)

    def _files(  # noqa: PLR0912  one loop: a call for each entry would cost more than all the branches
        self, chunk: list[os.DirEntry[str]], place: Place, path: str | None, folders: list[Place]
    ) -> None:
        area, known = place.area, self._known
        uid, gid, everyone = self._uid, self._gid, area.all_owners
        right = _RIGHT.get(area.name)
        # What a file has to be by its content need not be asked where nobody touched it since.
        began, ended = (_EVER, _EVER) if area is not PLAIN else (0, 0) if place.fresh else (known.began, known.ended)
        together = self._together and not place.data
        likely_wrong = self._likely_wrong and together
        suspects: list[str] = []
        for entry in chunk:
            is_file = entry.is_file(follow_symlinks=False)
            if not is_file and entry.is_dir(follow_symlinks=False):
                folders.append(self._inner(entry.name, place, path))
                continue
            self.tally.scanned += 1
            if not is_file and not entry.is_symlink():
                continue  # sockets, devices, fifos
            if not (is_file and likely_wrong):
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _VANISHED:
                        self._fail(self._path(entry.name), error)
                    continue
                owner = seen.st_uid
                if (owner == uid and seen.st_gid == gid) or not (everyone or owner == 0):
                    if right and is_file:
                        if (
                            seen.st_mode in right
                            and seen.st_mtime_ns < began
                            and seen.st_ctime_ns <= ended
                            and seen.st_nlink == 1
                        ):
                            continue
                    elif not is_file or seen.st_mode & 0o777 or area.keeps_none:
                        continue
            if is_file and together:
                suspects.append(entry.name)
            else:
                self._closer(entry.name, place, path, None)
        if suspects:
            self._all_closer(suspects, place, path)

    def _all_closer(self, names: list[str], place: Place, path: str | None) -> None:
        """Hold files and judge them, as `_closer` does for each, those that are plain together."""
        handful = Handful(names, self._cursor.fd)
        try:
            wrong = handful.wrong(
                self._rules, place.area, self._cursor.dev, self._before, keeps_executable=place.keeps_executable
            )
            found = sum(len(each.names) for each in wrong.values())
            self.tally.wrong += found
            if found:
                self.tally.changed += self._batch.do_alike(self._cursor.path, wrong)
        finally:
            handful.close()
        for name in handful.others:
            self._closer(name, place, path, None)
        self._likely_wrong = 2 * found > len(names)

    def _closer(self, name: str, place: Place, path: str | None, exception: Special | None) -> None:
        """Hold a file or symbolic link, judge it, and take it into the batch where it is wrong."""
        area = place.area
        if exception is not None:
            area = PLAIN if exception.plain else SECRET
        elif path is not None:
            area = self._rules.file(area, f"{path}/{name}" if path else name, name)
        entry = self._hold(name, self._before)
        if entry is None:
            return
        kept = False
        try:
            if entry.seen.st_dev != self._cursor.dev and self._cursor.is_mounted(entry.held):
                self._leave(self._path(name), MOUNTED)
            elif place.data and self._is_a_containers(entry):
                if entry.kind in (stat.S_IFREG, stat.S_IFLNK):
                    self._leave(self._path(name), _data_of(place.data, entry))
            elif entry.kind == _FILE:
                wanted = self._wanted(entry, name, area, exception, place.keeps_executable)
                kept = self._judge(entry, name, area, wanted, exception is not None and exception.keep_owner)
            elif entry.kind == _LINK:
                kept = self._judge(entry, name, area, entry.mode)
        finally:
            if not kept:
                entry.close()
        if len(self._batch.held) >= self._batch.most:
            self._flush()

    def _hold(self, name: str, before: int | None = None) -> Entry | None:
        """Hold an entry of the current folder; None where it has just vanished, or can't be held, which is told."""
        try:
            return Entry(name, self._cursor.fd, self._descriptors, before)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR_LEFT and self._batch.held:
                self._flush()  # which lets go of some
                return self._hold(name, before)
            if error.errno not in _VANISHED:
                self._fail(self._path(name), error)
        return None

    def _wanted(self, entry: Entry, name: str, area: Area, exception: Special | None, keeps_executable: bool) -> int:
        """Return the mode that a regular file should have."""
        mode = entry.mode
        script = self._rules.is_executable(name)
        if exception is not None and exception.mode is not None:
            if not exception.plain:
                return keep_special(exception.mode, mode)
            script = True
        if area.file is None:
            return mode if mode & 0o777 or area.keeps_none else keep_special(0o755 if script else 0o644, mode)
        if area is SECRET:
            return keep_special(area.file, mode)
        size = entry.seen.st_size
        head = entry.read(min(size, HEAD)) if size >= SHORTEST else b""
        if head is None and mode & 0o777 in _MODES:
            return mode  # it can't be told, and may be right
        head = head or b""
        if size > HEAD and may_hold_a_key(head):
            head = entry.read(BUNDLE) or head
        script = script or (keeps_executable and bool(mode & 0o100))
        return keep_special(mode_by_content(head, mode, name, script=script), mode)

    def _itself(self, name: str, area: Area, data: str) -> tuple[os.stat_result | None, int | None]:
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
        mode = entry.mode
        reason = self._reason_to_leave(entry, data) if name != "." else None
        if reason is not None:
            entry.close()
            self._leave(self._path(name), reason)
            return None, None
        usual = 0o755 if not area.keeps_none else 0
        wanted = area.directory if area.directory is not None else (mode & 0o777 or usual)
        if not self._judge(entry, name, area, keep_special(wanted, mode)):
            return entry.seen, entry.release()
        fd = None if entry.fd is None else os.dup(entry.fd)
        self._flush()  # which closes it
        return entry.seen, fd

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

    def _judge(self, entry: Entry, name: str, area: Area, wanted: int, keep_owner: bool = False) -> bool:
        """Take an entry into the batch when it is wrong; return whether it was taken, and stays open."""
        seen, tally = entry.seen, self.tally
        uid, gid, mode = seen.st_uid, seen.st_gid, entry.mode
        new_uid, new_gid = uid, gid
        if (uid == 0 or area.all_owners) and not keep_owner:
            new_uid, new_gid = self._uid, self._gid
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
            self._note("opened", self._path(name), f"mode {mode:03o} before")
        if self._journal is None:
            needs = "" if change is whole else f"{NEEDS_ROOT}: "
            self._note("wrong", self._path(name), needs + why(*whole[2:]))
            return False
        if change is not whole:
            self._note("failed", self._path(name), f"{NEEDS_ROOT}: {why(*whole[2:])}")
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

    def _flush(self) -> None:
        """Journal what is in the batch, then do it."""
        if self._batch.held:
            changed, partial = self._batch.do(self._cursor.path)
            self.tally.changed += changed
            self.tally.partial += partial

    def _is_there(self, path: str) -> bool:
        return os.access(path, os.F_OK, dir_fd=self._cursor.fd)

    def _path(self, name: str) -> str:
        above = self._cursor.path
        if name == ".":
            return above or "."
        return f"{above}/{name}" if above else name

    def _refuse(self, name: str, reason: str) -> bool:
        self.tally.refused += 1
        self._note("refused", self._path(name), reason)
        return False

    def _leave(self, path: str, reason: str) -> None:
        self.tally.left += 1
        self._note("left", path, reason)

    def _fail(self, path: str, error: OSError) -> None:
        self.tally.failed += 1
        self._note("failed", path, error.strerror or str(error))

    def _count_for(self, top: str) -> None:
        """From here on, count for this part of the project; what was counted since the last time is the other's."""
        tally = self.tally
        now = (tally.scanned, tally.wrong, tally.changed)
        counts = tally.tops.setdefault(self._top, [0, 0, 0])
        counts[:] = [count + n - b for count, n, b in zip(counts, now, self._counted, strict=True)]
        self._top, self._counted = top, now


def _data_of(service: str, entry: Entry) -> str:
    return f"it is data of {service}, whose container made it uid {entry.seen.st_uid}'s"
