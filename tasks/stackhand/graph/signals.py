"""Makes a polite request to end (SIGTERM, SIGHUP) the same as Ctrl-C, and sees to it that the process ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

LONGEST_END = 5.0
"""Seconds that an interrupted process may take to end, once its main thread has nothing left to do."""


def interrupt_on_termination() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, unless somebody else handles them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, _interrupt)


def end_soon(code: int, within: float = LONGEST_END) -> None:
    """End the process with this exit code when its own end takes longer than `within` seconds.

    Python raises KeyboardInterrupt between any two steps, also where a library has just taken a lock of its own
    (`threading.Condition.__enter__`, thus every `queue.Queue`). Nobody gives that lock back, and what runs at the end
    of the process waits for it for ever: urllib3 empties its connection pools there.
    """

    def end() -> None:
        threading.main_thread().join()
        time.sleep(within)
        os._exit(code)

    threading.Thread(target=end, name="end", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
