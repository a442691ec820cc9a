"""Slots limit how much work that costs CPU time is begun at once: running programs in containers."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from stackhand.graph.clock import SYSTEM, Clock

# A program that is run in a container costs some fifty milliseconds of a core before it begins: more of them at once
# than there are cores get slower (bench/README.md has the figures).
EXECS_AT_ONCE = os.cpu_count() or 2
# Seconds. Beginning one is what costs; one that takes longer than this is only waiting.
EXEC_COSTS = 0.5


class TimedSemaphore:
    """Lets a number of bodies run at once.

    Only the first `costly` seconds of a body count: one that takes longer is only waiting, so it gives its slot to the
    next and goes on.
    """

    def __init__(self, number: int, costly: float, clock: Clock = SYSTEM) -> None:
        self._number = number
        self._costly = costly
        self._clock = clock
        self._condition = threading.Condition()
        self._ends: list[float] = []  # until when each body that runs holds its slot

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot, then run the body."""
        with self._condition:
            while held := self._held():
                self._clock.wait_for(self._condition, lambda: not self._held(), held)
            end = self._clock.monotonic() + self._costly
            self._ends.append(end)
        try:
            yield
        finally:
            with self._condition:
                self._ends.remove(end)
                self._condition.notify()

    def _held(self) -> float:
        """Return for how many seconds from now all slots are held, 0 where one is free."""
        now = self._clock.monotonic()
        held = [end - now for end in self._ends if end > now]
        return min(held) if len(held) >= self._number else 0.0
