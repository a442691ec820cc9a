"""How many starts go at once, and which one goes next."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
from collections.abc import Iterator

from stackhand.graph.clock import SYSTEM, Clock

_FEW = 3
_CORES = os.cpu_count() or 2


def concurrency_limit(load: int, *, contended: bool = False) -> int:
    """Return how many starts to have under way when so many are wanted.

    Side by side, starts slow each other down: three at once take as long as three in a row, and all three end late.
    So where there are few, the most urgent one goes alone. Where there are many, the total counts, and that is a
    quarter shorter with several at once; less so where the engine is `contended` by its own frequent probes.

    >>> concurrency_limit(2), concurrency_limit(40) > concurrency_limit(40, contended=True) > 1
    (1, True)
    """
    if load <= _FEW:
        return 1
    return max(2, _CORES) if contended else 4 * max(2, _CORES)


class StartLimiter:
    """Lets bodies run, the most urgent first, as many at once as `concurrency_limit` says."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._running = 0

    @property
    def load(self) -> int:
        """How many bodies run or wait."""
        return self._running + len(self._waiting)

    @contextlib.contextmanager
    def slot(self, urgency: int, *, contended: bool = False) -> Iterator[None]:
        """Wait for this body's turn, then run it. The greater the urgency, the sooner."""
        with self._condition:
            mine = (-urgency, next(self._numbers))
            heapq.heappush(self._waiting, mine)
            self._condition.notify_all()  # one more that waits may be what lets several go at once
            self._clock.wait_for(
                self._condition,
                lambda: self._waiting[0] == mine and self._running < concurrency_limit(self.load, contended=contended),
            )
            heapq.heappop(self._waiting)
            self._running += 1
            self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()


class Turn:
    """A lock whose waiting is the clock's: lets one body run at a time."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._taken = False

    def __enter__(self) -> None:
        with self._condition:
            self._clock.wait_for(self._condition, lambda: not self._taken)
            self._taken = True

    def __exit__(self, *error: object) -> None:
        with self._condition:
            self._taken = False
            self._condition.notify()
