"""Colour and symbols only where they can be shown; results and progress on their own streams; never torn."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest

from stackhand.errors import StackError
from stackhand.output.console import Console
from stackhand.output.redact import Redactor
from stackhand.output.table import table


class Stream(io.TextIOWrapper):
    """A stream with an encoding, and a terminal behind it or not."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode(self.encoding)


def console(stream: Stream, redactor: Redactor | None = None, **environ: str) -> Console:
    return Console(redactor or Redactor(), stdout=stream, stderr=stream, environ=environ)


GREEN, RESET = "\x1b[32m", "\x1b[0m"


@pytest.mark.parametrize(
    ("stream", "environ", "written"),
    [
        (Stream(), {}, "ok db"),
        (Stream(terminal=True), {}, f"{GREEN}✓{RESET} db"),
        (Stream(terminal=True), {"NO_COLOR": "1"}, "✓ db"),
        (Stream(terminal=True), {"NO_COLOR": ""}, f"{GREEN}✓{RESET} db"),
        (Stream(terminal=True), {"TERM": "dumb"}, "ok db"),
        (Stream("ascii", terminal=True), {}, f"{GREEN}ok{RESET} db"),
        (Stream("latin-1", terminal=True), {"NO_COLOR": "1"}, "ok db"),
        (Stream("ascii"), {}, "ok db"),
    ],
)
def test_signs(stream: Stream, environ: dict[str, str], written: str) -> None:
    console(stream, **environ).progress("ok", "db")
    assert stream.text() == f"{written}\n"


@pytest.mark.parametrize("status", ["ok", "fail", "warn", "skip", "info", "wait"])
def test_every_status_has_a_word_of_plain_ascii(status: str) -> None:
    stream = Stream("ascii")
    console(stream).progress(status, "db")
    assert stream.text().strip()


def test_what_the_encoding_lacks_is_no_crash() -> None:
    stream = Stream("ascii")
    console(stream).result("gröÃe → ✓")
    assert stream.text() == "gr??e ? ?\n"


def test_a_document_can_be_read_whatever_the_encoding() -> None:
    stream = Stream("ascii")
    console(stream).document({"text": "größe ✓"})
    assert json.loads(stream.text()) == {"text": "größe ✓"}


def test_results_and_progress_go_their_own_ways() -> None:
    out, err = Stream(), Stream()
    both = Console(Redactor(), stdout=out, stderr=err, environ={})
    both.result("result")
    both.document({"a": 1})
    both.progress("info", "progress")
    both.note("note")
    both.error(StackError("broken", "mend it"))
    assert out.text() == 'result\n{"a": 1}\n'
    assert err.text() == "- progress\nnote\nerror: broken\nhint: mend it\n"


@pytest.mark.parametrize(
    ("error", "written"),
    [
        (StackError("one"), "error: one\n"),
        (StackError("one", "two"), "error: one\nhint: two\n"),
        (StackError("one\n  two\r\nthree", "a\nb"), "error: one two three\nhint: a b\n"),
    ],
)
def test_an_error_is_one_line_and_a_hint(error: StackError, written: str) -> None:
    stream = Stream()
    console(stream).error(error)
    assert stream.text() == written


@pytest.mark.parametrize("way", ["result", "note", "document", "error", "progress"])
def test_secrets_are_masked_on_every_way_out(way: str) -> None:
    redactor = Redactor()
    redactor.add(["hunter22"])
    stream = Stream()
    target = console(stream, redactor)
    what: dict[str, tuple[Any, ...]] = {
        "error": (StackError("it is hunter22", "use hunter22"),),
        "document": ({"a": ["hunter22"]},),
        "progress": ("ok", "hunter22"),
    }
    getattr(target, way)(*what.get(way, ("hunter22",)))
    assert "hunter22" not in stream.text()
    assert "***" in stream.text()


def test_lines_of_many_threads_are_whole() -> None:
    stream = Stream()
    target = console(stream)
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait()
        for _ in range(50):
            target.result(f"<{str(number) * 40}>")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.text().splitlines()
    assert len(lines) == 400
    assert set(lines) == {f"<{str(number) * 40}>" for number in range(8)}


@pytest.mark.parametrize(("terminal", "environ"), [(True, {"TERM": "dumb"}), (False, {}), (True, {"CI": "1"})])
def test_a_pipe_is_no_terminal(terminal: bool, environ: dict[str, str]) -> None:
    stream = Stream(terminal=terminal)
    assert console(stream, **environ).is_terminal(stream) is (terminal and "TERM" not in environ)


# Clears the screen, sets the title, goes back over the line, and reorders text; in one byte or several.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\x08\x7f\x9b31m\u202e\u2066\x00\x0b"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\r\x08\x7f\x9b31m\u202e\u2066\x00\x0b"


@pytest.mark.parametrize("way", ["result", "note", "error", "progress", "question"])
@pytest.mark.parametrize("terminal", [False, True])
def test_control_characters_are_shown(way: str, terminal: bool) -> None:
    stream = Stream(terminal=terminal)
    target = console(stream, TERM="xterm", NO_COLOR="1")
    what: dict[str, tuple[Any, ...]] = {
        "error": (StackError(f"it said {HOSTILE}.", f"use {HOSTILE}."),),
        "progress": ("ok", f"\tit said {HOSTILE}.\n"),
    }
    getattr(target, way)(*what.get(way, (f"\tit said {HOSTILE}.\n",)))
    # An error is one line, whose white space is joined.
    shown = SHOWN if way != "error" else SHOWN.replace(r"\r", " ").replace(r"\x0b", " ")
    assert f"it said {shown}." in stream.text()
    assert all(each.isprintable() or each in "\t\n" for each in stream.text())


def test_our_colours_stay_and_those_from_elsewhere_are_shown() -> None:
    stream = Stream(terminal=True)
    target = console(stream, TERM="xterm")
    target.result(f"{target.symbol('ok', stream)} it said \x1b[32mgreen\x1b[0m")
    assert stream.text() == "\x1b[32m✓\x1b[0m it said \\x1b[32mgreen\\x1b[0m\n"


def test_json_escapes_control_characters() -> None:
    stream = Stream()
    console(stream).document({"text": HOSTILE})
    assert stream.text().rstrip("\n").isprintable()
    assert json.loads(stream.text()) == {"text": HOSTILE}


def test_tables_escape_before_they_measure() -> None:
    stream = Stream()
    lines = table(console(stream), ["a", "b"], [["\x1b[31mx", "1"], ["y", "2"]]).splitlines()
    assert [line.rindex(digit) for line, digit in zip(lines[1:], "12", strict=True)] == [lines[0].index("b")] * 2
