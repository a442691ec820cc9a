"""Shows that another program with much output makes progress."""

from __future__ import annotations

import time

from stackhand.output.console import Console

_LINE_EVERY = 2.0


class ProgressTicker:
    """Gets every line of a long output, and prints one of them every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print this line, unless the last one was printed less than two seconds ago."""
        if line.strip() and time.monotonic() - self._shown >= _LINE_EVERY:
            self._shown = time.monotonic()
            self._console.note(f"  {self._console.redactor.text(line.strip())[:100]}")
