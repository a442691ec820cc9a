"""The same again through sudo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.host import sudo


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/opt/x/stackhand/__main__.py", [sys.executable, "-m", "stackhand", "engine.install"]),
        ("/opt/x/bin/inv", ["/opt/x/bin/inv", "engine.install"]),
    ],
)
def test_what_is_typed_is_how_we_were_called(monkeypatch: pytest.MonkeyPatch, program: str, typed: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", [program, "engine.install", "test"])
    assert sudo.command_line() == typed


@pytest.mark.parametrize(("may_prompt", "start"), [(True, ["sudo", "env"]), (False, ["sudo", "-n", "env"])])
@pytest.mark.parametrize("code", [0, 1])
def test_sudo_never_asks_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, may_prompt: bool, start: list[str], code: int
) -> None:
    ran: list[list[str]] = []

    def call(argv: list[str], **_: Any) -> int:
        ran.append(argv)
        return code

    monkeypatch.setattr(subprocess, "call", call)
    assert sudo.rerun_with_sudo({}, may_prompt=may_prompt) is (code == 0)
    assert ran[0][: len(start)] == start
    folder = Path(ran[0][len(start)].removeprefix("PYTHONPATH="))
    assert (folder / "stackhand/__init__.py").exists()
