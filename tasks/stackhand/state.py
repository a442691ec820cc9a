"""The project's `.stackhand/` folder: the lock that keeps two changing runs apart, caches, journals."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from stackhand.errors import LockHeld, StateFolderUnwritable

FOLDER = ".stackhand"


class StateFolder:
    """What stackhand remembers of one project. Made when first written to; git ignores it by itself."""

    def __init__(self, project_directory: Path) -> None:
        self.path = project_directory / FOLDER

    def prepare(self) -> Path:
        """Make the folder where it is missing and return it. Raises StateFolderUnwritable."""
        try:
            self.path.mkdir(exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise StateFolderUnwritable(
                f"cannot write to {self.path}: {error.strerror}",
                "make the project's folder writable for this user; `inv perms.check` shows what is wrong",
            ) from error
        return self.path

    @property
    def completed(self) -> frozenset[str]:
        """The runs of containers that were seen to end by themselves, their work done."""
        try:
            return frozenset(json.loads((self.path / "completed.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return frozenset()

    def remember_completed(self, runs: Iterable[str]) -> None:
        """Remember these runs, and forget all others. Written whole or not at all."""
        draft = self.prepare() / f"completed.{os.getpid()}"
        draft.write_text(json.dumps(sorted(runs)), encoding="utf-8")
        draft.replace(self.path / "completed.json")

    @contextlib.contextmanager
    def lock(self, task: str) -> Iterator[None]:
        """Hold the lock of this project while the body runs. Raises LockHeld with who has it.

        The lock is the operating system's (flock), so it is gone with the process that held it, however that
        ended; the text in the file only says who it is.
        """
        import fcntl

        path = self.prepare() / "lock"
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write to {path}: {error.strerror}") from error
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
