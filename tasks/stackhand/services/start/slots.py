"""A limit on how much begins at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class TimedSemaphore:
    """Lets a number of bodies run at once.

    Only the first `costly` seconds of a body count: one that takes longer is only waiting, so it gives its slot to the
    next and goes on.
    """

    def __init__(self, number: int, costly: float) -> None:
        self._free = threading.Semaphore(number)
        self._costly = costly

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot, then run the body."""
        self._free.acquire()
        released = threading.Lock()

        def release() -> None:
            if released.acquire(blocking=False):
                self._free.release()

        timer = threading.Timer(self._costly, release)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            release()
