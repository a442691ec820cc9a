"""A limit on how many probes begin at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# Beginning a probe is what costs; one that takes longer than this is only waiting.
_COSTLY = 0.5


class Slots:
    """Lets a number of bodies begin at once. One that takes long gives its slot to the next, and goes on."""

    def __init__(self, number: int) -> None:
        self._free = threading.Semaphore(number)

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot, then run the body."""
        self._free.acquire()
        released = threading.Lock()

        def release() -> None:
            if released.acquire(blocking=False):
                self._free.release()

        timer = threading.Timer(_COSTLY, release)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            release()
