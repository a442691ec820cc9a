"""Scripts of probes and tests: shells and linters take all of them, and the Pythons of containers take theirs."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import project, service
from shells import Shell, context, running
from support import CHECKOUT

import stackhand
from stackhand.checks import scripts

PACKAGE = Path(stackhand.__file__).parent
SHELL = sorted([*PACKAGE.rglob("*.sh"), *(CHECKOUT / "tests/engines").glob("*.sh")])
# The oldest Python that each is for, by what its docstring says.
PYTHON = {
    "checks/http_probe.py": (3, 4),
    "kinds/celery/ask_workers.py": (3, 6),
    "kinds/celery/become_worker.py": (3, 6),
}
LINTERS = {
    "shellcheck": ["shellcheck", "-s", "sh"],
    "dash": ["dash", "-n"],
    "busybox": ["busybox", "sh", "-n"],
}


@pytest.mark.parametrize("program", LINTERS)
@pytest.mark.parametrize("file", SHELL, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_shell_scripts(file: Path, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"this machine has no {program}, which checks the probe scripts")
    done = subprocess.run([*LINTERS[program], str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_shell_scripts() -> None:
    assert len(SHELL) >= 4


def test_what_a_container_lacks_is_a_result(tmp_path: Path) -> None:
    stage = context(project(service("web")), Shell(tmp_path / "bin", {}, running("web")), tmp_path)
    assert stage.shell("web", "no-such-program").not_found
    assert stage.shell("web", 'echo "$1, $2"', "a b", "c").stdout == "a b, c\n"


@pytest.mark.parametrize(("file", "version"), PYTHON.items(), ids=list(PYTHON))
def test_python_scripts(file: str, version: tuple[int, int]) -> None:
    text = (PACKAGE / file).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=version)
    assert f"{version[0]}.{version[1]} and later" in (ast.get_docstring(tree) or "")


def test_a_script_is_read_from_its_package() -> None:
    assert scripts.read("stackhand.checks", "http_probe.sh").startswith("#!/bin/sh")
