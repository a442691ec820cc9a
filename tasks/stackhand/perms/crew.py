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
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

from stackhand.errors import FixFailed
from stackhand.perms.devices import close_devices
from stackhand.perms.journal import Writer
from stackhand.perms.rules import Rules
from stackhand.perms.walk import Known, Place, Tally, Walker

_MOST = 4
# Folders to share out for each process: enough that none is left with a large one when the others are done.
_SHARES = 48
# A tree with fewer folders is walked sooner than a process is made.
_WORTH_IT = 64
_LOOK_EVERY = 0.2
_COUNTER = struct.Struct("=Q")
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
            os.write(self._file.fileno(), data)

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
    root: str, rules: Rules, known: Known, journal: Writer | None, notes: Notes, progress: Progress = lambda _: None
) -> Tally:
    """Walk the whole tree; return what was counted. `progress` is told how many entries have been seen.

    Raises OSError where the root can't be opened, FixFailed when a process of the crew died.
    """
    walker = Walker(root, rules, known, journal, notes.add, lambda tally: progress(tally.scanned))
    try:
        pending = deque(walker.root())
        crew = min(_MOST, len(os.sched_getaffinity(0)))
        # Breadth first, until there is enough to share.
        while pending and (crew < 2 or len(pending) < max(_WORTH_IT, _SHARES * crew)):
            pending.extend(walker.visit(pending.popleft()) if crew > 1 else _deep(walker, pending.popleft()))
        notes.flush()
        tally = walker.tally
    finally:
        walker.close()
    if pending:
        places = list(pending)
        tally.add(_Crew(root, rules, known, journal, notes, places).run(crew, lambda n: progress(tally.scanned + n)))
    return tally


def _deep(walker: Walker, place: Place) -> list[Place]:
    walker.walk(place)
    return []


class _Crew:
    def __init__(
        self, root: str, rules: Rules, known: Known, journal: Writer | None, notes: Notes, places: list[Place]
    ) -> None:
        self._walk = (root, rules, known, journal)
        self._notes = notes
        self._places = places
        self._parent = os.getpid()

    def run(self, size: int, progress: Progress) -> Tally:
        """Have the places walked by so many processes; return what they counted."""
        # Whoever is free takes the next number out of this pipe.
        tickets, fill = os.pipe()
        os.write(fill, b"".join(map(_TICKET.pack, range(min(len(self._places), _MOST_TICKETS)))))
        os.close(fill)
        counters = mmap.mmap(-1, _COUNTER.size * size)
        members: dict[int, int] = {}
        try:
            for number in range(size):
                pid, answers = self._fork(number, tickets, counters)
                members[answers] = pid
            return self._gather(members, counters, progress)
        finally:
            os.close(tickets)
            for answers, pid in members.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(answers)
            counters.close()

    def _gather(self, members: dict[int, int], counters: mmap.mmap, progress: Progress) -> Tally:
        total, heard = Tally(), dict.fromkeys(members, b"")
        waiting = set(members)
        while waiting:
            ready, _, _ = select.select(waiting, [], [], _LOOK_EVERY)
            for answers in ready:
                data = os.read(answers, 65536)
                heard[answers] += data
                if not data:
                    waiting.discard(answers)
            progress(sum(number for (number,) in _COUNTER.iter_unpack(counters[:])))
        for answer in heard.values():
            document = json.loads(answer or b'{"error": "it was killed"}')
            if "error" in document:
                raise FixFailed(
                    f"a process that walked the project ended early: {document['error']}",
                    "what was changed is in the journal; run it again to go on",
                )
            total.add(Tally(**document))
        return total

    def _fork(self, number: int, tickets: int, counters: mmap.mmap) -> tuple[int, int]:
        answers, answer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns about threads; ours only run what is below, which takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(answer)
            return pid, answers
        try:
            # Ctrl-C reaches the whole group; the first process decides, and ends this one.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Nothing here makes cycles; looking for them would take time, and touch all the memory that is shared.
            gc.disable()
            document = self._work(number, tickets, counters)
        except BaseException as error:
            document = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            data = json.dumps(document).encode()
            while data:
                data = data[os.write(answer, data) :]
        os._exit(0)

    def _work(self, number: int, tickets: int, counters: mmap.mmap) -> dict[str, object]:
        def step(tally: Tally) -> None:
            _COUNTER.pack_into(counters, number * _COUNTER.size, tally.scanned)
            if os.getppid() != self._parent:
                os._exit(1)  # the first process was killed: whoever comes next goes on

        walker = Walker(*self._walk, self._notes.add, step, devices_closed=close_devices())
        while ticket := os.read(tickets, _TICKET.size):
            (first,) = _TICKET.unpack(ticket)
            for place in self._places[first::_MOST_TICKETS]:
                walker.walk(place)
        self._notes.flush()
        return asdict(walker.tally)
