"""Makes Ctrl-C wait until the entry at hand is done, so that no entry is left half way between two owners."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Defer Ctrl-C (SIGINT), SIGTERM and SIGHUP while the body runs.

    Yields a function to be called between entries: it raises KeyboardInterrupt if a signal has come. A second signal
    does not wait for it. Python delivers signals to the main thread only, so in another thread nothing is deferred.
    """
    came = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    def raise_if_any() -> None:
        if came:
            raise KeyboardInterrupt

    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # A signal that is ignored, or ends the process at once, keeps doing so.
                if callable(handler := signal.getsignal(each)):
                    before[each] = handler
                    signal.signal(each, remember)
        yield raise_if_any
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
