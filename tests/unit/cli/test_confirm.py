"""The one question."""

from __future__ import annotations

import io
import sys

import pytest

from stackhand.cli.confirm import agreed
from stackhand.errors import ApprovalNeeded
from stackhand.output.console import Console
from stackhand.output.redact import Redactor


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def console(stderr: io.StringIO) -> Console:
    return Console(Redactor(), stdout=io.StringIO(), stderr=stderr, environ={})


@pytest.mark.parametrize(
    ("answer", "yes"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yeah\n", False)]
)
def test_the_answer(monkeypatch: pytest.MonkeyPatch, answer: str, yes: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    stderr = Terminal()
    assert agreed(console(stderr), "remove it?", yes=False) is yes
    assert stderr.getvalue() == "remove it? [y/N] "


def test_what_is_asked_is_safe_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    stderr = Terminal()
    asking = console(stderr)
    asking.redactor.add(["hunter22"])
    assert agreed(asking, "remove a\x1b[2Jb of hunter22?", yes=False)
    assert stderr.getvalue() == "remove a\\x1b[2Jb of ***? [y/N] "


def test_said_beforehand_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    stderr = io.StringIO()
    assert agreed(console(stderr), "remove it?", yes=True)
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(("stdin", "stderr"), [(io.StringIO("y\n"), Terminal()), (Terminal("y\n"), io.StringIO())])
def test_without_a_terminal_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, stderr: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(ApprovalNeeded, match="root is needed, and there is nobody to ask") as caught:
        agreed(console(stderr), "go on?", yes=False, why="root is needed")
    assert caught.value.exit_code == 4
    assert "--yes" in (caught.value.hint or "")
