"""Goes through the tree, and has everything judged that may be wrong.

This is the hot loop: hundreds of thousands of entries pass here. An entry that is right costs one `lstat`; only what
may be wrong is opened, and what lies among much that is wrong. Nothing is kept of an entry once it was dealt with.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from stackhand.perms.journal import Writer
from stackhand.perms.policy.rules import PLAIN, REST, VENDORED, VENV_MARK, Area, Rules
from stackhand.perms.tree.counts import Counts, Note
from stackhand.perms.tree.cursor import Cursor, OtherFileSystem
from stackhand.perms.tree.evaluate import VANISHED, Evaluator, Place

# Kinds of entries whose verdict is remembered, at most: there are a few, unless somebody makes up a tree.
_KINDS = 4096
# How often `step` is called, at most, in nanoseconds.
_STEP = 20_000_000


@dataclass(frozen=True)
class Known:
    """When the whole tree was last seen to be right: `began` and `ended`, in nanoseconds since the epoch.

    A file whose content is older than `began`, and that nobody but that run touched before `ended`, needs not be read
    again to tell whether it is a script or a key.
    """

    began: int = 0
    ended: int = 0


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
        step: Callable[[Counts], None] = lambda _: None,
        *,
        devices_closed: bool = False,
    ) -> None:
        self._cursor = Cursor(root)
        self._judge = Evaluator(self._cursor, rules, journal, note, devices_closed=devices_closed)
        self.tally = self._judge.tally
        self._top, self._counted = "", (0, 0, 0)
        self._rules = rules
        self._known = known
        self._step = step
        self._next_step = 0
        # By area: whether entries with this owner, group, type and mode stay as they are, None where that depends on
        # their content.
        self._stays: dict[str, dict[tuple[int, int, int], bool | None]] = {}

    def close(self) -> None:
        """Let go of the tree; only now the tally is whole."""
        self._count_for(self._top)
        self._judge.close()
        self._cursor.close()

    def root(self) -> list[Place]:
        """Visit the root itself; return the folders in it."""
        place = Place((), self._rules.root_area, fresh=False, keeps_executable=self._rules.keeps_executable)
        _, fd = self._judge.folder(".", place.area, place.data)
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
            self._judge.flush()
            if error.errno not in VANISHED:
                self._judge.fail("/".join(place.names), error)
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
        found, fd = self._judge.folder(name, area, data)
        if found is None:
            return []
        try:
            if fd is None:
                found = self._cursor.down(name)
            else:
                self._cursor.into(name, fd, found)
        except OtherFileSystem as error:
            self._judge.leave(self._judge.path(name), str(error.strerror))
            return []
        known = self._known
        fresh = fresh or found.st_mtime_ns >= known.began or found.st_ctime_ns > known.ended
        return self._visit(Place(names, area, fresh, data, keeps))

    def _visit(self, place: Place) -> list[Place]:
        cursor, rules, judge = self._cursor, self._rules, self._judge
        # Further down no path has a rule of its own.
        path = cursor.path if cursor.depth < rules.deepest else None
        by_name = path is not None and (path == "" or path in rules.special or path in rules.named)
        folders: list[Place] = []
        try:
            with os.scandir(cursor.fd) as listing:
                while chunk := list(islice(listing, self._judge.most)):
                    judge.before = time.time_ns()
                    if path is not None and by_name:
                        chunk = [each for each in chunk if not self._by_its_own_rule(each, place, path, folders)]
                    self._files(chunk, place, path, folders)
                    self._judge.flush()
                    if time.monotonic_ns() > self._next_step:
                        self._next_step = time.monotonic_ns() + _STEP
                        self._step(self.tally)
        except OSError as error:
            judge.flush()
            judge.fail(cursor.path, error)
        return folders

    def _by_its_own_rule(self, entry: os.DirEntry[str], place: Place, path: str, folders: list[Place]) -> bool:
        """Deal with an entry whose name has a rule of its own; return whether it has."""
        name = entry.name
        exception = self._rules.special.get(path, {}).get(name)
        if exception is not None and exception.mode is None and not exception.data:
            if exception.leave:
                self._judge.leave(self._judge.path(name), exception.leave)
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
            self._judge.file(name, place, path, exception)
        return True

    def _inner(self, name: str, place: Place, path: str | None) -> Place:
        """Return the place of a folder in this one."""
        at = "" if path is None else f"{path}/{name}" if path else name
        inner = self._rules.folder(place.area, at, name)
        return Place((*place.names, name), inner, place.fresh, place.data, place.keeps_executable)

    def _files(self, chunk: list[os.DirEntry[str]], place: Place, path: str | None, folders: list[Place]) -> None:
        area, known = place.area, self._known
        stays = self._stays.setdefault(area.name, {})
        # Where nobody has touched a file since the whole tree was right, its content needs not be read again.
        began, ended = (0, 0) if place.fresh else (known.began, known.ended)
        together = self._judge.together and not place.data
        likely_wrong = self._judge.likely_wrong and together
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
                    if error.errno not in VANISHED:
                        self._judge.fail(self._judge.path(entry.name), error)
                    continue
                kind = (seen.st_uid, seen.st_gid, seen.st_mode)
                try:
                    right = stays[kind]
                except KeyError:
                    right = self._find_out(stays, area, *kind)
                if right or (
                    right is None and seen.st_mtime_ns < began and seen.st_ctime_ns <= ended and seen.st_nlink == 1
                ):
                    continue
            if is_file and together:
                suspects.append(entry.name)
            else:
                self._judge.file(entry.name, place, path, None)
        if suspects:
            self._judge.files(suspects, place, path)

    def _find_out(
        self, stays: dict[tuple[int, int, int], bool | None], area: Area, uid: int, gid: int, mode: int
    ) -> bool | None:
        """Ask the rules whether entries of this kind stay as they are, and remember it."""
        if len(stays) >= _KINDS:
            stays.clear()
        right = self._rules.stays(area, stat.S_IFMT(mode), uid, gid, stat.S_IMODE(mode))
        stays[uid, gid, mode] = right
        return right

    def _is_there(self, path: str) -> bool:
        return os.access(path, os.F_OK, dir_fd=self._cursor.fd, follow_symlinks=False)

    def _count_for(self, top: str) -> None:
        """From here on, count for this part of the project; what was counted since the last time is the other's."""
        tally = self.tally
        now = (tally.scanned, tally.wrong, tally.changed)
        counts = tally.tops.setdefault(self._top, [0, 0, 0])
        counts[:] = [count + n - b for count, n, b in zip(counts, now, self._counted, strict=True)]
        self._top, self._counted = top, now
