"""The lock of a project, between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackhand.errors import LockHeld, StateFolderUnwritable
from stackhand.state.folder import StateFolder
from stackhand.state.private import PrivateFolder

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


@pytest.mark.parametrize("what", ["fifo", "device", "link", "brackets", "huge", "folder"])
def test_what_a_container_may_have_put_there_is_nothing_to_remember(tmp_path: Path, what: str) -> None:
    folder = StateFolder(tmp_path)
    path = folder.prepare() / "perms.json"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "link":
        (tmp_path / "elsewhere.json").write_text("1")
        path.symlink_to(tmp_path / "elsewhere.json")
    elif what == "brackets":
        path.write_text("[" * 100_000)
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.mkdir()
    assert folder.recall("perms") is None


def test_what_was_remembered_comes_back(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.remember("a", {"b": [1]})
    assert folder.recall("a") == {"b": [1]}
    assert folder.recall("c") is None


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


def test_the_users_own_folder(tmp_path: Path) -> None:
    def path(uid: int, project: str = "/srv/a b", **environ: str) -> str:
        return str(PrivateFolder(Path(project), environ, uid).path)

    assert path(0, HOME="/home/m", XDG_STATE_HOME="/x").startswith("/var/lib/stackhand/perms/a-b-")
    assert path(5, HOME="/home/m").startswith("/home/m/.local/state/stackhand/perms/a-b-")
    assert path(5, HOME="/home/m", XDG_STATE_HOME="/x").startswith("/x/stackhand/perms/a-b-")
    assert path(5, HOME="/home/m", XDG_STATE_HOME="x").startswith("/home/m/.local/")
    assert path(5, STACKHAND_STATE="/s").startswith("/s/5/perms/a-b-")
    assert path(0) != path(0, "/srv/a_b")
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert path(0, str(tmp_path / "link")) == path(0, str(real))


def test_a_folder_of_the_users_own_is_closed_to_others(tmp_path: Path) -> None:
    place = PrivateFolder(tmp_path)
    assert not place.exists()
    with pytest.raises(FileNotFoundError):
        place.open()
    os.close(place.make())
    os.close(place.open())
    assert place.path.stat().st_mode & 0o7777 == 0o700
    place.path.parent.chmod(0o777)
    with pytest.raises(PermissionError):
        place.open()
    with pytest.raises(StateFolderUnwritable, match="another user made it") as caught:
        place.make()
    assert "STACKHAND_STATE" in (caught.value.hint or "")
