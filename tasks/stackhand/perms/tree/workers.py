"""Several processes walk one tree, each through other folders of it.

System calls are all of the work, and each is made while holding Python's lock in between; so processes, not threads,
are what makes use of a second core. They share the journal, and a file that takes the notes.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import mmap
import os
import select
import signal
import struct
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

from stackhand.errors import FixFailed, JournalFailed, StackError
from stackhand.perms.journal import Writer
from stackhand.perms.policy.rules import Rules
from stackhand.perms.tree.counts import COUNTED, Counts
from stackhand.perms.tree.evaluate import Place
from stackhand.perms.tree.interrupts import held_back
from stackhand.perms.tree.nodev import close_devices
from stackhand.perms.tree.walk import Known, Walker

_MOST = 4
# Folders to share out for each process: enough that none is left with a large one when the others are done.
_SHARES = 48
# A tree with fewer folders is walked sooner than a process is made.
_WORTH_IT = 64
_LOOK_EVERY = 0.05
# How long a process may take to end what it has begun, when it is told to.
_PATIENCE = 10.0
# What each process tells of its tally while it works, behind the flag that tells all of them to end.
_COUNTER = struct.Struct(f"={len(COUNTED)}Q")
_FLAG = 1
_TICKET = struct.Struct("=H")
# All of them fit into a pipe.
_MOST_TICKETS = 4096

Progress = Callable[[int], None]


class Noted(NamedTuple):
    """Something that people may want to read about one entry."""

    kind: str
    path: str
    reason: str


class Notes:
    """What the walkers noted, in a nameless file: there can be more than should be in memory."""

    def __init__(self) -> None:
        self._file = os.fdopen(_nameless_file(), "r+b")
        self._kept: list[bytes] = []

    def add(self, kind: str, path: str, reason: str) -> None:
        """Take a note."""
        self._kept.append(json.dumps((kind, path, reason)).encode("ascii") + b"\n")
        if len(self._kept) >= 100:
            self.flush()

    def flush(self) -> None:
        """Write what this process has noted; lines of several processes do not mix."""
        if self._kept:
            data, self._kept = b"".join(self._kept), []
            try:
                written = os.write(self._file.fileno(), data)
            except OSError as error:
                raise JournalFailed(f"notes can't be written: {error.strerror}", "make room in TMPDIR") from error
            if written != len(data):
                raise JournalFailed("notes can't be written: no space left", "make room in TMPDIR")

    def read(self, *kinds: str) -> Iterator[Noted]:
        """Yield the notes of these kinds."""
        self.flush()
        place = 0
        while True:
            self._file.seek(place)
            line = self._file.readline()
            if not line:
                return
            place += len(line)
            with contextlib.suppress(ValueError):  # cut short by a full disk
                noted = Noted(*json.loads(line))
                if noted.kind in kinds:
                    yield noted

    def __del__(self) -> None:
        self._file.close()


def _nameless_file() -> int:
    """Return a file that is gone with its last descriptor; what is written goes to its end, whoever writes."""
    try:
        return os.open(os.environ.get("TMPDIR", "/tmp"), os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # No such file can be made there; memory will do.
        memory = os.memfd_create("notes")
        fcntl.fcntl(memory, fcntl.F_SETFL, os.O_APPEND)
        return memory


def walk(
    root: str,
    rules: Rules,
    known: Known,
    journal: Writer | None,
    notes: Notes,
    progress: Progress = lambda _: None,
    tally: Counts | None = None,
) -> Counts:
    """Walk the whole tree; return what was counted. `progress` is told how many entries have been seen.

    Raises OSError where the root can't be opened, FixFailed when a process of the crew died, JournalFailed, and
    KeyboardInterrupt once every entry that was begun is done; `tally` has what was counted until then.
    """
    tally = Counts() if tally is None else tally
    with held_back() as interrupted:

        def tell(entries: int) -> None:
            interrupted()
            progress(entries)

        walker = Walker(root, rules, known, journal, notes.add, lambda tally: tell(tally.scanned))
        try:
            pending = deque(walker.root())
            crew = min(_MOST, len(os.sched_getaffinity(0)))
            # Breadth first, until there is enough to share. With one processor, too: a process of its own can do
            # without devices, which this one may not, and is faster for it.
            while pending and len(pending) < max(_WORTH_IT, _SHARES * crew):
                pending.extend(walker.visit(pending.popleft()))
            notes.flush()
        finally:
            walker.close()
            tally.add(walker.tally)
        if pending:
            before = tally.scanned
            _Crew(root, rules, known, journal, notes, list(pending)).run(crew, lambda n: tell(before + n), tally)
    return tally


class _Ended(BaseException):
    """This process was told to end."""


class _Crew:
    def __init__(
        self, root: str, rules: Rules, known: Known, journal: Writer | None, notes: Notes, places: list[Place]
    ) -> None:
        self._walk = (root, rules, known, journal)
        self._notes = notes
        self._places = places
        self._parent = os.getpid()

    def run(self, size: int, progress: Progress, tally: Counts) -> None:
        """Have the places walked by so many processes; add to the tally what they counted, however this ends."""
        # Whoever is free takes the next number out of this pipe.
        tickets, fill = os.pipe()
        os.write(fill, b"".join(map(_TICKET.pack, range(min(len(self._places), _MOST_TICKETS)))))
        os.close(fill)
        shared = mmap.mmap(-1, _FLAG + _COUNTER.size * size)
        members: dict[int, int] = {}
        heard: dict[int, bytes] = {}
        try:
            for number in range(size):
                pid, answers = self._fork(number, tickets, shared)
                members[answers], heard[answers] = pid, b""
            try:
                self._listen(heard, shared, progress)
            except BaseException:
                shared[0] = 1
                self._listen(heard, shared, lambda _: None, time.monotonic() + _PATIENCE)
                raise
        finally:
            os.close(tickets)
            for answers, pid in members.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(answers)
            ends = [self._end(data, shared, number) for number, data in enumerate(heard.values())]
            for counted, _ in ends:
                tally.add(counted)
            shared.close()
        for _, error in ends:
            if error is not None:
                raise error

    def _listen(
        self, heard: dict[int, bytes], shared: mmap.mmap, progress: Progress, until: float = float("inf")
    ) -> None:
        """Hear what the members have to say until each has ended, or for so long."""
        waiting = set(heard)
        while waiting and time.monotonic() < until:
            ready, _, _ = select.select(waiting, [], [], _LOOK_EVERY)
            for answers in ready:
                data = os.read(answers, 65536)
                heard[answers] += data
                if not data:
                    waiting.discard(answers)
            progress(sum(numbers[0] for numbers in _COUNTER.iter_unpack(shared[_FLAG:])))

    @staticmethod
    def _end(data: bytes, shared: mmap.mmap, number: int) -> tuple[Counts, StackError | None]:
        """Return what a member counted, and what was wrong with its end."""
        try:
            document = json.loads(data)
        except ValueError:
            counted = _COUNTER.unpack_from(shared, _FLAG + number * _COUNTER.size)
            document = {"tally": dict(zip(COUNTED, counted, strict=True)), "error": "it was killed"}
        tally, error = Counts(**document["tally"]), document.get("error")
        if error is None:
            return tally, None
        if isinstance(error, list):
            return tally, JournalFailed(*error)
        return tally, FixFailed(
            f"a process that walked the project ended early: {error}",
            "what was changed is in the journal; run it again to go on",
        )

    def _fork(self, number: int, tickets: int, shared: mmap.mmap) -> tuple[int, int]:
        answers, answer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns about threads; ours only run what is below, which takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(answer)
            return pid, answers
        document: dict[str, object] = {}
        try:
            # These reach the whole group; the first process decides, and tells this one.
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            # Nothing here makes cycles; looking for them would take time, and touch all the memory that is shared.
            gc.disable()
            document = self._work(number, tickets, shared)
        except BaseException as error:
            document = {"tally": {}, "error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            data = json.dumps(document).encode()
            while data:
                data = data[os.write(answer, data) :]
        os._exit(0)

    def _work(self, number: int, tickets: int, shared: mmap.mmap) -> dict[str, object]:
        def step(tally: Counts) -> None:
            counted = [getattr(tally, name) for name in COUNTED]
            _COUNTER.pack_into(shared, _FLAG + number * _COUNTER.size, *counted)
            if os.getppid() != self._parent:
                os._exit(1)  # the first process was killed: whoever comes next goes on
            if shared[0]:
                raise _Ended

        walker = Walker(*self._walk, self._notes.add, step, devices_closed=close_devices())
        error: object = None
        try:
            while ticket := os.read(tickets, _TICKET.size):
                (first,) = _TICKET.unpack(ticket)
                for place in self._places[first::_MOST_TICKETS]:
                    walker.walk(place)
            self._notes.flush()
        except _Ended:
            self._notes.flush()
        except JournalFailed as failed:
            error = [failed.message, failed.hint]
        except Exception as bug:
            error = f"{type(bug).__name__}: {bug}"
        walker.close()
        return {"tally": asdict(walker.tally), "error": error}
