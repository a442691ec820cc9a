"""Makes a polite request to end (SIGTERM, SIGHUP) the same as Ctrl-C, and lets none of them strike inside a `with`."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from types import FrameType

LONGEST_DEFERRAL = 1.0
"""Seconds after which an interrupt is raised wherever the program is: it may wait there for ever."""

_AGAIN_AFTER = 0.005
# The steps by which a lock, or whatever else a `with` holds, is taken and given back. Both are a few instructions long.
_TAKES_OR_GIVES_BACK = frozenset({"__enter__", "__exit__", "_acquire_restore", "_release_save"})


def interrupt_on_termination() -> None:
    """Have SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, unless somebody else handles them.

    Python raises it between any two steps: also when `threading.Condition.__enter__` has taken its lock and the `with`
    has not begun. Nobody would give that lock back; urllib3's pool of connections, a `queue.Queue`, would be locked for
    ever, and the process never end. So the interrupt waits until such a step is over.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    for name, handler in usual.items():
        if signal.getsignal(name) is handler:
            signal.signal(name, _Interrupt())


class _Interrupt:
    """The handler of one signal. It uses no lock itself: it runs between any two steps of the main thread."""

    def __init__(self) -> None:
        self._since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        since = now if self._since is None else self._since
        if frame and frame.f_code.co_name in _TAKES_OR_GIVES_BACK and now - since < LONGEST_DEFERRAL:
            self._since = since
            _thread.start_new_thread(_send_again, (number,))
            return
        self._since = None
        raise KeyboardInterrupt


def _send_again(number: int) -> None:
    time.sleep(_AGAIN_AFTER)
    # To the thread itself: a call of the system in which it waits returns.
    signal.pthread_kill(threading.main_thread().ident or 0, number)
