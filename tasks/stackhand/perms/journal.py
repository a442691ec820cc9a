"""The changes of a run, written before they are made: a file of JSON lines for each run, in the user's private folder.

It is not in the project, because containers can write there. An undo by root does what its journal says, and a journal
that somebody made up could hand a program to root.

It is not the journal of actions (`state/journal.py`) either. Several processes write side by side, and the kernel must
have each line before the files that it names are touched, hundreds of thousands of files a second. A line is one
`write` to a file opened for appending: lines of several processes do not mix, and what is written survives the death of
its process. `fdatasync` comes at the end of a run, so a power failure can cost the last seconds of it.

The first line is the head of a run, the last one its end. Each line between has changes in one folder, grouped by owner
and mode before and after, since most are alike. A run that was killed may have written a few changes that it never
made. An undo looks at each file, and so finds out.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from stackhand.errors import JournalFailed, StateFolderUnwritable
from stackhand.state.private import PrivateFolder

# Journals that are kept; the oldest goes when there are more.
KEPT = 50
_NAME = re.compile(r"(?P<id>\d{8}-\d{6}(-\d+)?)\.jsonl")
# Bytes that are read for a journal's first or last line; both are far shorter.
_TAIL = 65536
# How long after its last line a run that was killed may have made changes, in nanoseconds: it made them at once.
_MOMENT = 1_000_000_000
_IDS, _MODES = 2**32 - 1, 0o10000


Transition = tuple[int, int, int, int, int, int]
"""User, group and mode before, then the same after: a `Change` without its entry."""


class Change(NamedTuple):
    """The owner and mode of one entry, before and after. `name` is its name in its folder; `.` is the folder itself."""

    name: str
    ino: int
    uid: int
    gid: int
    mode: int
    new_uid: int
    new_gid: int
    new_mode: int

    def keeping_owner(self) -> Change:
        """Return the same change without its change of owner and group."""
        return self._replace(new_uid=self.uid, new_gid=self.gid)

    def keeping_all(self) -> Change:
        """Return the change that changes nothing."""
        return self._replace(new_uid=self.uid, new_gid=self.gid, new_mode=self.mode)


@dataclass(frozen=True)
class Head:
    """The first line of a journal.

    `at` is when the run began, in nanoseconds since the epoch. `undoes` is the run that a run of `perms.undo` undid.
    `volume` is the engine's name of the volume whose files the run changed, None for files of the project.
    """

    id: str
    task: str
    began: str
    at: int
    target: str
    undoes: str | None = None
    volume: str | None = None


@dataclass(frozen=True)
class End:
    """The last line of a journal: when the run ended, how many changes failed, and whether it did all it meant to."""

    at: int
    failed: int
    complete: bool


class Writer:
    """Appends to the journal of one run. Forked processes can share it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._begins = 0

    def write(self, folder: str, changes: Iterable[Change]) -> None:
        """Write changes that are about to be made in one folder. Raises JournalFailed; then make none of them."""
        alike: dict[Transition, tuple[list[str], list[int]]] = {}
        for change in changes:
            names, inodes = alike.setdefault(change[2:], ([], []))
            names.append(change.name)
            inodes.append(change.ino)
        self.write_alike(folder, alike)

    def write_alike(self, folder: str, changes: Mapping[Transition, tuple[list[str], list[int]]]) -> None:
        """Do what `write` does with changes that are grouped already: each group has names and inodes."""
        listed = [[transition, *named] for transition, named in changes.items()]
        self._append(json.dumps({"folder": folder, "changes": listed}))

    def head(self, head: Head) -> None:
        """Write the first line. Raises JournalFailed."""
        self._append(json.dumps({"head": vars(head)}))
        self._begins = os.fstat(self.fd).st_size

    @property
    def is_empty(self) -> bool:
        """Whether it has no line but the first."""
        return os.fstat(self.fd).st_size == self._begins

    def end(self, *, failed: int, complete: bool, at: int | None = None) -> None:
        """Write the last line, and wait until all is on the disk. Raises JournalFailed."""
        self._append(json.dumps({"end": vars(End(at or time.time_ns(), failed, complete))}))
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise _failed(error.strerror) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def _append(self, line: str) -> None:
        # Each line begins with a line feed. So a line that a full disk cut short does not spoil the next one.
        data = b"\n" + line.encode("ascii")
        try:
            written = os.write(self.fd, data)
        except OSError as error:
            raise _failed(error.strerror) from error
        if written != len(data):
            raise _failed(os.strerror(errno.ENOSPC))


def _failed(reason: str | None) -> JournalFailed:
    return JournalFailed(
        f"the journal can't be written: {reason}",
        "what could not be journaled was not changed; once there is room, run it again to go on",
    )


class Journals:
    """The journals of this user's runs of one project."""

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private

    @property
    def path(self) -> Path:
        """The folder that they are in."""
        return self._private.path

    def create(
        self, task: str, target: str, undoes: str | None = None, volume: str | None = None
    ) -> tuple[str, Writer]:
        """Begin a journal; return its id and what writes it. Raises StateFolderUnwritable."""
        now = datetime.now(timezone.utc)
        folder = self._private.make()
        try:
            stamp = f"{now:%Y%m%d-%H%M%S}"
            # One more than the last number, not the first free one: the oldest of this second may be gone already.
            last = max((_order(each)[1] for each in _ids(folder) if each.startswith(stamp)), default=0)
            id = f"{stamp}-{last + 1}" if last else stamp
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            writer = Writer(os.open(f"{id}.jsonl", flags, 0o600, dir_fd=folder))
            try:
                writer.head(Head(id, task, now.isoformat(timespec="seconds"), time.time_ns(), target, undoes, volume))
                _prune(folder, id)
            except BaseException:
                writer.close()
                os.unlink(f"{id}.jsonl", dir_fd=folder)
                raise
        except JournalFailed as error:
            raise StateFolderUnwritable(error.message, f"nothing was changed; it is in {self._private.path}") from error
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write the journal: {error.strerror}") from error
        finally:
            os.close(folder)
        return id, writer

    def remove(self, id: str) -> None:
        """Remove a journal, as that of a run that has changed nothing."""
        with contextlib.suppress(OSError):
            folder = self._private.open()
            try:
                os.unlink(f"{id}.jsonl", dir_fd=folder)
            finally:
                os.close(folder)

    def settle(self, journal: Journal) -> None:
        """Write the last line of a run that was killed, once it is completed."""
        folder = self._private.open()
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(f"{journal.id}.jsonl", flags, dir_fd=folder)
        finally:
            os.close(folder)
        with contextlib.closing(Writer(fd)) as writer:
            writer.end(failed=0, complete=False, at=journal.ended)

    def ids(self) -> list[str]:
        """Return the ids of all journals, the newest first. Raises PermissionError if others could write there."""
        try:
            folder = self._private.open()
        except FileNotFoundError:
            return []
        try:
            return sorted(_ids(folder), key=_order, reverse=True)
        finally:
            os.close(folder)

    def unfinished(self, volume: str | None, *, but: str) -> Iterator[Journal]:
        """Yield the journals of the runs that came to no end since the last one that did, the newest first.

        Only runs of this volume count, None being the project itself, and not the run `but`, which is under way.
        Raises PermissionError.
        """
        for id in self.ids():
            if id == but:
                continue
            journal = self.open(id)
            if journal.head is None or journal.head.volume != volume:
                continue
            if journal.end is not None:
                return
            yield journal

    def open(self, id: str) -> Journal:
        """Open a journal. Raises FileNotFoundError, and PermissionError if somebody else may have written it."""
        folder = self._private.open()
        try:
            fd = os.open(f"{id}.jsonl", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        seen = os.fstat(fd)
        mine = seen.st_uid == os.geteuid() and stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
        if not mine or seen.st_mode & 0o022:
            os.close(fd)
            raise PermissionError(1, "another user wrote it, or could have")
        return Journal(id, fd)


class Journal:
    """One journal, to be read. `head` and `end` are its first and last line, None if it was not written."""

    def __init__(self, id: str, fd: int) -> None:
        self.id = id
        self._file = os.fdopen(fd, "rb")
        # The file begins with a line feed.
        first = _parsed(self._file.read(_TAIL).lstrip(b"\n").partition(b"\n")[0])
        self._file.seek(max(0, os.fstat(fd).st_size - _TAIL))
        last = _parsed(self._file.read().rpartition(b"\n")[2])
        self.head: Head | None = None
        self.end: End | None = None
        with contextlib.suppress(TypeError, KeyError):
            self.head = Head(**first["head"])
        with contextlib.suppress(TypeError, KeyError):
            self.end = End(**last["end"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    __del__ = close

    @property
    def began(self) -> int:
        """When the run began, in nanoseconds since the epoch."""
        return self.head.at if self.head else 0

    @property
    def ended(self) -> int:
        """When the run had made its last change at the latest, in nanoseconds since the epoch."""
        return self.end.at if self.end else os.fstat(self._file.fileno()).st_mtime_ns + _MOMENT

    @property
    def is_complete(self) -> bool:
        """Whether the run did all that it meant to, and nothing failed."""
        return self.end is not None and self.end.complete and not self.end.failed

    def backwards(self) -> Iterator[tuple[str, list[Change]]]:
        """Yield folders with their changes, the last line first."""
        # Only the positions of the lines are kept: a journal may not fit into memory.
        self._file.seek(0)
        positions, position = [], 0
        for line in self._file:
            positions.append(position)
            position += len(line)
        for position in reversed(positions):
            self._file.seek(position)
            found = _changes(self._file.readline())
            if found:
                yield found


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the object of a line; an empty one if the line was cut short, by a kill or a full disk."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _changes(line: bytes) -> tuple[str, list[Change]] | None:
    """Return the folder and the changes of a line, the last first; None if it is damaged, or not a line of changes."""
    read = _parsed(line)
    try:
        folder = read["folder"]
        changes = [
            Change(name, ino, *transition)
            for transition, names, inodes in reversed(read["changes"])
            for name, ino in zip(reversed(names), reversed(inodes), strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        return None
    whole = isinstance(folder, str) and (not folder or all(map(_is_name, folder.split("/"))))
    return (folder, changes) if whole and all(map(_is_sound, changes)) else None


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _is_sound(change: Change) -> bool:
    numbers = change[1:]
    ids, modes = (change.uid, change.gid, change.new_uid, change.new_gid), (change.mode, change.new_mode)
    return (
        (change.name == "." or _is_name(change.name))
        and all(type(each) is int for each in numbers)
        and all(0 <= each < _IDS for each in ids)
        and all(0 <= each < _MODES for each in modes)
    )


def _ids(folder: int) -> list[str]:
    return [match["id"] for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]


def _order(id: str) -> tuple[str, int]:
    day, time, *number = id.split("-")
    return f"{day}-{time}", int(number[0]) if number else 1


def _prune(folder: int, new: str) -> None:
    others = sorted((each for each in _ids(folder) if each != new), key=_order)
    for id in others[: max(0, len(others) - KEPT + 1)]:
        os.unlink(f"{id}.jsonl", dir_fd=folder)
