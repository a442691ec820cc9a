"""What a run changed, written before it is changed: one file of JSON lines for each run, in the user's own folder.

Not in the project, to which its containers can write: whoever undoes as root does what a journal says, and one that is
made up could give a program to root.

Why not the SQLite file of the state folder: several processes write side by side, and every line has to be with the
kernel before the files that it names are touched, at a rate of hundreds of thousands of files a second. A line is one
`write` to a file opened for appending, which no process can tear for another; what is written survives the death
of the process. `fdatasync` follows at the end of a run, so a power failure can cost the last seconds of it.

A line holds changes in one folder, by what they have in common, since most are alike. A run that was killed may have
journaled a few that it did not come to do; undoing looks at each file, and so finds out.
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
# Enough to hold a journal's first or last line.
_TAIL = 65536
# A run that was killed has no last line; what it journaled last it did at once, or not at all.
_MOMENT = 1_000_000_000
_IDS, _MODES = 2**32 - 1, 0o10000


Become = tuple[int, int, int, int, int, int]
"""Owner and mode as they were and as they become: a `Change` without its entry."""


class Change(NamedTuple):
    """One entry's owner and mode, as they were and as they become. `name` is that in its folder, `.` for the folder."""

    name: str
    ino: int
    uid: int
    gid: int
    mode: int
    new_uid: int
    new_gid: int
    new_mode: int

    def keeping_owner(self) -> Change:
        """Return the same change without that of owner and group."""
        return self._replace(new_uid=self.uid, new_gid=self.gid)

    def keeping_all(self) -> Change:
        """Return the change that is none."""
        return self._replace(new_uid=self.uid, new_gid=self.gid, new_mode=self.mode)


@dataclass(frozen=True)
class Head:
    """What the first line of a journal says.

    `at` is when the run began, in nanoseconds since the epoch. `undoes` is the run that this one undid, for a run of
    `perms.undo`; `volume` the exact name of the volume whose files it changed, where they are not the project's.
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
    """What the last line of a journal says: when that was, how many changes failed, whether it was all to be done."""

    at: int
    failed: int
    complete: bool


class Writer:
    """Appends to the journal of one run. Processes made by fork can share it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._begins = 0

    def write(self, folder: str, changes: Iterable[Change]) -> None:
        """Write down changes that are about to be made in one folder. Raises JournalFailed; then none may be made."""
        alike: dict[Become, tuple[list[str], list[int]]] = {}
        for change in changes:
            names, inodes = alike.setdefault(change[2:], ([], []))
            names.append(change.name)
            inodes.append(change.ino)
        self.write_alike(folder, alike)

    def write_alike(self, folder: str, changes: Mapping[Become, tuple[list[str], list[int]]]) -> None:
        """Write down changes, by what they have in common: names and inodes. Raises JournalFailed, as `write` does."""
        listed = [[become, *named] for become, named in changes.items()]
        self._append(json.dumps({"folder": folder, "changes": listed}))

    def head(self, head: Head) -> None:
        """Write the first line. Raises JournalFailed."""
        self._append(json.dumps({"head": vars(head)}))
        self._begins = os.fstat(self.fd).st_size

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written after the first line."""
        return os.fstat(self.fd).st_size == self._begins

    def end(self, *, failed: int, complete: bool, at: int | None = None) -> None:
        """Write the last line, and have everything on the disk. Raises JournalFailed."""
        self._append(json.dumps({"end": vars(End(at or time.time_ns(), failed, complete))}))
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise _failed(error.strerror) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def _append(self, line: str) -> None:
        # Each line begins with a line feed: one that was cut short by a full disk spoils no other.
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
    """The journals of one project that this user's runs wrote."""

    def __init__(self, place: PrivateFolder) -> None:
        self._place = place

    @property
    def path(self) -> Path:
        """Where they are."""
        return self._place.path

    def create(
        self, task: str, target: str, undoes: str | None = None, volume: str | None = None
    ) -> tuple[str, Writer]:
        """Begin a journal; return its id and what writes it. Raises StateFolderUnwritable."""
        now = datetime.now(timezone.utc)
        folder = self._place.make()
        try:
            stamp = f"{now:%Y%m%d-%H%M%S}"
            # Not the first free number: of that second, the oldest may have gone already.
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
            raise StateFolderUnwritable(error.message, f"nothing was changed; it is in {self._place.path}") from error
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write the journal: {error.strerror}") from error
        finally:
            os.close(folder)
        return id, writer

    def remove(self, id: str) -> None:
        """Remove a journal that has nothing in it."""
        with contextlib.suppress(OSError):
            folder = self._place.open()
            try:
                os.unlink(f"{id}.jsonl", dir_fd=folder)
            finally:
                os.close(folder)

    def finish(self, journal: Journal) -> None:
        """Write the last line of a run that was killed, so that nobody looks again for what it left half way."""
        folder = self._place.open()
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(f"{journal.id}.jsonl", flags, dir_fd=folder)
        finally:
            os.close(folder)
        with contextlib.closing(Writer(fd)) as writer:
            writer.end(failed=0, complete=False, at=journal.ended)

    def ids(self) -> list[str]:
        """Return the ids of all journals, the newest first. Raises PermissionError where others could write them."""
        try:
            folder = self._place.open()
        except FileNotFoundError:
            return []
        try:
            return sorted(_ids(folder), key=_order, reverse=True)
        finally:
            os.close(folder)

    def open(self, id: str) -> Journal:
        """Open a journal. Raises FileNotFoundError, PermissionError where it is not to be believed."""
        folder = self._place.open()
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
    """One journal, to be read. `head` and `end` are its first and last line, None where it was not written."""

    def __init__(self, id: str, fd: int) -> None:
        self.id = id
        self._file = os.fdopen(fd, "rb")
        # It begins with a line feed.
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
        """When the run had made its last change, in nanoseconds since the epoch; a moment later if it was killed."""
        return self.end.at if self.end else os.fstat(self._file.fileno()).st_mtime_ns + _MOMENT

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end, and nothing failed."""
        return self.end is not None and self.end.complete and not self.end.failed

    def backwards(self) -> Iterator[tuple[str, list[Change]]]:
        """Yield folders with their changes, the last one first."""
        # Where each line begins: a journal can be larger than what should be in memory.
        self._file.seek(0)
        places, place = [], 0
        for line in self._file:
            places.append(place)
            place += len(line)
        for place in reversed(places):
            self._file.seek(place)
            found = _changes(self._file.readline())
            if found:
                yield found


def _parsed(line: bytes) -> dict[str, Any]:
    """Return what a line says; nothing where it was cut short, when its process was killed or the disk full."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _changes(line: bytes) -> tuple[str, list[Change]] | None:
    """Return the folder and the changes of a line, the last first; None where it has none that can be right."""
    read = _parsed(line)
    try:
        folder = read["folder"]
        changes = [
            Change(name, ino, *become)
            for become, names, inodes in reversed(read["changes"])
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
