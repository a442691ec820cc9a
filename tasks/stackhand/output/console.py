"""Writes results to stdout, progress and errors to stderr, with colour only if the stream can show it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from stackhand.errors import StackError
from stackhand.output.redact import Redactor, message_of
from stackhand.output.visible import visible

_SYMBOLS = {"ok": "✓", "fail": "✗", "warn": "!", "skip": "-", "info": "·", "wait": "…"}
_ASCII = {"ok": "ok", "fail": "FAIL", "warn": "WARN", "skip": "skip", "info": "-", "wait": "..."}
_COLOURS = {
    "ok": "GREEN",
    "fail": "RED",
    "warn": "YELLOW",
    "skip": "LIGHTBLACK_EX",
    "info": "CYAN",
    "wait": "CYAN",
}


def reports_json() -> bool:
    """Return whether the run reports in JSON.

    A main task's arguments reach neither its pre-tasks nor what goes wrong before any task, so the command line is
    asked: here, and nowhere else.
    """
    return "--json" in sys.argv[1:]


class Console:
    """Writes the output of one run, with secrets masked. Many threads may use it; lines stay whole."""

    def __init__(
        self,
        redactor: Redactor,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._environ = os.environ if environ is None else environ
        self._lock = threading.RLock()
        # Marks our own colours until they are written. A text from elsewhere can't guess it.
        self._own = f"<{os.urandom(8).hex()}>"
        self.redactor = redactor
        self.document_written = False

    @property
    def stdout(self) -> TextIO:
        """The stream for results. Read at each use, because Invoke and tests replace `sys.stdout`."""
        return self._stdout or sys.stdout

    @property
    def stderr(self) -> TextIO:
        """The stream for progress and errors."""
        return self._stderr or sys.stderr

    def is_terminal(self, stream: TextIO) -> bool:
        """Return whether colour, symbols and redrawing make sense on this stream."""
        return stream.isatty() and self._environ.get("TERM") != "dumb"

    def has_colour(self, stream: TextIO) -> bool:
        """Return whether to colour text on this stream. NO_COLOR counts unless it is empty: https://no-color.org."""
        return self.is_terminal(stream) and not self._environ.get("NO_COLOR")

    def symbol(self, status: str, stream: TextIO) -> str:
        """Return the sign for a status: a symbol if the stream can show it, else a word."""
        sign = (_SYMBOLS if self.has_symbols(stream) else _ASCII)[status]
        return self.paint(sign, status, stream)

    def has_symbols(self, stream: TextIO) -> bool:
        """Return whether the stream is a terminal that can show more than ASCII."""
        return self.is_terminal(stream) and "utf" in (getattr(stream, "encoding", None) or "").lower()

    def paint(self, text: str, status: str, stream: TextIO) -> str:
        """Return `text` in the colour of a status if the stream has colours, to be written by this console."""
        if not self.has_colour(stream):
            return text
        import colorama

        colorama.just_fix_windows_console()
        colour, reset = getattr(colorama.Fore, _COLOURS[status]), colorama.Style.RESET_ALL
        return f"{self._mark(colour)}{text}{self._mark(reset)}"

    def _mark(self, sequence: str) -> str:
        return sequence.replace("\x1b", self._own)

    def safe(self, text: str) -> str:
        """Return `text` as it may be written to a terminal: secrets masked, control characters shown, our colours."""
        return visible(self.redactor.own_text(text)).replace(self._own, "\x1b")

    def result(self, text: str) -> None:
        """Write a result to stdout."""
        self._write(self.stdout, text)

    def progress(self, status: str, text: str) -> None:
        """Write one line of progress to stderr."""
        self._write(self.stderr, f"{self.symbol(status, self.stderr)} {text}")

    def note(self, text: str) -> None:
        """Write text to stderr without a sign before it."""
        self._write(self.stderr, text)

    def error(self, error: StackError) -> None:
        """Write an error to stderr: its message, and its hint if it has one."""
        message = message_of(error, self.redactor.text)
        lines = [f"{self.paint('error:', 'fail', self.stderr)} {_one_line(message)}"]
        if error.hint:
            lines.append(f"{self.paint('hint:', 'info', self.stderr)} {_one_line(error.hint)}")
        self._write(self.stderr, "\n".join(lines))

    def fail(self, error: StackError, *, json: bool) -> None:
        """Tell an error to the person, and to the program that reads the JSON of a run that has no document yet."""
        if json and not self.document_written:
            self.document(error.to_json(message_of(error, self.redactor.text)))
        self.error(error)

    def document(self, document: Any) -> None:
        """Write a JSON document to stdout. Only a task that reports live writes several, one a line."""
        self.document_written = True
        with self._lock:
            self._print(self.stdout, self._json(document))

    def document_of_many(self, document: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
        """Write one JSON document whose `lists` are too long for the memory."""
        self.document_written = True
        with self._lock:
            stream = self.stdout
            try:
                stream.write(self._json(document)[:-1])
                for name, items in lists.items():
                    stream.write(f", {json.dumps(name)}: [")
                    for number, item in enumerate(items):
                        stream.write((", " if number else "") + self._json(item))
                    stream.write("]")
            except BrokenPipeError:
                self._abandon(stream)
            self._print(stream, "}")

    def question(self, text: str) -> None:
        """Write a question to stderr, as stdout is for results; the answer comes in the same line."""
        with self._lock:
            self.stderr.write(f"{self.safe(text)} ")
            self.stderr.flush()

    def _json(self, document: Any) -> str:
        # `dumps` writes ASCII, which suits every encoding of the stream, and escapes all control characters but one.
        return json.dumps(self.redactor.document(document)).replace("\x7f", "\\u007f")

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            self._print(stream, self.safe(text))

    @staticmethod
    def _abandon(stream: TextIO) -> None:
        """Discard further output to `stream`: its reader has gone (`| head -3`), which is not a failure of the task."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _print(self, stream: TextIO, text: str) -> None:
        try:
            print(text, file=stream, flush=True)
        except BrokenPipeError:
            self._abandon(stream)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
