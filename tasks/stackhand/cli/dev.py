"""The task `test`: all that has to hold for this checkout, in one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from invoke.context import Context
from invoke.exceptions import Exit

from stackhand.cli.task import choice, task
from stackhand.context import Stack
from stackhand.errors import CommandFailed, ConfigError, PrerequisiteMissing

_FOLDER = Path(sys.executable).parent
_CHECKS = (
    ("ruff check", [str(_FOLDER / "ruff"), "check", "."]),
    ("ruff format", [str(_FOLDER / "ruff"), "format", "--check", "."]),
    ("mypy", [sys.executable, "-m", "mypy"]),
    ("mypy of the tests", [sys.executable, "-m", "mypy", "--config-file", "tests/mypy.ini"]),
    ("lint-imports", [str(_FOLDER / "lint-imports"), "--no-logo"]),
)
ENGINES = ("distribution", "current")
# Runs a command with today's engine, and says with this exit code that there can't be one here.
_CURRENT, _UNAVAILABLE = "tests/engines/current.sh", 69
# The folders of the tests, in the order in which they run; tests/groups.py says what each may need.
GROUPS = ("unit", "files", "sim", "compose", "engine", "reference", "crash")
# What another engine can change. The images of the reference stack take long to build, so it runs there when asked for.
_CURRENT_GROUPS = {"engine", "crash"}


@task(
    iterable=["group"],
    help={
        "group": f"only the tests of this group: {', '.join(GROUPS)}; may be repeated",
        "unit": "the same as --group unit: only what needs neither an engine nor root",
        "engine": "the engine that the tests use: `distribution` (the default), the one that docker uses here; or "
        "`current`, today's engine beside it, for the groups engine and crash (on Debian, as root)",
        "mechanisms": "only the tests that prove a mechanism, each once, on a real engine",
    },
)
def test(
    c: Context, group: Sequence[str] = (), unit: bool = False, engine: str = "distribution", mechanisms: bool = False
) -> None:
    """Run the linters, the type checker and the tests of this checkout."""
    stack = Stack.of(c)
    checkout = _checkout()
    groups = {choice("group", name, GROUPS) for name in [*group, *(["unit"] if unit else [])]}
    current = choice("engine", engine, ENGINES) == "current"
    pytest = _pytest(checkout, groups or (_CURRENT_GROUPS if current else set(GROUPS)))
    if mechanisms:
        pytest += ["-m", "mechanism"]
    if current:
        pytest = [str(checkout / _CURRENT), *pytest]
    if stack.dry:
        for _, argv in (*_CHECKS, ("pytest", pytest)):
            stack.console.result(f"would run {' '.join(argv)}")
        return
    failed = [name for name, argv in _CHECKS if not _passes(stack, checkout, name, argv)]
    if failed:
        # Told before the tests run: their own closing line stays the last one.
        stack.console.progress("fail", f"{', '.join(failed)} failed")
    colour = ["--color=yes"] if stack.console.has_colour(stack.console.stdout) else []
    if not _passes(stack, checkout, "pytest", [*pytest, *colour]) or failed:
        raise Exit(code=1)


def _pytest(checkout: Path, groups: set[str]) -> list[str]:
    """Return the command that runs the tests of these groups."""
    argv = [sys.executable, "-m", "pytest"]
    if groups != {"unit"}:
        argv += ["-n", "auto", "--dist", "loadgroup"]
    if "unit" in groups:
        # The examples in docstrings are tests, too.
        argv += ["--doctest-modules", "tasks/stackhand"]
    return argv + [f"tests/{name}" for name in GROUPS if name in groups and (checkout / "tests" / name).is_dir()]


def _passes(stack: Stack, checkout: Path, name: str, argv: list[str]) -> bool:
    stack.console.progress("wait", name)
    # What is tested has nothing to do with this run's own project.
    env = {key: value for key, value in stack.environ.items() if not key.startswith(("COMPOSE_", "INVOKE_"))}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(checkout / "tasks")}
    try:
        stack.commands.run(argv, cwd=checkout, env=env, on_line=stack.console.result, merge=True)
    except CommandFailed as error:
        if error.returncode == _UNAVAILABLE:
            raise PrerequisiteMissing(
                "today's engine can't be had here, so its tests did not run",
                "the reason is above; without `--engine current` the tests use the engine that docker uses here",
            ) from error
        if error.returncode == 127:
            stack.console.note(
                f"{error.message}: install the test tools with "
                "`pip install --editable '.[test]' --constraint tests/constraints.txt`"
            )
        return False
    return True


def _checkout() -> Path:
    """Return the folder of this checkout. Raises ConfigError where stackhand is an installed package."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / "tests").is_dir() or not (folder / "pyproject.toml").is_file():
        raise ConfigError(
            "the tests are part of stackhand's repository, and this is an installed package",
            "run `./inv test` in a checkout",
        )
    return folder
