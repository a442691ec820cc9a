"""Goes through the tree, and has every entry evaluated that may be wrong.

This is the hot loop: hundreds of thousands of entries pass here. An entry that is right costs one `lstat`. An entry is
opened only if it may be wrong, or lies among many that are. Nothing is kept in memory of an entry that is done.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from stackhand.perms.journal import Writer
from stackhand.perms.policy.rules import PLAIN, REST, STRICT, VENDORED, VENV_MARK, PathRule, Rules, Zone
from stackhand.perms.policy.strict import FILES as STRICT_FILES
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.cursor import Cursor, OtherFileSystem
from stackhand.perms.tree.evaluate import VANISHED, Evaluator, PendingDir
from stackhand.perms.tree.events import AddEvent

# For how many combinations of owner and mode the rule's answer is remembered. A tree has a handful of them, unless it
# was made to fill the memory.
_REMEMBERED = 4096
# How often `step` is called, at most, in nanoseconds.
_STEP = 20_000_000


@dataclass(frozen=True)
class LastCleanRun:
    """The last run that left the whole tree right: when it `began` and `ended`, in nanoseconds since the epoch.

    A file with a content older than `began`, and with no other change after `ended`, need not be read again to tell
    whether it is a script or a key.
    """

    began: int = 0
    ended: int = 0


class Walker:
    """Walks in one process. With a journal it changes what is wrong, without one it only looks.

    `step` is called with the counts, every 20 ms at most.
    """

    def __init__(
        self,
        root: str,
        rules: Rules,
        last_clean: LastCleanRun,
        journal: Writer | None,
        add_event: AddEvent,
        step: Callable[[Counts], None] = lambda _: None,
        *,
        devices_closed: bool = False,
    ) -> None:
        self._cursor = Cursor(root)
        self._evaluator = Evaluator(self._cursor, rules, journal, add_event, devices_closed=devices_closed)
        self.counts = self._evaluator.counts
        self._top, self._counted = "", (0, 0, 0)
        self._rules = rules
        self._last_clean = last_clean
        self._step = step
        self._next_step = 0
        # By zone, and by owner, group, type and mode: what `Rules.stays` says.
        self._stays: dict[str, dict[tuple[int, int, int], bool | None]] = {}

    def close(self) -> None:
        """Close all descriptors. Only now the counts by top folder are complete."""
        self._count_for(self._top)
        self._evaluator.close()
        self._cursor.close()

    def root(self) -> list[PendingDir]:
        """Visit the root; return the folders in it."""
        rules = self._rules
        # The rule for the project's folder itself, where a service mounts that.
        data = rules.special.get("", {}).get(".")
        directory = PendingDir((), rules.root_zone, fresh=False, data=data, keeps_executable=rules.keeps_executable)
        _, fd = self._evaluator.folder(".", directory.zone, directory.data)
        if fd is not None:
            os.close(fd)
        return self._visit(directory)

    def visit(self, directory: PendingDir) -> list[PendingDir]:
        """Visit one folder; return the folders in it."""
        top = "" if directory.zone is REST else directory.names[0]
        if top != self._top:
            self._count_for(top)
        try:
            self._cursor.go(directory.names[:-1])
            return self._enter(directory)
        except OSError as error:
            self._evaluator.flush()
            if error.errno not in VANISHED:
                self._evaluator.fail("/".join(directory.names), error)
            return []

    def walk(self, directory: PendingDir) -> None:
        """Visit a folder and all below it. At any depth this takes two descriptors and no recursion."""
        pending = self.visit(directory)
        while pending:
            directory = pending.pop()
            pending += self.visit(directory)

    def _enter(self, directory: PendingDir) -> list[PendingDir]:
        """Evaluate a folder of the current one, go into it, and visit it; return the folders in it."""
        names, zone, fresh, data, keeps = directory
        name = names[-1]
        if zone is PLAIN:
            if self._is_there(f"{name}/{VENV_MARK}"):
                zone = VENDORED
            # Another git repository: nobody has asked it which files it records as executable.
            keeps = keeps or self._is_there(f"{name}/.git")
        # Before going in: a user who is not root may have to give themselves the right to enter first.
        found, fd = self._evaluator.folder(name, zone, data)
        if found is None:
            return []
        try:
            if fd is None:
                found = self._cursor.down(name)
            else:
                self._cursor.into(name, fd, found)
        except OtherFileSystem as error:
            self._evaluator.leave(self._evaluator.path(name), str(error.strerror))
            return []
        last_clean = self._last_clean
        fresh = fresh or found.st_mtime_ns >= last_clean.began or found.st_ctime_ns > last_clean.ended
        return self._visit(PendingDir(names, zone, fresh, data, keeps))

    def _visit(self, directory: PendingDir) -> list[PendingDir]:
        cursor, rules, evaluator = self._cursor, self._rules, self._evaluator
        # Further down, no path has a rule of its own.
        path = cursor.path if cursor.depth < rules.deepest else None
        by_name = path is not None and (path == "" or path in rules.special or path in rules.named)
        folders: list[PendingDir] = []
        try:
            with os.scandir(cursor.fd) as listing:
                while chunk := list(islice(listing, self._evaluator.most)):
                    evaluator.before = time.time_ns()
                    if path is not None and by_name:
                        chunk = [each for each in chunk if not self._by_its_own_rule(each, directory, path, folders)]
                    self._files(chunk, directory, path, folders)
                    self._evaluator.flush()
                    if time.monotonic_ns() > self._next_step:
                        self._next_step = time.monotonic_ns() + _STEP
                        self._step(self.counts)
        except OSError as error:
            evaluator.flush()
            evaluator.fail(cursor.path, error)
        return folders

    def _by_its_own_rule(
        self, entry: os.DirEntry[str], directory: PendingDir, path: str, folders: list[PendingDir]
    ) -> bool:
        """Evaluate an entry by the rule for its path; return False if there is none."""
        name = entry.name
        exception = self._rules.special.get(path, {}).get(name)
        if exception is not None and exception.leaves_all:
            if exception.leave:
                self._evaluator.leave(self._evaluator.path(name), exception.leave)
            return True
        if entry.is_dir(follow_symlinks=False):
            if exception is not None:
                folders.append(self._inner(name, directory, path, exception))
            return exception is not None
        # In the root, any file may be one of the project's own (`top_files`).
        if exception is None and path and name not in self._rules.named.get(path, ()):
            return False
        self.counts.scanned += 1
        if entry.is_file(follow_symlinks=False) or entry.is_symlink():
            self._evaluator.file(name, directory, path, exception)
        return True

    def _inner(
        self, name: str, directory: PendingDir, path: str | None, exception: PathRule | None = None
    ) -> PendingDir:
        """Return a folder of this one, to be visited later."""
        at = "" if path is None else f"{path}/{name}" if path else name
        strict = exception is not None and exception.strict
        zone = STRICT if strict else self._rules.folder(directory.zone, at, name)
        if zone is STRICT and directory.zone is not STRICT:
            self._evaluator.leave_to_program(name, exception)
        data = directory.data if strict or exception is None else exception
        return PendingDir((*directory.names, name), zone, directory.fresh, data, directory.keeps_executable)

    def _files(
        self, chunk: list[os.DirEntry[str]], directory: PendingDir, path: str | None, folders: list[PendingDir]
    ) -> None:
        zone, last_clean = directory.zone, self._last_clean
        stays = self._stays.setdefault(zone.name, {})
        # The content of a file that nobody has touched since the last clean run need not be read again.
        began, ended = (0, 0) if directory.fresh else (last_clean.began, last_clean.ended)
        together = self._evaluator.together
        likely_wrong = self._evaluator.likely_wrong and together
        suspects: list[str] = []
        for entry in chunk:
            is_file = entry.is_file(follow_symlinks=False)
            if not is_file and entry.is_dir(follow_symlinks=False):
                folders.append(self._inner(entry.name, directory, path))
                continue
            self.counts.scanned += 1
            if not is_file and not entry.is_symlink():
                continue  # sockets, devices, fifos
            if entry.name in STRICT_FILES and zone is not STRICT:
                self._evaluator.file(entry.name, directory, path, None)
                continue
            if not (is_file and likely_wrong):
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno not in VANISHED:
                        self._evaluator.fail(self._evaluator.path(entry.name), error)
                    continue
                kind = (seen.st_uid, seen.st_gid, seen.st_mode)
                try:
                    right = stays[kind]
                except KeyError:
                    right = self._find_out(stays, zone, *kind)
                if right or (
                    right is None and seen.st_mtime_ns < began and seen.st_ctime_ns <= ended and seen.st_nlink == 1
                ):
                    continue
            if is_file and together:
                suspects.append(entry.name)
            else:
                self._evaluator.file(entry.name, directory, path, None)
        if suspects:
            self._evaluator.files(suspects, directory, path)

    def _find_out(
        self, stays: dict[tuple[int, int, int], bool | None], zone: Zone, uid: int, gid: int, mode: int
    ) -> bool | None:
        """Ask the rules whether entries with this owner, type and mode stay as they are; remember the answer."""
        if len(stays) >= _REMEMBERED:
            stays.clear()
        right = self._rules.stays(zone, stat.S_IFMT(mode), uid, gid, stat.S_IMODE(mode))
        stays[uid, gid, mode] = right
        return right

    def _is_there(self, path: str) -> bool:
        return os.access(path, os.F_OK, dir_fd=self._cursor.fd, follow_symlinks=False)

    def _count_for(self, top: str) -> None:
        """Count for another top folder from here on; what was counted since the last call belongs to the one before."""
        counts = self.counts
        now = (counts.scanned, counts.wrong, counts.changed)
        of_top = counts.by_top_folder.setdefault(self._top, [0, 0, 0])
        of_top[:] = [count + n - b for count, n, b in zip(of_top, now, self._counted, strict=True)]
        self._top, self._counted = top, now
