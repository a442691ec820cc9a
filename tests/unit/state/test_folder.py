"""The lock of a project, between real processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from stackhand.errors import LockHeld, StateFolderUnwritable
from stackhand.state.folder import StateFolder
from stackhand.state.private import PrivateFolder


def take(folder: Path) -> None:
    with StateFolder(folder).lock("services.start"):
        pass


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
