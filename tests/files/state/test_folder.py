"""The lock of the state folder, held by another process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackhand.errors import LockHeld, StateFolderUnwritable
from stackhand.state.folder import StateFolder

HOLD = """\
import sys
from pathlib import Path
from stackhand.state.folder import StateFolder
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
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "tasks")},
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


def test_projects_do_not_disturb_each_other(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    take(other)


def as_user(work: Callable[[], None]) -> None:
    """Do something in a process of an ordinary user's."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(4321, 4321, 4321)
            os.setresuid(4321, 4321, 4321)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def roots() -> Iterator[Path]:
    """A project of root's, in which an ordinary user may read."""
    if os.geteuid() != 0:
        pytest.skip("THIS TEST NEEDS ROOT")
    with tempfile.TemporaryDirectory(prefix="stackhand-state-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def own(folder: Path) -> None:
    with StateFolder(folder).lock("perms.fix", allow_private_lock=True):
        pass


def test_who_may_not_write_to_the_project_takes_its_lock_all_the_same(roots: Path) -> None:
    take(roots)

    def refused() -> None:
        with pytest.raises(LockHeld, match=r"services\.start"):
            own(roots)

    def without() -> None:
        with pytest.raises(StateFolderUnwritable):
            take(roots)

    as_user(without)
    as_user(lambda: own(roots))
    with StateFolder(roots).lock("services.start"):
        as_user(refused)


def test_where_there_is_none_he_has_one_of_his_own(roots: Path) -> None:
    def work() -> None:
        place = StateFolder(roots).private.path
        with StateFolder(roots).lock("perms.fix", allow_private_lock=True):
            assert (place / "lock").exists()
            with pytest.raises(LockHeld, match=r"perms\.fix"):
                own(roots)

    as_user(work)
    assert not (roots / ".stackhand").exists()
