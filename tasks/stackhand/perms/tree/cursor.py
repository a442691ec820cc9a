"""Moves through a tree that others change meanwhile, without ever leaving it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


MOUNTED = "another file system is mounted there"


class Moved(OSError):
    """A folder is not where it was: somebody moved or replaced it meanwhile."""


class OtherFileSystem(OSError):
    """Something else is mounted on this folder."""


class Crumb(NamedTuple):
    """One folder on the way down: its name in the folder above, and which one it is."""

    name: str
    dev: int
    ino: int


class Cursor:
    """Stands in one folder of a tree at a time, by descriptor.

    Down is by name and follows no symbolic link, or by a descriptor that was opened so; up is to the folder that it
    came from, and no other: to the last one by the descriptor that was kept, further by `..`. So a path of any length
    and depth takes two open descriptors, and a folder that was moved away takes nobody along. It stays on the file
    system of the root.
    """

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _FOLDER)
        found = os.fstat(self._root)
        self.dev = found.st_dev
        self.fd = os.dup(self._root)
        self._above: int | None = None
        self.trail = [Crumb("", found.st_dev, found.st_ino)]

    def close(self) -> None:
        """Let go of the tree."""
        self._let_go_above()
        os.close(self.fd)
        os.close(self._root)

    @property
    def depth(self) -> int:
        """How many folders below the root this one is."""
        return len(self.trail) - 1

    @property
    def path(self) -> str:
        """The folder's path below the root; the root's is ""."""
        return "/".join([crumb.name for crumb in self.trail[1:]])

    def down(self, name: str) -> os.stat_result:
        """Go into a folder of this one. Raises OSError, OtherFileSystem."""
        fd = os.open(name, _FOLDER, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        self.into(name, fd, found)
        return found

    def into(self, name: str, fd: int, found: os.stat_result) -> None:
        """Go into a folder of this one by its descriptor, which this takes over. Raises OtherFileSystem."""
        if found.st_dev != self.dev:
            os.close(fd)
            raise OtherFileSystem(errno.EXDEV, MOUNTED)
        self._let_go_above()
        self._above, self.fd = self.fd, fd
        self.trail.append(Crumb(name, found.st_dev, found.st_ino))

    def is_mounted(self, held: int) -> bool:
        """Return whether a file of this folder that has another device is that of another mount.

        Its device alone does not tell: some file systems in layers give each layer's files one of their own.
        """
        return _mount_of(held) != _mount_of(self.fd)

    def up(self) -> None:
        """Go back to the folder above. Raises Moved where that can't be found; then it stands in the root."""
        crumb = self.trail[-2]
        if self._above is not None:
            os.close(self.fd)
            self.fd, self._above = self._above, None
            self.trail.pop()
            return
        with contextlib.suppress(OSError):
            fd = os.open("..", _FOLDER, dir_fd=self.fd)
            if self._is(fd, crumb):
                self._stand(fd)
                self.trail.pop()
                return
            os.close(fd)
        # This folder was moved elsewhere; the one above may still be where it was.
        self._again(self.trail[1:-1])

    def go(self, names: Sequence[str]) -> None:
        """Go to a folder by its path below the root. Raises OSError, Moved; then it stands somewhere above it."""
        common = 0
        for name, (passed, *_) in zip(names, self.trail[1:], strict=False):
            if name != passed:
                break
            common += 1
        while self.depth > common:
            self.up()
        for name in names[common:]:
            self.down(name)

    def _again(self, trail: list[Crumb]) -> None:
        self._stand(os.dup(self._root))
        del self.trail[1:]
        for crumb in trail:
            self.down(crumb.name)
            if (self.trail[-1].dev, self.trail[-1].ino) != (crumb.dev, crumb.ino):
                raise Moved(errno.ESTALE, "it was moved or replaced meanwhile")

    def _stand(self, fd: int) -> None:
        self._let_go_above()
        os.close(self.fd)
        self.fd = fd

    def _let_go_above(self) -> None:
        if self._above is not None:
            os.close(self._above)
            self._above = None

    @staticmethod
    def _is(fd: int, crumb: Crumb) -> bool:
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == (crumb.dev, crumb.ino)


def _mount_of(fd: int) -> str:
    """Return which mount a descriptor's file was reached through, "" where the kernel does not say."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:  # noqa: PTH123  a hot loop may be near
            return next((line for line in file if line.startswith("mnt_id:")), "")
    except OSError:
        return ""
