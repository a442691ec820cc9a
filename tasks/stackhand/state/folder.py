"""The project's `.stackhand/` folder: one lock for all runs that change the stack, and small JSON documents."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stackhand.errors import LockHeld, StateFolderUnwritable
from stackhand.state.private import PrivateFolder

FOLDER = ".stackhand"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A document that is larger, in bytes, is not read: no document of stackhand's comes near this.
_LARGEST = 16_000_000
# How long an update waits for the one of another process, and how often it looks, in seconds.
_UPDATE_TIMEOUT, _UPDATE_POLL = 5.0, 0.01
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class StateFolder:
    """The lock and the documents of one project.

    The folder is made when something is first written to it, with a `.gitignore` for all that is in it.
    """

    def __init__(self, project_directory: Path, environ: Mapping[str, str] | None = None) -> None:
        self.path = project_directory / FOLDER
        # Containers can write to the project. What root must be able to believe is kept out of their reach.
        self.private = PrivateFolder(project_directory, environ)
        self._mutex = threading.Lock()
        self._updating = threading.Lock()
        self._holders = 0
        self._held = contextlib.ExitStack()

    def prepare(self) -> Path:
        """Make the folder if it is missing; return its path. Raises StateFolderUnwritable."""
        os.close(self.open())
        return self.path

    def open(self) -> int:
        """Make the folder if it is missing; return a descriptor of it. Raises StateFolderUnwritable.

        A container may be able to write to the project, and this run may be root's. So no symbolic link is followed:
        not to the folder, and not to a file in it.
        """
        try:
            with contextlib.suppress(FileExistsError):
                self.path.mkdir()
            folder = os.open(self.path, _FOLDER)
            try:
                with contextlib.suppress(FileExistsError):
                    ignore = os.open(".gitignore", _CREATE, 0o644, dir_fd=folder)
                    os.write(ignore, b"*\n")
                    os.close(ignore)
            except BaseException:
                os.close(folder)
                raise
        except OSError as error:
            raise StateFolderUnwritable(
                f"cannot write to {self.path}: {error.strerror}",
                "make the project's folder writable for this user; `inv perms.check` shows what is wrong",
            ) from error
        return folder

    def recall(self, name: str) -> Any:
        """Return the JSON value that was remembered under a name; None if there is none that can be read.

        A container may have put anything there: a fifo, a link to a device, a million brackets.
        """
        try:
            folder = os.open(self.path, _FOLDER)
            try:
                fd = os.open(f"{name}.json", _READ, dir_fd=folder)
            finally:
                os.close(folder)
            with os.fdopen(fd, "rb") as file:
                seen = os.fstat(fd)
                return json.load(file) if stat.S_ISREG(seen.st_mode) and seen.st_size <= _LARGEST else None
        except (OSError, ValueError, RecursionError):
            return None

    def remember(self, name: str, value: Any, *, durable: bool = False) -> None:
        """Write a JSON value under a name, as a whole or not at all. Raises StateFolderUnwritable.

        With `durable` it has reached the disk on return, so that it survives a power failure.
        """
        folder, draft = self.open(), f"{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            try:
                with os.fdopen(os.open(draft, _CREATE, 0o644, dir_fd=folder), "w", encoding="utf-8") as file:
                    json.dump(value, file)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                os.replace(draft, f"{name}.json", src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft, dir_fd=folder)
                raise
            if durable:
                os.fsync(folder)  # else a power failure could take the new name back
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write to {self.path}: {error.strerror}") from error
        finally:
            os.close(folder)

    def update(self, name: str, change: Callable[[Any], Any], *, durable: bool = False) -> Any:
        """Call `change` with the value under a name, write and return what it returns. Raises StateFolderUnwritable.

        No other thread and no other process updates a document of this folder in between.
        """
        with self._updating, self._alone():
            before = self.recall(name)
            after = change(before)
            if after != before:
                self.remember(name, after, durable=durable)
            return after

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from updating documents while the body runs. Raises StateFolderUnwritable.

        The lock is on the folder itself. A lock file would belong to the user who came first, and others could not
        open it. It is held for milliseconds: a process that holds it for seconds is not stackhand.
        """
        import fcntl

        try:
            folder = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            folder = self.open()
        except OSError:
            yield  # not a folder, or not for this user: `remember` says so
            return
        try:
            until = time.monotonic() + _UPDATE_TIMEOUT
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise StateFolderUnwritable(
                            f"cannot write to {self.path}: another process keeps it locked",
                            f"`fuser {self.path}` names that process",
                        ) from None
                    time.sleep(_UPDATE_POLL)
                except OSError:
                    break  # a file system without locks on folders (NFS): threads still take turns
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def lock(self, task: str, *, allow_private_lock: bool = False) -> Iterator[None]:
        """Hold the lock of this project while the body runs. Raises LockHeld, which names the holder.

        Re-entrant, as a fix may start a service; the last holder releases it. With `allow_private_lock`, a user who may
        not write to the project locks the file read-only, or one of their own where there is none. Without it, such a
        user gets StateFolderUnwritable.
        """
        with self._mutex:
            if self._holders == 0:
                with contextlib.ExitStack() as opening:
                    opening.enter_context(self._flock(task, allow_private_lock=allow_private_lock))
                    self._held = opening.pop_all()
            self._holders += 1
        try:
            yield
        finally:
            with self._mutex:
                self._holders -= 1
                if self._holders == 0:
                    self._held.close()

    @contextlib.contextmanager
    def _flock(self, task: str, *, allow_private_lock: bool) -> Iterator[None]:
        """Hold the operating system's lock (flock).

        The kernel releases it with the process, however that ends. The text in the file only says who holds it.
        """
        import fcntl

        lock, writable = self._open_lock(allow_private_lock=allow_private_lock)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LockHeld(
                    f"another run is changing this stack: {_describe(lock)}",
                    "wait for it to end, then try again",
                ) from None
            if not writable:
                yield
                return
            holder = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "task": task,
                "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            os.ftruncate(lock, 0)
            os.pwrite(lock, json.dumps(holder).encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    def _open_lock(self, *, allow_private_lock: bool) -> tuple[int, bool]:
        """Return a descriptor of the lock file, and whether it may be written to."""
        try:
            return _lock_in(self.open(), self.path, os.O_RDWR | os.O_CREAT), True
        except StateFolderUnwritable as error:
            reason = error.__cause__
            if not (allow_private_lock and isinstance(reason, OSError) and reason.errno in _NOT_WRITABLE):
                raise
        # It is another user's. To lock a file takes only the right to read it.
        with contextlib.suppress(OSError, StateFolderUnwritable):
            return _lock_in(os.open(self.path, _FOLDER), self.path, os.O_RDONLY), False
        # There is none, and this user can't make one. A private one at least keeps this user's own runs apart.
        return _lock_in(self.private.make(), self.private.path, os.O_RDWR | os.O_CREAT), True


def _lock_in(folder: int, place: Path, flags: int) -> int:
    path = place / "lock"
    try:
        lock = os.open("lock", flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644, dir_fd=folder)
        seen = os.fstat(lock)
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
            # A hard link may be another file under a second name, and taking the lock empties it.
            os.close(lock)
            raise StateFolderUnwritable(f"{path} is not a file of stackhand's", "remove it")
    except OSError as error:
        raise StateFolderUnwritable(f"cannot write to {path}: {error.strerror}") from error
    finally:
        os.close(folder)
    return lock


def _describe(lock: int) -> str:
    try:
        holder = json.loads(os.pread(lock, 4096, 0))
        return f"{holder['task']} (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "a run that has just begun or is about to end"
