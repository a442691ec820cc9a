"""What a run changed, written before it is changed: one file of JSON lines for each run, in `.stackhand/perms/`.

Why not the SQLite file of the state folder: several processes write side by side, and every line has to be with the
kernel before the files that it names are touched, at a rate of hundreds of thousands of files a second. A line is one
`write` to a file opened for appending, which no process can tear for another; what is written survives the death
of the process. `fdatasync` follows at the end of a run, so a power failure can cost the last seconds of it.

A line holds the changes in one folder; a run that was killed may have journaled a few that it did not come to do.
Undoing looks at each file, and so finds out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from stackhand.errors import StateFolderUnwritable

FOLDER = "perms"
# Journals that are kept; the oldest goes when there are more.
KEPT = 50
_NAME = re.compile(r"(?P<id>\d{8}-\d{6}(-\d+)?)\.jsonl")
_escaped = json.encoder.encode_basestring_ascii


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

    def reversed(self) -> Change:
        """Return the change that takes this one back."""
        return Change(self.name, self.ino, self.new_uid, self.new_gid, self.new_mode, self.uid, self.gid, self.mode)

    def keeping_all(self) -> Change:
        """Return the change that is none."""
        return self._replace(new_uid=self.uid, new_gid=self.gid, new_mode=self.mode)


@dataclass(frozen=True)
class Head:
    """What the first line of a journal says.

    `undoes` is the run that this one undid, for a run of `perms.undo`; `root` the tree, where it is not the project's.
    """

    id: str
    task: str
    began: str
    target: str
    undoes: str | None = None
    root: str | None = None


class Writer:
    """Appends to the journal of one run. Processes made by fork can share it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._begins = 0

    def write(self, folder: str, changes: list[Change]) -> None:
        """Write down changes that are about to be made in one folder. Raises OSError; then none may be made."""
        entries = ",".join([f"[{_escaped(c[0])},{c[1]},{c[2]},{c[3]},{c[4]},{c[5]},{c[6]},{c[7]}]" for c in changes])
        self._append(f'{{"folder":{_escaped(folder)},"changes":[{entries}]}}')

    def head(self, head: Head) -> None:
        """Write the first line."""
        self._append(json.dumps({"head": vars(head)}))
        self._begins = os.fstat(self.fd).st_size

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written after the first line."""
        return os.fstat(self.fd).st_size == self._begins

    def end(self, document: dict[str, Any]) -> None:
        """Write the last line, and have everything on the disk."""
        self._append(json.dumps({"end": document}))
        os.fdatasync(self.fd)

    def _append(self, line: str) -> None:
        # Each line begins with a line feed: one that was cut short by a full disk spoils no other.
        data = b"\n" + line.encode("ascii")
        written = os.write(self.fd, data)
        if written != len(data):
            raise OSError(28, "No space left on device")


class Journals:
    """The journals of one project. They are opened without following a symbolic link.

    Whoever undoes as root does what a journal says, so root believes only journals that root wrote: anybody else's
    could give a program to root and make it setuid.
    """

    def __init__(self, state_folder: int) -> None:
        self._state = state_folder

    def create(self, task: str, target: str, undoes: str | None = None, root: str | None = None) -> tuple[str, Writer]:
        """Begin a journal; return its id and what writes it. Raises StateFolderUnwritable."""
        now = datetime.now(timezone.utc)
        try:
            folder = self._folder(make=True)
            try:
                stamp = f"{now:%Y%m%d-%H%M%S}"
                # Not the first free number: of that second, the oldest may have gone already.
                last = max((_order(each)[1] for each in _ids(folder) if each.startswith(stamp)), default=0)
                id = f"{stamp}-{last + 1}" if last else stamp
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(f"{id}.jsonl", flags, 0o600, dir_fd=folder)
                self._prune(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StateFolderUnwritable(f"cannot write the journal: {error.strerror}") from error
        writer = Writer(fd)
        writer.head(Head(id, task, now.isoformat(timespec="seconds"), target, undoes, root))
        return id, writer

    def remove(self, id: str) -> None:
        """Remove a journal that has nothing in it."""
        folder = self._folder(make=False)
        os.unlink(f"{id}.jsonl", dir_fd=folder)
        os.close(folder)

    def ids(self) -> list[str]:
        """Return the ids of all journals, the newest first."""
        try:
            folder = self._folder(make=False)
        except OSError:
            return []
        try:
            return sorted(_ids(folder), key=_order, reverse=True)
        finally:
            os.close(folder)

    def open(self, id: str) -> Journal:
        """Open a journal. Raises FileNotFoundError, PermissionError where it is not to be believed."""
        folder = self._folder(make=False)
        try:
            fd = os.open(f"{id}.jsonl", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        seen = os.fstat(fd)
        mine = seen.st_uid == os.geteuid() and stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
        if not mine or seen.st_mode & 0o022:
            os.close(fd)
            raise PermissionError(1, "another user wrote this journal, or could have")
        return Journal(id, fd)

    def _folder(self, *, make: bool) -> int:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(FOLDER, 0o755, dir_fd=self._state)
        return os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._state)

    def _prune(self, folder: int) -> None:
        for id in sorted(_ids(folder), key=_order)[:-KEPT]:
            os.unlink(f"{id}.jsonl", dir_fd=folder)


class Journal:
    """One journal, to be read."""

    def __init__(self, id: str, fd: int) -> None:
        self.id = id
        self._file = os.fdopen(fd, "rb")
        self.head: Head | None = None
        self.end: dict[str, Any] | None = None
        # Where each line with changes begins: a journal can be larger than what should be in memory.
        self._places: list[int] = []
        self.count = 0
        self._scan()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    __del__ = close

    @property
    def last_write(self) -> int:
        """When the last line was written, in nanoseconds since the epoch."""
        return os.fstat(self._file.fileno()).st_mtime_ns

    def backwards(self) -> Iterator[tuple[str, list[Change]]]:
        """Yield folders with their changes, the last one first."""
        for place in reversed(self._places):
            self._file.seek(place)
            line = json.loads(self._file.readline())
            yield line["folder"], [Change(*each) for each in reversed(line["changes"])]

    def _scan(self) -> None:
        place = 0
        for line in self._file:
            begin, place = place, place + len(line)
            try:
                read = json.loads(line)
                if "changes" in read:
                    self.count += sum(1 for each in read["changes"] if Change(*each))
                    self._places.append(begin)
                elif "head" in read:
                    self.head = Head(**read["head"])
                elif "end" in read:
                    self.end = read["end"]
            except (ValueError, TypeError):
                continue  # cut short when its process was killed or the disk full: nothing was done for it


def _ids(folder: int) -> list[str]:
    return [match["id"] for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]


def _order(id: str) -> tuple[str, int]:
    day, time, *number = id.split("-")
    return f"{day}-{time}", int(number[0]) if number else 1
