"""The services' log lines, as Compose merges them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stackhand.engine.compose.cli import Compose
from stackhand.output.redact import MASK, Redactor

# Go's durations: https://pkg.go.dev/time#ParseDuration
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)")


@dataclass(frozen=True)
class LogLine:
    """One line: the container it came from (Compose's name without the project), and its text."""

    container: str
    text: str


def read(
    compose: Compose,
    now: Callable[[], datetime],
    names: Sequence[str],
    tail: str,
    since: str | None,
    follow: bool,
    redactor: Redactor,
    show: Callable[[LogLine], None],
) -> None:
    """Hand over the log lines of these services, `tail` of each, with the secrets in them masked.

    `since` is a moment, or how long ago by the engine's clock, whose time `now` returns. With `follow`, until
    interrupted.
    """
    masked = LineMasker(redactor)

    def on_line(text: str) -> None:
        line = parse(text)
        show(replace(line, text=masked(line)))

    words = ["--no-color", "--tail", tail]
    if since:
        words += ["--since", moment(since, now)]
    if follow:
        words.append("--follow")
    compose.logs([*words, *names], on_line)


class LineMasker:
    """Masks the secrets in log lines as they come, also private keys, which go over several lines of a container."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._in_key: set[str] = set()

    def __call__(self, line: LogLine) -> str:
        """Return the text of the next line."""
        text = line.text
        if line.container in self._in_key:
            inner, end, after = text.partition("-----END")
            if end:
                self._in_key.discard(line.container)
                return f"{MASK if inner else ''}{end}{self._redactor.text(after)}"
            # A line with a space is no longer one of a key.
            if " " not in text.strip():
                return MASK
            self._in_key.discard(line.container)
        if re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*$", text):
            self._in_key.add(line.container)
        return self._redactor.text(text)


def moment(since: str, now: Callable[[], datetime]) -> str:
    """Return the moment for `--since`. One that is relative (`10m`, `1h30m`) Compose would count from this machine's
    time, which need not be the engine's; any other is returned as it is.

    >>> from datetime import timezone
    >>> moment("1h30m", lambda: datetime(2026, 11, 23, 12, tzinfo=timezone.utc))
    '2026-11-23T10:30:00+00:00'
    >>> moment("2026-01-31T12:00:00", datetime.now)
    '2026-01-31T12:00:00'
    """
    parts = re.findall(_PART, since)
    if not parts or "".join(number + unit for number, unit in parts) != since:
        return since
    ago = timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    return (now() - ago).isoformat()


def parse(line: str) -> LogLine:
    """Return a line of `docker compose logs`: `api-1  | text`.

    >>> parse("api-1  | ready | steady")
    LogLine(container='api-1', text='ready | steady')
    """
    # Compose clears the line before each container's name, also where there is no terminal.
    container, bar, text = line.replace("\x1b[2K", "").partition("|")
    # A terminal in a container ends lines with a carriage return, too.
    return LogLine(container.strip(), text.removeprefix(" ").removesuffix("\r")) if bar else LogLine("", line)
