"""The display of work on several things at once."""

from __future__ import annotations

import io
import threading
import time

import pytest

from stackhand.output import live
from stackhand.output.console import Console
from stackhand.output.live import Live
from stackhand.output.redact import Redactor


class Stream(io.StringIO):
    """Something to write to, with or without a terminal behind it."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def display(stream: Stream, *secrets: str, **environ: str) -> Live:
    redactor = Redactor()
    redactor.add(secrets)
    return Live(Console(redactor, stdout=Stream(), stderr=stream, environ=environ))


def test_in_a_pipe_each_change_is_a_line() -> None:
    stream = Stream()
    with display(stream) as shown:
        shown.update("db", "wait", "starting")
        shown.update("api", "wait", "creating")
        shown.update("db", "ok", "healthy after 1.0 s")
    assert stream.getvalue().splitlines() == ["... db: starting", "... api: creating", "ok db: healthy after 1.0 s"]


def test_details_in_a_pipe_are_few() -> None:
    stream = Stream()
    with display(stream) as shown:
        for number in range(100):
            shown.update("db", "wait", f"step {number}", detail=True)
    assert 1 <= len(stream.getvalue().splitlines()) <= 2


def test_long_work_in_a_pipe_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_HEARTBEAT", 0.0)
    stream = Stream()
    with display(stream) as shown:
        shown.update("db", "wait", "starting")
        shown.update("api", "ok", "running")
        deadline = time.monotonic() + 30
        while "still waiting for db" not in stream.getvalue():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    assert "api (" not in stream.getvalue()


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}])
def test_on_a_terminal_it_is_drawn_and_gone_at_the_end(environ: dict[str, str]) -> None:
    stream = Stream(terminal=True)
    with display(stream, TERM="xterm", **environ) as shown:
        shown.update("d[b]", "wait", "[red]starting")
        deadline = time.monotonic() + 30
        while "d[b]" not in stream.getvalue():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    written = stream.getvalue()
    assert "[red]starting" in written
    assert ("\x1b[36m" in written) is not bool(environ)


def test_shared_by_several_it_shows_until_the_last_is_done() -> None:
    stream = Stream()
    shown = display(stream)
    with shown:
        with shown:
            shown.update("a", "wait", "one")
        shown.update("a", "wait", "two")
    assert len(stream.getvalue().splitlines()) == 2
    with shown:
        shown.update("a", "ok", "three")
    assert len(stream.getvalue().splitlines()) == 3


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(("status", "detail"), [("fail", False), ("wait", True)])
def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, terminal: bool, status: str, detail: bool) -> None:
    """Rows of the table, lines, and the line that says what is being waited for."""
    monkeypatch.setattr(live, "_HEARTBEAT", 0.0)
    stream = Stream(terminal)
    with display(stream, "hunter22", TERM="xterm") as shown:
        shown.update("db", status, "it said hunter22 and postgres://app:swordfish@db/shop", detail=detail)
        deadline = time.monotonic() + 30
        while stream.getvalue().count("it said *** and postgres://app:***@db/shop") < (2 if detail else 1):
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    assert "hunter22" not in stream.getvalue()
    assert "swordfish" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_from_elsewhere_drives_the_terminal(terminal: bool) -> None:
    stream = Stream(terminal)
    with display(stream, TERM="xterm", NO_COLOR="1") as shown:
        shown.update("d\x1b[31mb", "wait", "said \x1b]0;owned\x07\r\x9b2J\u202e and\nmore")
        deadline = time.monotonic() + 30
        while "\\u202e and more" not in stream.getvalue():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    for sequence in ("\x1b[31m", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert sequence not in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_public_names_are_not_masked(terminal: bool) -> None:
    stream = Stream(terminal)
    shown = display(stream, "postgres", TERM="xterm")
    shown._console.redactor.add_public(["postgres"])
    with shown:
        shown.update("postgres", "ok", "postgres is healthy")
    assert "***" not in stream.getvalue()
