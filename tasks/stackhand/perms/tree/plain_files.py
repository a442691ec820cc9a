"""Plain files of one folder, looked at together: what an `Entry` is for one, with far less of Python's time for each.

Plain is a regular file with one name, without special bits or attributes that matter, that nobody has just touched.
Whatever else there is goes into `others`, to be taken one by one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from stackhand.perms.journal import Become
from stackhand.perms.policy.rules import HEAD, PLAIN, SHORTEST, Area, Rules, may_hold_a_key, mode_by_content
from stackhand.perms.tree.entry import DIRECT, TICK, attributes_of


class Plain(NamedTuple):
    """Files that become the same: names, inodes and descriptors, in one order."""

    names: list[str]
    inodes: list[int]
    fds: list[int]


class PlainFiles:
    """Files that are held by descriptors. Takes a process that can open no devices (see devices.py). Close it."""

    def __init__(self, names: Iterable[str], folder: int) -> None:
        self.others: list[str] = []
        self._names: list[str] = []
        self._fds: list[int] = []
        hold = partial(os.open, flags=DIRECT, dir_fd=folder)
        for name in names:
            try:
                fd = hold(name)
            except OSError:
                self.others.append(name)
            else:
                self._names.append(name)
                self._fds.append(fd)

    def close(self) -> None:
        """Let go of them."""
        fds, self._fds = self._fds, []
        if fds and fds[-1] - fds[0] == len(fds) - 1 and fds == sorted(fds):
            os.closerange(fds[0], fds[-1] + 1)  # one system call
        else:
            for fd in fds:
                os.close(fd)

    def wrong(self, rules: Rules, area: Area, dev: int, before: int, *, keeps_executable: bool) -> dict[Become, Plain]:
        """Return what is wrong, by what it becomes. `before` is a moment before they were opened, as for an `Entry`."""
        settled = before - TICK
        by_content, is_executable = area is PLAIN, rules.is_executable
        usual = 0o644  # outside of plain areas it counts for the mode 000 only, which none of these has
        # What each kind of file becomes, None where it is right: most of them are alike.
        become_of: dict[tuple[int, int, int, int], Become | None] = {}
        found: dict[Become, Plain] = {}
        for name, fd in zip(self._names, self._fds, strict=True):
            try:
                seen = os.fstat(fd)
            except OSError:
                self.others.append(name)
                continue
            mode = seen.st_mode - stat.S_IFREG
            if not 0 < mode <= 0o777 or seen.st_nlink != 1 or seen.st_dev != dev or seen.st_ctime_ns >= settled:
                self.others.append(name)
                continue
            if by_content:
                head = _head(fd, seen.st_size)
                if head is None:
                    self.others.append(name)
                    continue
                script = is_executable(name) or (keeps_executable and bool(mode & 0o100))
                usual = mode_by_content(head, mode, name, script=script)
            now = (seen.st_uid, seen.st_gid, mode, usual)
            try:
                become = become_of[now]
            except KeyError:
                become = become_of[now] = _become(rules, area, *now)
            if become is None:
                continue
            opened = become[5] & 0o004 and not mode & 0o007 and name.endswith(".env")
            if opened or attributes_of(fd):
                self.others.append(name)
                continue
            alike = found.get(become)
            if alike is None:
                alike = found[become] = Plain([], [], [])
            alike.names.append(name)
            alike.inodes.append(seen.st_ino)
            alike.fds.append(fd)
        return found


def _become(rules: Rules, area: Area, uid: int, gid: int, mode: int, usual: int) -> Become | None:
    """Return how regular files with this owner and mode change, None where they are right."""
    wanted = rules.desired(area, stat.S_IFREG, uid, gid, mode, usual)
    return None if wanted == (uid, gid, mode) else (uid, gid, mode, *wanted)


def _head(fd: int, size: int) -> bytes | None:
    """Return a file's first bytes, None where more would have to be read, or they can't be."""
    if size < SHORTEST:
        return b""
    try:
        head = os.pread(fd, HEAD if size > HEAD else size, 0)
    except OSError:
        return None
    return None if size > HEAD and may_hold_a_key(head) else head
