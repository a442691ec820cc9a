"""The services' log lines, as Compose merges them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stackhand.engine.compose.cli import Compose


@dataclass(frozen=True)
class LogLine:
    """One line: the container it came from (Compose's name without the project), and its text."""

    container: str
    text: str


def read(
    compose: Compose,
    names: Sequence[str],
    tail: str,
    since: str | None,
    follow: bool,
    mask: Callable[[str], str],
    show: Callable[[LogLine], None],
) -> None:
    """Hand over the log lines of these services, `tail` of each; with `follow`, until interrupted.

    `mask` takes the secrets out of what a service has written.
    """

    def on_line(text: str) -> None:
        line = parse(text)
        show(replace(line, text=mask(line.text)))

    words = ["--no-color", "--tail", tail]
    if since:
        words += ["--since", since]
    if follow:
        words.append("--follow")
    compose.logs([*words, *names], on_line)


def parse(line: str) -> LogLine:
    """Return a line of `docker compose logs`: `api-1  | text`.

    >>> parse("api-1  | ready | steady")
    LogLine(container='api-1', text='ready | steady')
    """
    # Compose clears the line before each container's name, also where there is no terminal.
    container, bar, text = line.replace("\x1b[2K", "").partition("|")
    return LogLine(container.strip(), text.removeprefix(" ")) if bar else LogLine("", line)
