"""./inv: what needs no network. That pip really installs is seen whenever it is used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support import CHECKOUT

# A Python of the environment that says how it was called, and fails to install where a test wants that.
_INSTALLED = """\
#!/bin/sh
echo "${0##*/} $*"
case "$*" in
    *"pip install"*) [ ! -e "${0%/*}/no-network" ];;
    *compileall*) echo "$*" >>"${0%/*}/compiled";;
esac
"""
# A Python of the machine that lacks a package of the distribution.
_WITHOUT_VENV = """\
#!/bin/sh
case "$*" in *venv*) echo "ensurepip is not available" >&2; exit 1;; esac
exec python3 "$@"
"""
_ALONE = "python -m pip install --quiet --disable-pip-version-check --editable {0}\n"
_FOR_TESTS = (
    "python -m pip install --quiet --disable-pip-version-check --editable {0}[test] "
    "--constraint {0}/tests/constraints.txt\n"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment in which nothing is installed yet."""
    folder = tmp_path / "a checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / "tests").mkdir()
    shutil.copy(CHECKOUT / "inv", folder)
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "tests/constraints.txt").write_text("pytest==9\n")
    (folder / "tasks.py").touch()
    for name in ("python", "stackhand"):
        script(folder / ".venv/bin" / name, _INSTALLED)
    (folder / ".venv/.stackhand-folder").write_text(f"{folder}\n")
    return folder


@pytest.fixture
def installed(checkout: Path) -> Path:
    """A checkout that is ready for all tasks."""
    run(checkout, "test")
    return checkout


def script(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


def run(checkout: Path, *words: str, cwd: Path | None = None, inv: Path | None = None, **env: str) -> tuple[str, str]:
    """Return what it printed, and what it did before that."""
    done = run_process(inv or checkout / "inv", *words, cwd=cwd or checkout, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def run_process(inv: Path, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin", **env}
    return subprocess.run([inv, *words], cwd=cwd, env=path, capture_output=True, text=True, check=False)


def test_the_first_task_installs_what_tasks_need(checkout: Path) -> None:
    out, said = run(checkout, "up", "a b")
    assert out == "python -m stackhand up a b\n"
    assert said == f"stackhand: preparing {checkout}/.venv ...\n" + _ALONE.format(checkout)


def test_the_first_run_of_the_tests_installs_their_tools_as_pinned(checkout: Path) -> None:
    run(checkout, "up")
    out, said = run(checkout, "engine.install", "test")
    assert out == "python -m stackhand engine.install test\n"
    assert said == f"stackhand: preparing {checkout}/.venv for the tests ...\n" + _FOR_TESTS.format(checkout)
    assert run(checkout, "test", "--unit")[1] == ""
    assert run(checkout, "up")[1] == ""


def test_nothing_changed_means_nothing_is_prepared(installed: Path) -> None:
    assert run(installed, "up", "a b") == ("python -m stackhand up a b\n", "")


def test_what_changed_in_the_package_is_compiled_once(installed: Path) -> None:
    """Invoke keeps Python from it, and every call would take the time."""
    module = installed / "tasks/package/module.py"
    module.parent.mkdir(parents=True)
    for calls in (1, 2):
        module.touch()
        for _ in range(2):
            assert run(installed, "up") == ("python -m stackhand up\n", "")
        compiled = (installed / ".venv/bin/compiled").read_text()
        assert compiled == f"-m compileall -q -j 0 {installed}/tasks\n" * calls


def test_from_another_folder_through_a_link(installed: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(installed / "inv")
    below = installed / "below"
    below.mkdir()
    assert run(installed, "up", inv=link, cwd=below) == ("python -m stackhand up\n", "")


def test_where_no_tasks_file_is_stackhand_brings_its_own(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run(installed, "up", cwd=elsewhere) == ("stackhand up\n", "")


def test_another_pyproject_is_installed_again_by_both(installed: Path) -> None:
    (installed / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert _ALONE.format(installed) in run(installed, "up")[1]
    assert _FOR_TESTS.format(installed) in run(installed, "test")[1]
    assert run(installed, "up")[1] == ""


def test_other_constraints_are_installed_by_the_tests_alone(installed: Path) -> None:
    (installed / "tests/constraints.txt").write_text("pytest==10\n")
    assert run(installed, "up")[1] == ""
    assert _FOR_TESTS.format(installed) in run(installed, "test")[1]


@pytest.mark.parametrize("task", ["up", "test"])
def test_what_failed_half_way_is_done_again(checkout: Path, task: str) -> None:
    no_network = checkout / ".venv/bin/no-network"
    no_network.touch()
    for _ in range(2):
        done = run_process(checkout / "inv", task, cwd=checkout)
        assert done.returncode == 3
        assert "error: could not install stackhand's packages\nhint: " in done.stderr
    no_network.unlink()
    assert "pip install" in run(checkout, task)[1]
    assert run(checkout, task)[1] == ""


def test_an_installation_that_fails_takes_back_what_was_there(installed: Path) -> None:
    (installed / "tests/constraints.txt").write_text("pytest==10\n")
    (installed / ".venv/bin/no-network").touch()
    assert run_process(installed / "inv", "test", cwd=installed).returncode == 3
    (installed / ".venv/bin/no-network").unlink()
    # Nobody knows what pip did until it failed.
    assert _ALONE.format(installed) in run(installed, "up")[1]
    assert _FOR_TESTS.format(installed) in run(installed, "test")[1]


@pytest.mark.parametrize("task", ["up", "test"])
def test_a_folder_that_was_moved_gets_an_environment_of_its_own(installed: Path, task: str) -> None:
    moved = installed.rename(installed.with_name("moved"))
    python = script(moved / "fake-python", _WITHOUT_VENV)
    done = run_process(moved / "inv", task, cwd=moved, PYTHON=str(python))
    assert "stackhand: preparing" in done.stderr
    assert done.returncode == 3
    assert "hint: on Debian and Ubuntu: apt-get install python3-venv" in done.stderr


def test_no_python(checkout: Path) -> None:
    done = run_process(checkout / "inv", "up", cwd=checkout, PYTHON="no-such-python")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no-such-python was not found\nhint: ")
