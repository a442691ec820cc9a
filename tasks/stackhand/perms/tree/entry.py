"""One entry of a folder, held by a descriptor, so that nobody can swap it between the look at it and its change.

The name is looked up once. Everything after that goes through the descriptor: whatever others do to the name meanwhile,
the file that is changed is the file that was looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from stackhand.perms.policy.steps import steps

# To open a device or a fifo can do something. O_PATH only refers to the inode, and opens nothing.
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
DIRECT = _READ | os.O_NOFOLLOW | os.O_NOATIME
CAPABILITY = "security.capability"
ACL = "system.posix_acl_access"
# The longest step of the clock that file times are taken from, in nanoseconds (CONFIG_HZ=100, doubled for safety).
TICK = 20_000_000


class Unchanged(OSError):
    """The call succeeded and changed nothing: this file system has no owners or modes of its own."""

    def __init__(self) -> None:
        super().__init__(errno.EOPNOTSUPP, "the file system does not take owners or modes")


class ProcFd:
    """`/proc/self/fd`: the way to open for reading what an O_PATH descriptor refers to.

    `direct` says that this process can't open devices (see nodev.py). Then an `Entry` opens its file for reading at
    once, which saves a good part of the time.
    """

    def __init__(self, *, devices_closed: bool = False) -> None:
        self.direct = devices_closed
        self.fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._read = _READ | os.O_NOATIME

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def reopen(self, held: int) -> int | None:
        """Open for reading what a descriptor refers to, a regular file or a folder; None if that is not allowed."""
        try:
            return os.open(str(held), self._read, dir_fd=self.fd)
        except PermissionError:
            # Only the owner and root may leave the access time alone.
            with contextlib.suppress(OSError):
                return os.open(str(held), _READ, dir_fd=self.fd)
        except OSError:
            pass
        return None

    def is_linked(self, fd: int) -> bool:
        """Return whether the name that a descriptor was opened by still leads to the same file."""
        return not os.readlink(str(fd), dir_fd=self.fd).endswith(" (deleted)")


class Entry:
    """What a name in a folder referred to when it was opened. Close it when done.

    `held` is its descriptor, `fd` a readable one (None until there is one), `seen` the result of fstat, `kind` the file
    type and `mode` the permission bits of that.
    """

    __slots__ = ("_before", "_proc_fd", "fd", "held", "kind", "mode", "seen")

    def __init__(self, name: str, folder: int, proc_fd: ProcFd, before: int | None = None) -> None:
        """Open it. `before` is a moment before the opening, in nanoseconds since the epoch; None means now."""
        self._proc_fd = proc_fd
        self._before = time.time_ns() if before is None else before
        self.fd: int | None = None
        if proc_fd.direct:
            try:
                held = self.fd = os.open(name, DIRECT, dir_fd=folder)
            except OSError:
                held = os.open(name, _HOLD, dir_fd=folder)
        else:
            held = os.open(name, _HOLD, dir_fd=folder)
        self.held = held
        try:
            self.seen = os.fstat(held)
        except OSError:
            os.close(held)
            raise
        mode = self.seen.st_mode
        self.kind, self.mode = mode & 0o170000, mode & 0o7777

    def close(self) -> None:
        """Close its descriptors."""
        held, fd = self.held, self.fd
        os.close(held)
        if fd is not None and fd != held:
            os.close(fd)

    def release(self) -> int | None:
        """Close it but for the readable descriptor, if there is one. Return that; the caller closes it."""
        held, fd = self.held, self.fd
        if held != fd:
            os.close(held)
        return fd

    def holds(self, name: str) -> bool:
        """Return whether this folder has an entry of this name, as far as this user may see."""
        try:
            os.stat(name, dir_fd=self.held, follow_symlinks=False)
        except OSError:
            return False
        return True

    def read(self, size: int) -> bytes | None:
        """Return the first bytes of a regular file; None if they can't be read."""
        fd = self.fd if self.fd is not None else self._readable()
        try:
            return None if fd is None else os.pread(fd, size, 0)
        except OSError:
            return None

    @property
    def is_alone(self) -> bool:
        """Whether this name is the only one of its file.

        The number of links alone can be fooled: somebody links a foreign file into the folder, waits until it is opened
        by that name, and removes the name before the links are counted. Then the count is 1, and the file is not the
        project's. But to add or remove a link sets the time of change (ctime). If that is older than the opening, the
        count was the same then. If not, the name that was opened must still exist after the count.
        """
        if self.kind == stat.S_IFDIR:
            return True
        if self.seen.st_nlink != 1:
            return False
        return self.seen.st_ctime_ns < self._before - TICK or self._proc_fd.is_linked(self.held)

    def attributes(self) -> list[str]:
        """Return the names of the extended attributes that a change of owner or mode could touch."""
        return attributes_of(self.fd if self.fd is not None else self._handle())

    def mode_with_acl(self, mode: int, attributes: list[str]) -> int:
        """Return `mode` with the group's bits as they are if there is an ACL: they are its mask (acl(5))."""
        return (mode & ~0o070) | (self.mode & 0o070) if ACL in attributes else mode

    def become(self, uid: int, gid: int, mode: int, attributes: list[str], *, look: bool = True) -> None:
        """Set owner and mode; with `look`, check that they are set. Raises OSError, Unchanged."""
        seen = self.seen
        handle = self.fd if self.fd is not None else self._handle()
        capability = None
        if attributes and CAPABILITY in attributes:
            # The kernel removes a file's capabilities when its owner changes.
            capability = os.getxattr(handle, CAPABILITY)
        try:
            for what, one, two in steps(seen.st_uid, seen.st_gid, self.mode, uid, gid, mode):
                if what == "owner":
                    os.chown(handle, one, two)
                elif self.kind != stat.S_IFLNK:
                    os.chmod(handle, one)  # noqa: PTH101  a descriptor
        except OSError:
            mode_back(self.held, handle, seen.st_uid, seen.st_gid, self.mode)
            raise
        if capability is not None:
            os.setxattr(handle, CAPABILITY, capability)
        if not look:
            return
        after = os.fstat(self.held)
        same_mode = after.st_mode & 0o7777 == mode or self.kind == stat.S_IFLNK
        if after.st_uid != uid or after.st_gid != gid or not same_mode:
            raise Unchanged

    def _readable(self) -> int | None:
        if self.fd is None:
            self.fd = self._proc_fd.reopen(self.held)
        return self.fd

    def _handle(self) -> int | str:
        """Return what system calls take for this entry: a descriptor, or a path to it if it can't be opened."""
        if self.fd is not None:
            return self.fd
        if self.kind == stat.S_IFREG and self._readable() is not None:
            return self.fd  # type: ignore[return-value]
        return f"/proc/self/fd/{self.held}"


def attributes_of(handle: int | str) -> list[str]:
    """Return the names of the extended attributes that a change of owner or mode could touch."""
    try:
        names = os.listxattr(handle)
    except OSError:
        return []
    return [name for name in names if name in (ACL, CAPABILITY)] if names else names


def mode_back(held: int, handle: int | str, uid: int, gid: int, mode: int) -> None:
    """Give an entry its old mode back if its owner could not be changed."""
    with contextlib.suppress(OSError):
        now = os.fstat(held)
        if (now.st_uid, now.st_gid) == (uid, gid) and now.st_mode & 0o7777 != mode:
            os.chmod(handle, mode)  # noqa: PTH101  a descriptor
