"""How the program ends."""

from __future__ import annotations

import atexit
import os
import threading

import pytest

from stackhand.cli import program


class Ending:
    """A program that ends with a code."""

    def __init__(self, code: int) -> None:
        self.code = code

    def run(self) -> None:
        raise SystemExit(self.code)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    steps: list[object] = []
    monkeypatch.setattr(threading, "_shutdown", lambda: steps.append("threads that are no daemons"))
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: steps.append("what was registered for the end"))
    monkeypatch.setattr(os, "_exit", steps.append)
    return steps


def test_an_interrupted_run_does_not_stop_its_daemon_threads(steps: list[object]) -> None:
    with pytest.raises(SystemExit):  # os._exit, which would not return, does here
        program._run(Ending(130))  # type: ignore[arg-type]
    assert steps == ["threads that are no daemons", "what was registered for the end", 130]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_any_other_ends_as_python_does(steps: list[object], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        program._run(Ending(code))  # type: ignore[arg-type]
    assert ended.value.code == code
    assert steps == []


def test_a_second_interrupt_ends_it_at_once(steps: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading, "_shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):  # os._exit, which would not return, does here
        program._run(Ending(130))  # type: ignore[arg-type]
    assert steps == [130]
