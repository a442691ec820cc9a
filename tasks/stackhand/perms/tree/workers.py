"""Several processes walk one tree, each through other folders of it.

Nearly all of the work is system calls, and Python's lock is taken again after each. So only processes, not threads,
make use of a second core. They share the journal and the spool of events.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable
from dataclasses import asdict

from stackhand.errors import FixFailed, JournalFailed, StackError
from stackhand.perms.journal import Writer
from stackhand.perms.policy.rules import Rules
from stackhand.perms.tree.counts import COUNTED, Counts
from stackhand.perms.tree.evaluate import PendingDir
from stackhand.perms.tree.events import EventSpool
from stackhand.perms.tree.interrupts import defer_signals
from stackhand.perms.tree.nodev import close_devices
from stackhand.perms.tree.walk import LastCleanRun, Walker

# Processes of a run, at most.
_MOST = 4
# Folders to share out for each process: enough that no process is left with a large one when the others are done.
_SHARES = 48
# A tree with fewer folders takes less time than making a process does.
_WORTH_IT = 64
# How often the first process looks at the counts of the others, in seconds.
_LOOK_EVERY = 0.05
# How long a process may take to finish what it has begun when it is told to end, in seconds.
_END_TIMEOUT = 10.0
# Shared memory: one byte that tells all processes to end, then the counts of each.
_FLAG = 1
_COUNTER = struct.Struct(f"={len(COUNTED)}Q")
_WORK_ITEM = struct.Struct("=H")
# So many work items fit into a pipe.
_MOST_WORK_ITEMS = 4096

Progress = Callable[[int], None]
"""Takes the number of entries that have been looked at."""


def walk(
    root: str,
    rules: Rules,
    last_clean: LastCleanRun,
    journal: Writer | None,
    events: EventSpool,
    progress: Progress = lambda _: None,
    counts: Counts | None = None,
) -> Counts:
    """Walk the whole tree; return the counts. With a journal it changes what is wrong, without one it only looks.

    Raises OSError if the root can't be opened, FixFailed if a worker process died, JournalFailed, and KeyboardInterrupt
    once every entry that was begun is done. `counts`, where given, is filled however the walk ends.
    """
    counts = Counts() if counts is None else counts
    with defer_signals() as interrupted:

        def tell(entries: int) -> None:
            interrupted()
            progress(entries)

        walker = Walker(root, rules, last_clean, journal, events.add, lambda counts: tell(counts.scanned))
        try:
            pending = deque(walker.root())
            processes = min(_MOST, len(os.sched_getaffinity(0)))
            # Breadth first, until there is enough to share. With one processor, too: a worker process can forbid itself
            # to open devices, which this one can't, and is faster for it (see nodev.py).
            while pending and len(pending) < max(_WORTH_IT, _SHARES * processes):
                pending.extend(walker.visit(pending.popleft()))
            events.flush()
        finally:
            walker.close()
            counts.add(walker.counts)
        if pending:
            before = counts.scanned
            _WorkerPool(root, rules, last_clean, journal, events, list(pending)).run(
                processes, lambda n: tell(before + n), counts
            )
    return counts


class _Ended(BaseException):
    """The first process has told this one to end."""


class _WorkerPool:
    """Forked processes that walk the pending folders: each takes the next one out of a pipe when it is free."""

    def __init__(
        self,
        root: str,
        rules: Rules,
        last_clean: LastCleanRun,
        journal: Writer | None,
        events: EventSpool,
        pending: list[PendingDir],
    ) -> None:
        self._walk = (root, rules, last_clean, journal)
        self._events = events
        self._pending = pending
        self._parent = os.getpid()

    def run(self, size: int, progress: Progress, counts: Counts) -> None:
        """Walk the folders with `size` processes; add what they counted to `counts`, however this ends.

        Raises what `walk` raises.
        """
        # One number for each folder.
        work_items, fill = os.pipe()
        os.write(fill, b"".join(map(_WORK_ITEM.pack, range(min(len(self._pending), _MOST_WORK_ITEMS)))))
        os.close(fill)
        shared = mmap.mmap(-1, _FLAG + _COUNTER.size * size)
        workers: dict[int, int] = {}
        heard: dict[int, bytes] = {}
        try:
            for number in range(size):
                pid, answers = self._fork(number, work_items, shared)
                workers[answers], heard[answers] = pid, b""
            try:
                self._listen(heard, shared, progress)
            except BaseException:
                shared[0] = 1
                self._listen(heard, shared, lambda _: None, time.monotonic() + _END_TIMEOUT)
                raise
        finally:
            os.close(work_items)
            for answers, pid in workers.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(answers)
            ends = [self._end(data, shared, number) for number, data in enumerate(heard.values())]
            for counted, _ in ends:
                counts.add(counted)
            shared.close()
        for _, error in ends:
            if error is not None:
                raise error

    def _listen(
        self, heard: dict[int, bytes], shared: mmap.mmap, progress: Progress, until: float = float("inf")
    ) -> None:
        """Read the answers of all workers until each has ended, or until the monotonic clock says `until`."""
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
        """Return what a worker counted, and the error that ended it, if any. `data` is its answer."""
        try:
            document = json.loads(data)
        except ValueError:
            counted = _COUNTER.unpack_from(shared, _FLAG + number * _COUNTER.size)
            document = {"counts": dict(zip(COUNTED, counted, strict=True)), "error": "it was killed"}
        counts, error = Counts(**document["counts"]), document.get("error")
        if error is None:
            return counts, None
        if isinstance(error, list):
            return counts, JournalFailed(*error)
        return counts, FixFailed(
            f"a process that walked the project ended early: {error}",
            "what was changed is in the journal; run it again to go on",
        )

    def _fork(self, number: int, work_items: int, shared: mmap.mmap) -> tuple[int, int]:
        answers, answer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns when a process with threads forks. The child only runs what is below, and that takes no
            # lock that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(answer)
            return pid, answers
        document: dict[str, object] = {}
        try:
            # A terminal sends these to the whole group. The first process decides, and sets the flag.
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            # Nothing here makes reference cycles. Looking for them takes time, and copies memory that is shared.
            gc.disable()
            document = self._work(number, work_items, shared)
        except BaseException as error:
            document = {"counts": {}, "error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            data = json.dumps(document).encode()
            while data:
                data = data[os.write(answer, data) :]
        os._exit(0)

    def _work(self, number: int, work_items: int, shared: mmap.mmap) -> dict[str, object]:
        def step(counts: Counts) -> None:
            counted = [getattr(counts, name) for name in COUNTED]
            _COUNTER.pack_into(shared, _FLAG + number * _COUNTER.size, *counted)
            if os.getppid() != self._parent:
                os._exit(1)  # the first process was killed; the next run goes on
            if shared[0]:
                raise _Ended

        walker = Walker(*self._walk, self._events.add, step, devices_closed=close_devices())
        error: object = None
        try:
            while work_item := os.read(work_items, _WORK_ITEM.size):
                (first,) = _WORK_ITEM.unpack(work_item)
                for directory in self._pending[first::_MOST_WORK_ITEMS]:
                    walker.walk(directory)
            self._events.flush()
        except _Ended:
            self._events.flush()
        except JournalFailed as failed:
            error = [failed.message, failed.hint]
        except Exception as bug:
            error = f"{type(bug).__name__}: {bug}"
        walker.close()
        return {"counts": asdict(walker.counts), "error": error}
