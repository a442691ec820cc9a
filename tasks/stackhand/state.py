"""The project's `.stackhand/` folder: the lock that keeps two changing runs apart, caches, journals."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stackhand.errors import LockHeld, StateFolderUnwritable

FOLDER = ".stackhand"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StateFolder:
    """What stackhand remembers of one project. Made when first written to; git ignores it by itself."""

    def __init__(self, project_directory: Path) -> None:
        self.path = project_directory / FOLDER
        self._mutex = threading.Lock()
        self._updating = threading.Lock()
        self._holders = 0
        self._held = contextlib.ExitStack()

    def prepare(self) -> Path:
        """Make the folder where it is missing and return it. Raises StateFolderUnwritable."""
        os.close(self.open())
        return self.path

    def open(self) -> int:
        """Make the folder where it is missing and return a descriptor of it. Raises StateFolderUnwritable.

        A container may be able to write to the project, and this run may be root's: so no symbolic link is followed,
        neither to the folder nor to a file in it.
        """
        try:
            with contextlib.suppress(FileExistsError):
                self.path.mkdir()
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
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
        """Return what was remembered under a name, None where that is nothing."""
        try:
            return json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def remember(self, name: str, value: Any) -> None:
        """Remember a JSON value under a name; written whole or not at all. Raises StateFolderUnwritable."""
        folder, draft = self.open(), f"{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            with os.fdopen(os.open(draft, _CREATE, 0o644, dir_fd=folder), "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.replace(draft, f"{name}.json", src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write to {self.path}: {error.strerror}") from error
        finally:
            os.close(folder)

    def update(self, name: str, change: Callable[[Any], Any]) -> Any:
        """Remember what `change` makes of what is remembered under a name; return it. One thread at a time.

        Raises StateFolderUnwritable.
        """
        with self._updating:
            before = self.recall(name)
            after = change(before)
            if after != before:
                self.remember(name, after)
            return after

    @property
    def completed(self) -> frozenset[str]:
        """The runs of containers that were seen to end by themselves, their work done."""
        found = self.recall("completed")
        return frozenset(found) if isinstance(found, list) else frozenset()

    @property
    def made(self) -> dict[str, str]:
        """The fingerprint of what each container was made from, where Compose's own hash does not tell."""
        found = self.recall("made")
        return found if isinstance(found, dict) else {}

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """What the file system said of the files that each run of a container began with; nothing of their content."""
        found = self.recall("files")
        return found if isinstance(found, dict) else {}

    @contextlib.contextmanager
    def lock(self, task: str) -> Iterator[None]:
        """Hold the lock of this project while the body runs. Raises LockHeld with who has it.

        A run may hold it more than once: a fix that starts a service, for one. It is given back with the last.
        """
        with self._mutex:
            if self._holders == 0:
                with contextlib.ExitStack() as opening:
                    opening.enter_context(self._flock(task))
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
    def _flock(self, task: str) -> Iterator[None]:
        """Hold the operating system's lock (flock).

        It is gone with the process that held it, however that ended; the text in the file only says who it is.
        """
        import fcntl

        path = self.path / "lock"
        folder = self.open()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            lock = os.open("lock", flags, 0o644, dir_fd=folder)
            seen = os.fstat(lock)
            if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
                # It would be emptied below, and may be another file under a second name.
                os.close(lock)
                raise StateFolderUnwritable(f"{path} is not a file of stackhand's", "remove it")
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write to {path}: {error.strerror}") from error
        finally:
            os.close(folder)
        file = os.fdopen(lock, "r+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LockHeld(
                    f"another run is changing this stack: {_describe(path)}",
                    "wait for it to end, then try again",
                ) from None
            file.seek(0)
            file.truncate()
            json.dump(
                {
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "task": task,
                    "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                },
                file,
            )
            file.flush()
            try:
                yield
            finally:
                file.seek(0)
                file.truncate()


def _describe(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"{holder['task']} (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "a run that has just begun or is about to end"
