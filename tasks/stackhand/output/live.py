"""Shows work on several things at once: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stackhand.output.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_REDRAWS_PER_SECOND = 8
# Seconds without a line until a line says what is being waited for.
_HEARTBEAT = 5.0
# Seconds between lines of detail about the same row.
_DETAIL_EVERY = 2.0


@dataclass(frozen=True)
class _Row:
    status: str
    text: str
    since: float
    detail: bool


class Live:
    """Rows by name, each with a status (`ok`, `fail`, `warn`, `skip`, `info`, `wait`) and a text.

    On a terminal, a table shows the rows while the body of the `with` runs. Elsewhere, each change is a line on stderr,
    and after a while without changes a line says what is being waited for. Tasks that run side by side share one
    display; it ends when the last of them leaves the `with`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._lock = threading.RLock()
        self._users = 0
        self._closed = threading.Event()
        self._last_line = time.monotonic()
        self._said: dict[str, float] = {}
        self._rich: Any = None

    def __enter__(self) -> Live:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            closing = self._users == 0
        if closing:
            self._closed.set()
            if self._rich:
                self._rich.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the table off the terminal while the body asks something there."""
        if not self._rich:
            yield
            return
        self._rich.stop()
        try:
            yield
        finally:
            self._rich.start()

    def _open(self) -> None:
        """Start the table on a terminal, else the thread that says what is being waited for."""
        self._closed = threading.Event()
        self._rich = None
        if not self._console.is_terminal(self._console.stderr):
            threading.Thread(target=self._heartbeat, args=(self._closed,), name="heartbeat", daemon=True).start()
            return
        import rich.console
        import rich.live

        target = rich.console.Console(
            file=self._console.stderr,
            no_color=not self._console.has_colour(self._console.stderr),
            highlight=False,
        )
        self._rich = rich.live.Live(
            console=target,
            get_renderable=self._table,
            refresh_per_second=_REDRAWS_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._rich.start()

    def update(self, name: str, status: str, text: str, *, detail: bool = False, quiet: bool = False) -> None:
        """Show a row's new state.

        If rows are lines, a row's `detail` (build output, say) is printed at most once in two seconds, and a `quiet`
        change (nothing has begun yet) is not printed.
        """
        now, text = time.monotonic(), " ".join(text.splitlines())
        with self._lock:
            before = self._rows.get(name)
            since = before.since if before and before.status == status == "wait" else now
            self._rows[name] = _Row(status, text, since, detail)
            if quiet or self._rich or (detail and now - self._said.get(name, 0.0) < _DETAIL_EVERY):
                return
            self._said[name] = self._last_line = now
        self._console.progress(status, f"{name}: {text}")

    def _table(self) -> Table:
        """Return the rows as rich draws them. It writes past the console, so secrets are masked here."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        now = time.monotonic()
        with self._lock:
            rows = list(self._rows.items())
        safe = self._console.safe
        colours = {"ok": "green", "fail": "red", "warn": "yellow", "skip": "bright_black", "wait": "cyan"}
        for name, row in rows:
            sign = {"ok": "✓", "fail": "✗", "warn": "!", "skip": "-", "wait": "⠶"}.get(row.status, "·")
            waited = f"{now - row.since:.0f} s" if row.status == "wait" and now - row.since >= 1 else ""
            colour = colours.get(row.status, "cyan")
            table.add_row(Text(sign, colour), Text(safe(name)), Text(safe(row.text)), waited)
        return table

    def _heartbeat(self, closed: threading.Event) -> None:
        while not closed.wait(1.0):
            now = time.monotonic()
            with self._lock:
                if now - self._last_line < _HEARTBEAT:
                    continue
                waiting = [
                    f"{name} ({now - row.since:.0f} s{f', {row.text}' if row.detail else ''})"
                    for name, row in self._rows.items()
                    if row.status == "wait"
                ]
                self._last_line = now
            if waiting:
                self._console.progress("wait", f"still waiting for {', '.join(waiting)}")
