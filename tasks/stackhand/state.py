"""The project's `.stackhand/` folder: the lock that keeps two changing runs apart, caches, journals."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

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

    def recall(self, name: str) -> Any:
        """Return what was remembered under a name, None where that is nothing."""
        try:
            return json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def remember(self, name: str, value: Any) -> None:
        """Remember a JSON value under a name; written whole or not at all. Raises StateFolderUnwritable."""
        draft = self.prepare() / f"{name}.{os.getpid()}"
        try:
            draft.write_text(json.dumps(value), encoding="utf-8")
            draft.replace(self.path / f"{name}.json")
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write to {self.path}: {error.strerror}") from error

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
