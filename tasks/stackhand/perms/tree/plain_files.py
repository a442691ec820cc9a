"""Looks at the plain files of one folder together: the same as an `Entry` for each, in a fraction of Python's time.

A file is plain if it is regular, has one name, no special bits and no extended attributes that matter, and nobody has
touched it just now. All other names go into `others`, for the caller to look at one by one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from stackhand.perms.journal import Transition
from stackhand.perms.policy.content import HEAD, SHORTEST, may_hold_a_key, mode_by_content
from stackhand.perms.policy.rules import BY_CONTENT, PathRule, Rules, Zone
from stackhand.perms.tree.entry import DIRECT, TICK, attributes_of


class AlikeFiles(NamedTuple):
    """Files that change in the same way: their names, inodes and descriptors, in the same order."""

    names: list[str]
    inodes: list[int]
    fds: list[int]


class PlainFiles:
    """Open files of one folder. Only for a process that can't open devices (see nodev.py). Close it when done."""

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
        """Close the files."""
        fds, self._fds = self._fds, []
        if fds and fds[-1] - fds[0] == len(fds) - 1 and fds == sorted(fds):
            os.closerange(fds[0], fds[-1] + 1)  # one system call
        else:
            for fd in fds:
                os.close(fd)

    def wrong(
        self,
        rules: Rules,
        zone: Zone,
        dev: int,
        before: int,
        *,
        mounted: PathRule | None = None,
        keeps_executable: bool,
    ) -> dict[Transition, AlikeFiles]:
        """Return the files that are wrong, by the change that puts them right.

        `before` is a moment before they were opened, in nanoseconds since the epoch, as for an `Entry`. `mounted` is
        the rule for what containers made in the folder; these files go into `others`.
        """
        settled = before - TICK
        by_content, is_executable = zone in BY_CONTENT, rules.is_executable
        usual = 0o644  # outside of plain zones it counts for the mode 000 only, and these files have another
        # By owner, mode and usual mode: the change, None if there is none. Most files of a folder are alike.
        transitions: dict[tuple[int, int, int, int], Transition | None] = {}
        found: dict[Transition, AlikeFiles] = {}
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
                transition = transitions[now]
            except KeyError:
                transition = transitions[now] = _transition(rules, zone, *now)
            if transition is None:
                continue
            if attributes_of(fd) or (mounted is not None and rules.reason_of_container(mounted, *now[:3]) is not None):
                self.others.append(name)
                continue
            alike = found.get(transition)
            if alike is None:
                alike = found[transition] = AlikeFiles([], [], [])
            alike.names.append(name)
            alike.inodes.append(seen.st_ino)
            alike.fds.append(fd)
        return found


def _transition(rules: Rules, zone: Zone, uid: int, gid: int, mode: int, usual: int) -> Transition | None:
    """Return the change that regular files with this owner and mode need, None if they are right."""
    wanted = rules.desired(zone, stat.S_IFREG, uid, gid, mode, usual)
    return None if wanted == (uid, gid, mode) else (uid, gid, mode, *wanted)


def _head(fd: int, size: int) -> bytes | None:
    """Return a file's first bytes; None if they can't be read, or more of the file would have to be read."""
    if size < SHORTEST:
        return b""
    try:
        head = os.pread(fd, HEAD if size > HEAD else size, 0)
    except OSError:
        return None
    return None if size > HEAD and may_hold_a_key(head) else head
