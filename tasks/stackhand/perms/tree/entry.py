"""One entry of a folder, held by a descriptor: looked at, and changed, without a race between the two.

The name is looked up once. From then on everything goes through the descriptor, so that whatever becomes of the
name meanwhile, what is changed is what was looked at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from stackhand.perms.policy.rules import steps

# Opening a device or a fifo can do something; O_PATH only takes hold of the name's inode.
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
DIRECT = _READ | os.O_NOFOLLOW | os.O_NOATIME
CAPABILITY = "security.capability"
_ACL = "system.posix_acl_access"
# The clock that file times are taken from ticks this seldom, at most (CONFIG_HZ=100, and some room).
TICK = 20_000_000


class Unchanged(OSError):
    """The call succeeded and changed nothing: the file system has no owners or modes of its own."""

    def __init__(self) -> None:
        super().__init__(errno.EOPNOTSUPP, "the file system does not take owners or modes")


class Descriptors:
    """This process's open descriptors as a folder: the way to what an O_PATH descriptor holds.

    With `devices_closed` (see devices.py), a file is opened for reading at once, which saves a good part of the time.
    """

    def __init__(self, *, devices_closed: bool = False) -> None:
        self.direct = devices_closed
        self.fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._read = _READ | os.O_NOATIME

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)

    def reopen(self, held: int) -> int | None:
        """Return a readable descriptor of the regular file or folder that is held, None where that is not allowed."""
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
        """Return whether the very name that a descriptor was opened by still exists."""
        return not os.readlink(str(fd), dir_fd=self.fd).endswith(" (deleted)")


class Entry:
    """What a name in a folder stood for when it was opened. Close it when done."""

    __slots__ = ("_before", "_descriptors", "fd", "held", "kind", "mode", "seen")

    def __init__(self, name: str, folder: int, descriptors: Descriptors, before: int | None = None) -> None:
        """Open it. `before` is a moment before this one, in nanoseconds since the epoch: now where it is None."""
        self._descriptors = descriptors
        self._before = time.time_ns() if before is None else before
        self.fd: int | None = None
        if descriptors.direct:
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
        """Let go of it."""
        held, fd = self.held, self.fd
        os.close(held)
        if fd is not None and fd != held:
            os.close(fd)

    def release(self) -> int | None:
        """Let go of it but for the descriptor that can be read, if there is one; whoever takes that closes it."""
        held, fd = self.held, self.fd
        if held != fd:
            os.close(held)
        return fd

    def holds(self, name: str) -> bool:
        """Return whether there is something of this name in a folder, as far as this user may see."""
        try:
            os.stat(name, dir_fd=self.held, follow_symlinks=False)
        except OSError:
            return False
        return True

    def read(self, size: int) -> bytes | None:
        """Return a regular file's first bytes, None where they can't be read."""
        fd = self.fd if self.fd is not None else self._readable()
        try:
            return None if fd is None else os.pread(fd, size, 0)
        except OSError:
            return None

    @property
    def is_alone(self) -> bool:
        """Whether no other name leads to this file.

        A name that was linked for a moment only could slip through: opened while it was there, removed before the
        links were counted, so that the count is 1 and the file somebody else's. Adding or removing a link sets the
        time of change; where that is older than the opening, the count was the same then. Where it is not, the name
        that was opened must still be there after the count.
        """
        if self.kind == stat.S_IFDIR:
            return True
        if self.seen.st_nlink != 1:
            return False
        return self.seen.st_ctime_ns < self._before - TICK or self._descriptors.is_linked(self.held)

    def attributes(self) -> list[str]:
        """Return the names of the extended attributes that a change of owner or mode could touch."""
        return attributes_of(self.fd if self.fd is not None else self._handle())

    def mode_with_acl(self, mode: int, attributes: list[str]) -> int:
        """Return the mode that leaves an ACL as it is: its mask shows as the group's rights."""
        return (mode & ~0o070) | (self.mode & 0o070) if _ACL in attributes else mode

    def become(self, uid: int, gid: int, mode: int, attributes: list[str], *, look: bool = True) -> None:
        """Set owner and mode, then look whether it is so, unless told otherwise. Raises OSError, Unchanged."""
        seen = self.seen
        handle = self.fd if self.fd is not None else self._handle()
        capability = None
        if attributes and CAPABILITY in attributes:
            # The kernel takes a file's capabilities away when its owner changes.
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
            self.fd = self._descriptors.reopen(self.held)
        return self.fd

    def _handle(self) -> int | str:
        """Return what system calls take for this entry: a descriptor, or the way to it where it can't be opened."""
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
    return [name for name in names if name in (_ACL, CAPABILITY)] if names else names


def mode_back(held: int, handle: int | str, uid: int, gid: int, mode: int) -> None:
    """Give an entry whose owner could not be changed the mode again that it had."""
    with contextlib.suppress(OSError):
        now = os.fstat(held)
        if (now.st_uid, now.st_gid) == (uid, gid) and now.st_mode & 0o7777 != mode:
            os.chmod(handle, mode)  # noqa: PTH101  a descriptor
