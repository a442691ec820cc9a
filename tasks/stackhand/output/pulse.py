"""A sign of life from another program's long output."""

from __future__ import annotations

import time

from stackhand.output.console import Console

_LINE_EVERY = 2.0


class ProgressTicker:
    """Shows a line of a long output now and then: that the work goes on, and how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = time.monotonic()

    def __call__(self, line: str) -> None:
        """Take one line of output; show it when the last one was shown a while ago."""
        if line.strip() and time.monotonic() - self._shown >= _LINE_EVERY:
            self._shown = time.monotonic()
            self._console.note(f"  {line.strip()[:100]}")
