"""What git records of a working tree: read from real repositories, hostile ones too."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackhand.engine.host import git
from stackhand.engine.host.programs import Programs

if shutil.which("git") is None:
    pytest.skip("THESE TESTS NEED GIT", allow_module_level=True)

UID = 4321


@pytest.fixture
def repository() -> Iterator[Path]:
    """A repository that has a script in each of two folders, in a place that everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="stackhand-git-"))
    path.chmod(0o755)
    run(path, "init", "-q")
    for name in ("app/tool", "deep/in/tool"):
        (path / name).parent.mkdir(parents=True)
        (path / name).write_text("x")
        (path / name).chmod(0o755)
    (path / "app/plain").write_text("x")
    commit(path)
    yield path
    shutil.rmtree(path)


def run(path: Path, *words: str) -> str:
    usual = ("-c", "user.name=a", "-c", "user.email=a@example", "-c", "safe.directory=*")
    return subprocess.run(
        ["git", *usual, "-C", path, *words], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def commit(path: Path) -> None:
    run(path, "add", "-A")
    run(path, "commit", "-q", "-m", "all")


def test_what_git_records_as_executable(repository: Path) -> None:
    assert git.executables(Programs(), repository) == ["app/tool", "deep/in/tool"]
    assert git.executables(Programs(), repository / "deep") == ["in/tool"]


def test_names_of_any_bytes(repository: Path) -> None:
    names = [b"t\xffl", b"c\rr", b"c\r\nr", b"a\tb", b"a\nb"]
    for name in names:
        path = repository / os.fsdecode(name)
        path.touch()
        path.chmod(0o755)
    commit(repository)
    found = git.executables(Programs(), repository)
    assert found is not None
    assert {os.fsencode(each) for each in found} == {b"app/tool", b"deep/in/tool", *names}


def test_without_a_repository_there_is_nothing_and_a_broken_one_is_not_known(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git.executables(Programs(), tmp_path) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.executables(Programs(), repository) is None
    monkeypatch.undo()
    (repository / ".git/index").write_bytes(b"broken")
    assert git.executables(Programs(), repository) is None


def test_settings_of_the_caller_do_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git.executables(Programs(), repository) == ["app/tool", "deep/in/tool"]


@pytest.fixture
def trap(repository: Path) -> Path:
    """A program that the repository has git run, and the file that tells of it: `id` of whoever ran it."""
    told, program = repository / "told", repository / ".git/evil"
    program.write_text(f"#!/bin/sh\nid -u > {told}\n")
    program.chmod(0o755)
    return told


def test_a_repository_that_lacks_objects_has_nothing_fetched(repository: Path, trap: Path) -> None:
    """A sparse index has whole folders as one tree; a missing tree would be fetched, by any program."""
    run(repository, "sparse-checkout", "set", "--cone", "--sparse-index", "app")
    tree = run(repository, "rev-parse", "HEAD:deep").strip()
    (repository / f".git/objects/{tree[:2]}/{tree[2:]}").unlink()
    settings = {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{repository}/.git/evil",
        "protocol.ext.allow": "always",
        "protocol.allow": "always",
    }
    for name, value in settings.items():
        run(repository, "config", name, value)
    subprocess.run(["git", "-C", repository, "ls-files", "-s"], check=False, capture_output=True, timeout=60)
    if not trap.exists():
        pytest.skip("this git does not fall for it")
    trap.unlink()
    assert git.executables(Programs(), repository) is None
    assert not trap.exists()


def test_a_file_system_monitor_is_not_run(repository: Path, trap: Path) -> None:
    run(repository, "config", "core.fsmonitor", str(repository / ".git/evil"))
    assert git.executables(Programs(), repository) == ["app/tool", "deep/in/tool"]
    assert not trap.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="TAKES ROOT")
@pytest.mark.parametrize("theirs", [".git", ".git/config"])
def test_root_asks_as_the_owner_of_what_git_reads(
    repository: Path, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(repository / theirs, UID, UID)
    program = repository / "bin/git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '100755 x 0\\t%s\\0' \"$(id -u) $(id -g) $(id -G)\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert git.executables(Programs(), repository) == [f"{UID} {UID} {UID}"]
    os.chown(repository / theirs, 0, 0)
    found = git.executables(Programs(), repository)
    assert found is not None
    assert found[0].startswith("0 0 ")


def test_a_repository_that_never_answers_is_not_waited_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(repository / ".git/never")
    run(repository, "config", "include.path", str(repository / ".git/never"))
    monkeypatch.setattr(git, "_TIMEOUT", 0.5)
    assert git.executables(Programs(), repository) is None
