"""Ctrl-C waits until what was begun is done, so that no entry is left half way between two owners."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C and its like back while the body runs; what it yields raises KeyboardInterrupt when one came.

    A second one does not wait. Off the main thread none arrives, so nothing is to be done.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    def look() -> None:
        if came:
            raise KeyboardInterrupt

    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # One that is ignored, or ends the process at once, stays so.
                if callable(handler := signal.getsignal(each)):
                    before[each] = handler
                    signal.signal(each, note)
        yield look
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
