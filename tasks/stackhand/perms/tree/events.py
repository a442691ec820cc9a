"""Events of a run: what people may want to read about single entries, spooled to a file that all processes share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stackhand.errors import JournalFailed

# Events that one process keeps before it writes them.
_KEPT = 100

AddEvent = Callable[[str, str, str], None]
"""Takes a kind (wrong, refused, failed, left), a path below the root, and the reason."""


class Event(NamedTuple):
    """Something that people may want to read about one entry."""

    kind: str
    path: str
    reason: str


class EventSpool:
    """The events of all processes of a run, in a nameless file: there may be more of them than fits into memory."""

    def __init__(self) -> None:
        self._file = os.fdopen(_nameless_file(), "r+b")
        self._kept: list[bytes] = []

    def add(self, kind: str, path: str, reason: str) -> None:
        """Add an event. Raises JournalFailed when it can't be written."""
        self._kept.append(json.dumps((kind, path, reason)).encode("ascii") + b"\n")
        if len(self._kept) >= _KEPT:
            self.flush()

    def flush(self) -> None:
        """Write the events that this process has kept. One write, so lines of several processes do not mix.

        Raises JournalFailed.
        """
        if self._kept:
            data, self._kept = b"".join(self._kept), []
            try:
                written = os.write(self._file.fileno(), data)
            except OSError as error:
                raise JournalFailed(
                    f"the events of this run can't be written: {error.strerror}", "make room in TMPDIR"
                ) from error
            if written != len(data):
                raise JournalFailed("the events of this run can't be written: no space left", "make room in TMPDIR")

    def read(self, *kinds: str) -> Iterator[Event]:
        """Yield the events of these kinds, in the order in which they were written."""
        self.flush()
        position = 0
        while True:
            self._file.seek(position)
            line = self._file.readline()
            if not line:
                return
            position += len(line)
            with contextlib.suppress(ValueError):  # a line that a full disk cut short
                event = Event(*json.loads(line))
                if event.kind in kinds:
                    yield event

    def __del__(self) -> None:
        self._file.close()


def _nameless_file() -> int:
    """Return a descriptor of a file without a name, for appending: it vanishes with its last descriptor."""
    try:
        return os.open(os.environ.get("TMPDIR", "/tmp"), os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # The file system there has no such files. Memory will do.
        memory = os.memfd_create("events")
        fcntl.fcntl(memory, fcntl.F_SETFL, os.O_APPEND)
        return memory
