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

from stackhand.perms.batch import Batch, refusal
from stackhand.perms.cursor import MOUNTED, Cursor, OtherFileSystem
from stackhand.perms.entry import Descriptors, Entry, keep_special
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
_FILE, _LINK = stat.S_IFREG, stat.S_IFLNK
# Something else took the place of an entry, or nothing.
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
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


@dataclass(frozen=True)
class Place:
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
            place = Place((), self._rules.root_area, fresh=False, keeps_executable=self._rules.keeps_executable)
            self._itself(".", place.area, place.data)
            return self._visit(place)

    def visit(self, place: Place) -> list[Place]:
        """Visit one folder, not those in it, which are returned."""
        with self._counted("" if place.area is REST else place.names[0]):
            try:
                self._cursor.go(place.names[:-1])
            except OSError as error:
                if error.errno not in _VANISHED:
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
        area, keeps = place.area, place.keeps_executable
        if area is PLAIN:
            if self._is_there(f"{name}/{VENV_MARK}"):
                area = VENDORED
            # Another repository, which was not asked what it records.
            keeps = keeps or self._is_there(f"{name}/.git")
        # Before going in: who is not root may have to open the folder to himself first.
        if not self._itself(name, area, place.data):
            return []
        try:
            found = self._cursor.down(name)
        except OtherFileSystem as error:
            self._leave(self._path(name), str(error.strerror))
            return []
        except OSError as error:
            if error.errno not in _VANISHED:
                self._fail(self._path(name), error)
            return []
        fresh = place.fresh or found.st_mtime_ns >= self._known.began or found.st_ctime_ns > self._known.ended
        return self._visit(Place(place.names, area, fresh, place.data, keeps))

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
        exception: Special | None = None
        held, most = self._batch.held, self._batch.most
        for entry in chunk:
            name = entry.name
            if special:
                exception = special.get(name)
                if exception is not None and exception.mode is None and not exception.data:
                    if exception.leave:
                        self._leave(self._path(name), exception.leave)
                    continue
            if entry.is_dir(follow_symlinks=False):
                at = f"{path}/{name}" if path else name
                inner = rules.folder(area, at if relevant else "", name)
                data = exception.data if exception else place.data
                folders.append(Place((*place.names, name), inner, fresh, data, place.keeps_executable))
                continue
            tally.scanned += 1
            if not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                continue  # sockets, devices, fifos
            if not (likely_wrong or root or exception or (named and name in named)):
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _VANISHED:
                        self._fail(self._path(name), error)
                    continue
                mode = seen.st_mode
                right = (seen.st_uid == uid and seen.st_gid == gid) or not (everyone or seen.st_uid == 0)
                if right and mode & 0o170000 == stat.S_IFLNK:
                    continue
                permissions = mode & 0o777
                if right:
                    if not plain:
                        right = permissions == mode_of_area if mode_of_area else permissions != 0 or area.keeps_none
                    elif seen.st_size < SHORTEST and not place.keeps_executable:
                        right = permissions == (0o755 if rules.is_executable(name) else 0o644)
                    else:
                        right = (
                            permissions in _MODES
                            and seen.st_mtime_ns < began
                            and seen.st_ctime_ns <= ended
                            and seen.st_nlink == 1
                        )
                    if right:
                        continue
            likely_wrong = self._closer(name, place, path, relevant, exception)
            if len(held) >= most:
                self._flush()
                held = self._batch.held

    def _closer(self, name: str, place: Place, path: str, relevant: bool, exception: Special | None) -> bool:
        """Hold a file or symbolic link and judge it; return whether it is wrong."""
        area = place.area
        if exception is not None:
            area = PLAIN if exception.plain else SECRET
        elif relevant:
            area = self._rules.file(area, f"{path}/{name}" if path else name, name)
        entry = self._hold(name, self._before)
        if entry is None:
            return False
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
        return kept

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

    def _itself(self, name: str, area: Area, data: str) -> bool:
        """Judge a folder by its name in the current one; return whether it is there, and to be entered."""
        self.tally.scanned += 1
        entry = self._hold(name)
        if entry is None:
            return False
        if entry.kind != stat.S_IFDIR:
            entry.close()
            return False
        mode = entry.mode
        reason = self._reason_to_leave(entry, data) if name != "." else None
        if reason is not None:
            entry.close()
            self._leave(self._path(name), reason)
            return False
        usual = 0o755 if not area.keeps_none else 0
        wanted = area.directory if area.directory is not None else (mode & 0o777 or usual)
        if self._judge(entry, name, area, keep_special(wanted, mode)):
            self._flush()
        else:
            entry.close()
        return True

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
        try:
            os.stat(path, dir_fd=self._cursor.fd, follow_symlinks=False)
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


def _data_of(service: str, entry: Entry) -> str:
    return f"it is data of {service}, whose container made it uid {entry.seen.st_uid}'s"
