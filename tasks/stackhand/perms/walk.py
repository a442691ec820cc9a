"""Goes through the tree, judges every entry by the rules, and changes what is wrong when it is told to.

This is the hot loop: hundreds of thousands of entries pass here. An entry that is right costs one `lstat`; only what
may be wrong is opened. Nothing is kept of an entry once it was dealt with.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from stackhand.perms.batch import SIZE, Batch, refusal
from stackhand.perms.cursor import Cursor, OtherFileSystem
from stackhand.perms.entry import Descriptors, Entry, keep_special
from stackhand.perms.journal import Change, Writer
from stackhand.perms.rules import (
    HEAD,
    PLAIN,
    REST,
    SECRET,
    SHORTEST,
    SPECIAL_BITS,
    VENDORED,
    VENV_MARK,
    Area,
    Rules,
    Special,
    mode_by_content,
    steps,
    why,
)

_MODES = (0o755, 0o644, 0o600)
_NO_LONGER_A_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
NEEDS_ROOT = "needs root"


@dataclass
class Tally:
    """What was counted; `tops` has for each part of the project how many entries were wrong, and how many changed."""

    scanned: int = 0
    wrong: int = 0
    changed: int = 0
    refused: int = 0
    failed: int = 0
    needs_root: int = 0
    left: int = 0
    tops: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add what another walker counted."""
        for name in ("scanned", "wrong", "changed", "refused", "failed", "needs_root", "left"):
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


@dataclass(frozen=True)
class Place:
    """A folder that is still to be visited: its path below the root, its area, whether it may hold moved entries."""

    names: tuple[str, ...]
    area: Area
    fresh: bool


Note = Callable[[str, str, str], None]
"""Takes a kind (wrong, refused, failed, left), a path below the root, and why."""


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
        self._cursor = Cursor(root)
        self._descriptors = Descriptors(devices_closed=devices_closed)
        self._rules = rules
        self._known = known
        self._journal = journal
        self._note = note
        self._step = step
        self._before = 0
        self._me = os.geteuid()
        self._groups = {os.getegid(), *os.getgroups()}
        self._batch = Batch(journal, lambda name, error: self._fail(self._path(name), error))
        self._uid, self._gid = rules.target.uid, rules.target.gid
        self._trusted = (0, self._uid)

    def close(self) -> None:
        """Let go of the tree."""
        self._batch.close()
        self._cursor.close()
        self._descriptors.close()

    def root(self) -> list[Place]:
        """Visit the root itself; return the folders in it."""
        with self._counted(""):
            self._itself(".", self._rules.root_area)
            return self._visit(Place((), self._rules.root_area, fresh=False))

    def visit(self, place: Place) -> list[Place]:
        """Visit one folder, not those in it, which are returned."""
        with self._counted("" if place.area is REST else place.names[0]):
            try:
                self._cursor.go(place.names[:-1])
            except OSError as error:
                self._fail("/".join(place.names), error)
                return []
            return self._enter(place)

    def walk(self, place: Place) -> None:
        """Visit a folder and all below it. However deep that is, it takes one descriptor and no recursion."""
        pending = self.visit(place)
        while pending:
            place = pending.pop()
            pending += self.visit(place)

    def _enter(self, place: Place) -> list[Place]:
        """Go down into a folder of the current one, put the folder itself right, and visit it."""
        name = place.names[-1]
        area = place.area
        if area is PLAIN and self._is_environment(name):
            area = VENDORED
        # Before going in: who is not root may have to open the folder to himself first.
        if not self._itself(name, area):
            return []
        try:
            found = self._cursor.down(name)
        except OtherFileSystem as error:
            self._leave(self._path(name), str(error.strerror))
            return []
        except OSError as error:
            if error.errno not in _NO_LONGER_A_FOLDER:
                self._fail(self._path(name), error)
            return []
        fresh = place.fresh or found.st_mtime_ns >= self._known.began or found.st_ctime_ns > self._known.ended
        return self._visit(Place(place.names, area, fresh))

    def _visit(self, place: Place) -> list[Place]:
        cursor, rules = self._cursor, self._rules
        relevant = cursor.depth < rules.deepest
        path = cursor.path if relevant else ""
        special = rules.special.get(path) if relevant else None
        named = rules.named.get(path) if relevant else None
        folders: list[Place] = []
        try:
            with os.scandir(cursor.fd) as listing:
                while chunk := list(islice(listing, 1024)):
                    self._before = time.time_ns()
                    self._files(chunk, place, relevant, path, special, named, folders)
                    self._flush()
                    self._step(self.tally)
        except OSError as error:
            self._fail(cursor.path, error)
        return folders

    def _files(  # noqa: PLR0912  one loop: a call for each entry would cost more than all the branches
        self,
        chunk: list[os.DirEntry[str]],
        place: Place,
        relevant: bool,
        path: str,
        special: Mapping[str, Special] | None,
        named: set[str] | None,
        folders: list[Place],
    ) -> None:
        rules, tally, known = self._rules, self.tally, self._known
        area, fresh = place.area, place.fresh
        uid, gid, everyone = self._uid, self._gid, area.all_owners
        root = relevant and not path
        began, ended = (0, 0) if fresh else (known.began, known.ended)
        plain, mode_of_area = area is PLAIN, area.file
        # Where one is wrong the next one often is: then looking at it by name first would be in vain.
        likely_wrong = False
        for entry in chunk:
            name = entry.name
            exception = special.get(name) if special else None
            if exception is not None and exception.mode is None:
                if exception.leave:
                    self._leave(self._path(name), exception.leave)
                continue
            if entry.is_dir(follow_symlinks=False):
                at = f"{path}/{name}" if path else name
                inner = rules.folder(area, at if relevant else "", name)
                folders.append(Place((*place.names, name), inner, fresh))
                continue
            tally.scanned += 1
            if not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                continue  # sockets, devices, fifos
            if not (likely_wrong or root or exception or (named and name in named)):
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it has just vanished
                mode = seen.st_mode
                right = seen.st_uid == uid and seen.st_gid == gid if everyone else seen.st_uid != 0 or uid == 0
                if right and mode & 0o170000 == stat.S_IFLNK:
                    continue
                permissions = mode & 0o777
                if right:
                    if not plain:
                        right = permissions == mode_of_area if mode_of_area else permissions != 0
                    elif rules.is_executable(name):
                        right = permissions == 0o755
                    elif seen.st_size < SHORTEST:
                        right = permissions == 0o644
                    else:
                        right = (
                            permissions in _MODES
                            and seen.st_mtime_ns < began
                            and seen.st_ctime_ns <= ended
                            and seen.st_nlink == 1
                        )
                    if right:
                        continue
            likely_wrong = self._closer(name, area, path, relevant, exception)
            if len(self._batch.held) >= SIZE:
                self._flush()

    def _closer(self, name: str, area: Area, path: str, relevant: bool, exception: Special | None) -> bool:
        """Hold a file or symbolic link and judge it; return whether it is wrong."""
        if exception is not None:
            area = PLAIN if exception.plain else SECRET
        elif relevant:
            area = self._rules.file(area, f"{path}/{name}" if path else name, name)
        try:
            entry = Entry(name, self._cursor.fd, self._descriptors, self._before)
        except OSError:
            return False  # it has just vanished
        kept = False
        try:
            if entry.kind == stat.S_IFREG:
                wanted = self._wanted(entry, name, area, entry.mode, exception)
                keep_owner = exception is not None and exception.keep_owner
                kept = self._judge(entry, name, area, wanted, keep_owner)
            elif entry.kind == stat.S_IFLNK:
                kept = self._judge(entry, name, area, entry.mode)
        finally:
            if not kept:
                entry.close()
        return kept

    def _wanted(self, entry: Entry, name: str, area: Area, mode: int, exception: Special | None) -> int:
        if exception is not None and exception.mode is not None:
            return keep_special(exception.mode, mode)
        if area.file is None:
            usual = self._rules.is_executable(name)
            return keep_special(0o755 if usual else 0o644, mode) if not mode & 0o777 else mode
        if area is SECRET:
            return keep_special(area.file, mode)
        if self._rules.is_executable(name):
            return keep_special(0o755, mode)
        head = entry.read(HEAD) if entry.seen.st_size >= SHORTEST else b""
        if head is None and mode & 0o777 in _MODES:
            return mode  # it can't be told, and may be right
        return mode_by_content(head or b"", mode) | (mode & SPECIAL_BITS)

    def _itself(self, name: str, area: Area) -> bool:
        """Judge a folder by its name in the current one; return whether it is there, and to be entered."""
        self.tally.scanned += 1
        try:
            entry = Entry(name, self._cursor.fd, self._descriptors)
        except OSError:
            return False
        if entry.kind != stat.S_IFDIR:
            entry.close()
            return False
        mode = entry.mode
        data = self._rules.left_to_its_database(entry.seen.st_uid, mode, entry.holds)
        if data is not None and name != ".":
            entry.close()
            self._leave(self._path(name), data)
            return False
        wanted = area.directory if area.directory is not None else (mode & 0o777 or 0o755)
        if self._judge(entry, name, area, keep_special(wanted, mode)):
            self._flush()
        else:
            entry.close()
        return True

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
        reason = refusal(entry, whole, self._trusted)
        if reason is not None:
            return self._refuse(name, reason)
        change = whole if self._me == 0 else self._within_rights(whole)
        if change is not whole:
            tally.needs_root += 1
        if self._journal is None:
            self._note("wrong", self._path(name), why(*whole[2:]))
            return False
        if change is not whole:
            self._note("failed", self._path(name), f"{NEEDS_ROOT}: {why(*whole[2:])}")
            if not steps(*change[2:]):
                return False
        self._batch.held.append((entry, change, attributes))
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
            self.tally.changed += self._batch.do(self._cursor.path)

    def _is_environment(self, name: str) -> bool:
        try:
            os.stat(f"{name}/{VENV_MARK}", dir_fd=self._cursor.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

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

    @contextmanager
    def _counted(self, top: str) -> Iterator[None]:
        """Count what the body does for one part of the project."""
        tally = self.tally
        before = (tally.scanned, tally.wrong, tally.changed)
        try:
            yield
        finally:
            counts, now = tally.tops.setdefault(top, [0, 0, 0]), (tally.scanned, tally.wrong, tally.changed)
            counts[:] = [count + n - b for count, n, b in zip(counts, now, before, strict=True)]
