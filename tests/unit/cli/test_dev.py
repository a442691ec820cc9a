"""The task `test`: which checks run, and what its exit code says."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from groups import BUDGETS
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit
from support import CHECKOUT

from stackhand.cli import dev as suite
from stackhand.context import Stack
from stackhand.engine.host.programs import Completed, Programs
from stackhand.errors import CommandFailed


class FakeCommands(Programs):
    def __init__(self, failing: str = "", code: int = 1) -> None:
        super().__init__()
        self.failing = failing
        self.code = code
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], *, on_line: Any = None, **_: Any) -> Completed:
        line = " ".join([Path(argv[0]).name, *argv[1:]])
        self.ran.append(line)
        on_line(f"ran {line}")
        if self.failing and self.failing in line:
            raise CommandFailed(argv, self.code, "")
        return Completed(tuple(argv), 0, "", "")


def run(monkeypatch: pytest.MonkeyPatch, commands: Programs, *, dry: bool = False, **flags: Any) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    context = Context(Config(overrides={"run": {"dry": dry}}))
    monkeypatch.setitem(Stack.of(context).__dict__, "commands", commands)
    suite.test(context, **flags)
    return out.getvalue(), err.getvalue()


def test_all_checks_then_all_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    out, _ = run(monkeypatch, commands)
    tools = [line.split()[0].rstrip("0123456789.") for line in commands.ran]
    assert tools == ["ruff", "ruff", "python", "python", "lint-imports", "python"]
    folders = [f"tests/{name}" for name in suite.GROUPS if (CHECKOUT / "tests" / name).is_dir()]
    words = ["-n", "auto", "--dist", "loadgroup", "--doctest-modules", "tasks/stackhand", *folders]
    assert commands.ran[-1].endswith(f"-m pytest {' '.join(words)}")
    # pytest's own closing line is the last one.
    assert out.splitlines()[-1] == f"ran {commands.ran[-1]}"


@pytest.mark.parametrize("flags", [{"unit": True}, {"group": ["unit"]}, {"group": ["unit"], "unit": True}])
def test_only_what_needs_nothing(monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]) -> None:
    commands = FakeCommands()
    run(monkeypatch, commands, **flags)
    assert commands.ran[-1].endswith("-m pytest --doctest-modules tasks/stackhand tests/unit")


def test_groups_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    run(monkeypatch, commands, group=["crash", "engine"])
    assert commands.ran[-1].endswith("-m pytest -n auto --dist loadgroup tests/engine tests/crash")


def test_a_group_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    with pytest.raises(Exit) as caught:
        run(monkeypatch, commands, group=["unti"])
    assert caught.value.code == 2
    assert commands.ran == []


def test_todays_engine_runs_what_an_engine_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    run(monkeypatch, commands, engine="current")
    assert commands.ran[-1].startswith("current.sh ")
    assert commands.ran[-1].endswith("-m pytest -n auto --dist loadgroup tests/engine tests/crash")
    run(monkeypatch, commands, engine="current", group=["reference"], mechanisms=True)
    assert commands.ran[-1].endswith("-m pytest -n auto --dist loadgroup tests/reference -m mechanism")


def test_an_engine_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    with pytest.raises(Exit) as caught:
        run(monkeypatch, commands, engine="curent")
    assert caught.value.code == 2
    assert commands.ran == []


def test_todays_engine_that_can_not_be_had_is_a_missing_prerequisite(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exit) as caught:
        run(monkeypatch, FakeCommands("current.sh", code=69), engine="current")
    assert caught.value.code == 3
    assert isinstance(sys.stderr, io.StringIO)
    assert "its tests did not run" in sys.stderr.getvalue()


def test_every_group_has_a_budget() -> None:
    assert tuple(BUDGETS) == suite.GROUPS


@pytest.mark.parametrize("failing", ["ruff check", "ruff format", "mypy", "tests/mypy.ini", "lint-imports", "pytest"])
def test_any_failure_is_exit_code_1_and_hides_no_other(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    commands = FakeCommands(failing)
    with pytest.raises(Exit) as caught:
        run(monkeypatch, commands)
    assert caught.value.code == 1
    assert len(commands.ran) == 6


def test_dry_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = FakeCommands()
    out, _ = run(monkeypatch, commands, dry=True)
    assert commands.ran == []
    assert len(out.splitlines()) == 6


def test_an_installed_package_has_no_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "__file__", str(tmp_path / "site-packages/stackhand/cli/suite.py"))
    with pytest.raises(Exit) as caught:
        run(monkeypatch, FakeCommands())
    assert caught.value.code == 2
