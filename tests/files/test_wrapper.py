"""./inv: what needs no network. That it installs is seen whenever it is used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support import CHECKOUT

_PYTHON = """\
#!/bin/sh
case "$*" in *venv*) echo "ensurepip is not available" >&2; exit 1;; esac
exec python3 "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a ready environment, whose Python says how it was called."""
    folder = tmp_path / "a checkout"
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(CHECKOUT / "inv", folder)
    (folder / "pyproject.toml").write_text("[project]\n")
    (folder / "tasks.py").touch()
    for name in ("python", "stackhand"):
        script = folder / ".venv/bin" / name
        script.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        script.chmod(0o755)
    stamp = subprocess.run(["cksum"], input=b"[project]\n", capture_output=True, check=True).stdout.decode()
    (folder / ".venv/.stackhand-installed").write_text(f"{stamp}{folder}\n")
    return folder


def run(inv: Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin", **env}
    return subprocess.run([inv, "up", "a b"], cwd=cwd, env=path, capture_output=True, text=True, check=False)


def test_nothing_changed_means_nothing_is_prepared(checkout: Path) -> None:
    done = run(checkout / "inv", checkout)
    assert (done.stdout, done.stderr) == ("python -m stackhand up a b\n", "")


def test_from_another_folder_through_a_link(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout / "inv")
    below = checkout / "below"
    below.mkdir()
    assert run(link, below).stdout == "python -m stackhand up a b\n"


def test_where_no_tasks_file_is_stackhand_brings_its_own(checkout: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run(checkout / "inv", elsewhere).stdout == "stackhand up a b\n"


@pytest.mark.parametrize("change", ["pyproject", "interrupted", "moved"])
def test_what_changed_is_prepared_again(checkout: Path, change: str) -> None:
    if change == "pyproject":
        (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    elif change == "interrupted":
        (checkout / ".venv/.stackhand-installed").unlink()
    else:
        checkout = checkout.rename(checkout.with_name("moved"))
    fake = checkout / "fake-python"
    fake.write_text(_PYTHON)
    fake.chmod(0o755)
    done = run(checkout / "inv", checkout, PYTHON=str(fake))
    assert "stackhand: preparing" in done.stderr
    assert done.returncode == 3
    assert "hint: on Debian and Ubuntu: apt-get install python3-venv" in done.stderr


def test_no_python(checkout: Path) -> None:
    (checkout / ".venv/.stackhand-installed").unlink()
    done = run(checkout / "inv", checkout, PYTHON="no-such-python")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no-such-python was not found\nhint: ")
