"""Time, waiting and threads behind one seam, so that a test can let an hour pass in a millisecond.

What waits for something else than the answer of a program or of the engine waits here, with a condition.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """Seconds that pass on this machine. The simulated engine of `tests/sim` has another.

    It has no time of day: that is the engine's (`Engine.now`), for this machine's clock may be ahead or behind.
    """

    def monotonic(self) -> float:
        """Return seconds that only ever grow, from no particular beginning."""
        return time.monotonic()

    def wait_for(
        self, condition: threading.Condition, happened: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """Wait until something has happened, for `seconds` at most; return whether it has.

        The caller holds the condition's lock, which is free while this waits. `happened` only reads: it is called
        after each notification of the condition.
        """
        return condition.wait_for(happened, seconds)

    def start_thread(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a thread of its own.

        It is a daemon: an interrupted run must be able to leave while a request to the engine is still open.
        """
        threading.Thread(target=work, name=name, daemon=True).start()


SYSTEM = Clock()
