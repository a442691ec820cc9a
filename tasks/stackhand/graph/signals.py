"""Makes a polite request to end (SIGTERM, SIGHUP) the same as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def interrupt_on_termination() -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, unless somebody else handles them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
