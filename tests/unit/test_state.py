"""The lock of a project, between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackhand.errors import LockHeld, StateFolderUnwritable
from stackhand.state import StateFolder

HOLD = """\
import sys
from pathlib import Path
from stackhand.state import StateFolder
with StateFolder(Path(sys.argv[1])).lock("services.stop"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "tasks")},
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def take(folder: Path) -> None:
    with StateFolder(folder).lock("services.start"):
        pass


def test_the_second_is_told_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockHeld) as caught:
        take(tmp_path)
    assert "services.stop" in caught.value.message
    assert f"process {holder.pid} " in caught.value.message
    assert caught.value.hint
    # Being refused must not take the lock's text away.
    with pytest.raises(LockHeld, match=f"process {holder.pid} "):
        take(tmp_path)


def test_it_is_free_once_the_holder_ended(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.communicate("")
    take(tmp_path)


def test_it_is_free_once_the_holder_was_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    take(tmp_path)
    take(tmp_path)


def test_it_is_free_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oh"), StateFolder(tmp_path).lock("a"):
        raise ValueError("oh")
    take(tmp_path)


def test_a_second_in_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with StateFolder(tmp_path).lock("a"), pytest.raises(LockHeld, match=str(os.getpid())):
        take(tmp_path)


def test_a_damaged_text_is_no_obstacle(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path).prepare()
    (folder / "lock").write_text("{not json")
    take(tmp_path)


def test_projects_do_not_disturb_each_other(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    take(other)


def test_git_ignores_the_folder(tmp_path: Path) -> None:
    take(tmp_path)
    assert (tmp_path / ".stackhand/.gitignore").read_text() == "*\n"


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / ".stackhand").write_text("a file is in the way")
    with pytest.raises(StateFolderUnwritable) as caught:
        take(tmp_path)
    assert caught.value.exit_code == 3


def test_many_threads_remember_side_by_side(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)

    def add(number: int) -> None:
        folder.update("numbers", lambda known: {**(known or {}), str(number): number})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folder.recall("numbers")) == 20
