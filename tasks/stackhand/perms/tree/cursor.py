"""Moves through a tree while others change it, and never leaves it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


MOUNTED = "another file system is mounted there"


class DirectoryMoved(OSError):
    """Somebody has moved or replaced a folder meanwhile."""


class OtherFileSystem(OSError):
    """Another file system is mounted on this folder."""


class TrailEntry(NamedTuple):
    """One folder on the way down from the root: its name in the folder above, its device and its inode."""

    name: str
    dev: int
    ino: int


class Cursor:
    """Stands in one folder of a tree at a time, which it holds by a descriptor.

    It goes down by name without following symbolic links, or by a descriptor that was opened that way. It goes up only
    to the folder that it came from: one step by the descriptor that it kept, further steps by `..`, which it compares
    with the trail. So a path of any depth takes two open descriptors, and a folder that somebody moves out of the tree
    does not take the cursor along. It stays on the root's file system.
    """

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _FOLDER)
        found = os.fstat(self._root)
        self.dev = found.st_dev
        self.fd = os.dup(self._root)
        self._above: int | None = None
        self.trail = [TrailEntry("", found.st_dev, found.st_ino)]

    def close(self) -> None:
        """Close all descriptors."""
        self._close_above()
        os.close(self.fd)
        os.close(self._root)

    @property
    def depth(self) -> int:
        """How many folders below the root the cursor stands."""
        return len(self.trail) - 1

    @property
    def path(self) -> str:
        """The path of the current folder below the root; "" for the root."""
        return "/".join([entry.name for entry in self.trail[1:]])

    def down(self, name: str) -> os.stat_result:
        """Go into a folder of the current one, by name. Raises OSError, OtherFileSystem."""
        fd = os.open(name, _FOLDER, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        self.into(name, fd, found)
        return found

    def into(self, name: str, fd: int, found: os.stat_result) -> None:
        """Go into a folder of the current one by its descriptor, and take that over. Raises OtherFileSystem."""
        if found.st_dev != self.dev:
            os.close(fd)
            raise OtherFileSystem(errno.EXDEV, MOUNTED)
        self._close_above()
        self._above, self.fd = self.fd, fd
        self.trail.append(TrailEntry(name, found.st_dev, found.st_ino))

    def is_mounted(self, held: int) -> bool:
        """Return whether an open file of the current folder, with another device than the root's, is a mount point.

        The device alone does not tell: file systems in layers (overlayfs) may give the files of each layer another one.
        """
        return _mount_of(held) != _mount_of(self.fd)

    def up(self) -> None:
        """Go back to the folder above. Raises DirectoryMoved if it is not there; then the cursor stands in the root."""
        above = self.trail[-2]
        if self._above is not None:
            os.close(self.fd)
            self.fd, self._above = self._above, None
            self.trail.pop()
            return
        with contextlib.suppress(OSError):
            fd = os.open("..", _FOLDER, dir_fd=self.fd)
            if self._is(fd, above):
                self._stand(fd)
                self.trail.pop()
                return
            os.close(fd)
        # Somebody has moved this folder. The one above may still be where it was.
        self._walk_from_root(self.trail[1:-1])

    def go(self, names: Sequence[str]) -> None:
        """Go to a folder by its path below the root. Raises OSError, DirectoryMoved; then it stands somewhere above."""
        common = 0
        for name, (passed, *_) in zip(names, self.trail[1:], strict=False):
            if name != passed:
                break
            common += 1
        while self.depth > common:
            self.up()
        for name in names[common:]:
            self.down(name)

    def _walk_from_root(self, trail: list[TrailEntry]) -> None:
        self._stand(os.dup(self._root))
        del self.trail[1:]
        for entry in trail:
            self.down(entry.name)
            if (self.trail[-1].dev, self.trail[-1].ino) != (entry.dev, entry.ino):
                raise DirectoryMoved(errno.ESTALE, "it was moved or replaced meanwhile")

    def _stand(self, fd: int) -> None:
        self._close_above()
        os.close(self.fd)
        self.fd = fd

    def _close_above(self) -> None:
        if self._above is not None:
            os.close(self._above)
            self._above = None

    @staticmethod
    def _is(fd: int, entry: TrailEntry) -> bool:
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (entry.dev, entry.ino)


def _mount_of(fd: int) -> str:
    """Return the mount that a file was opened through, "" if the kernel does not say (proc_pid_fdinfo(5))."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:  # noqa: PTH123  may be called for each file
            return next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""
