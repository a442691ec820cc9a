"""The journal of actions: what is left of a run after a crash at any point, and what others may do to its file."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from stackhand.errors import StateFolderUnwritable
from stackhand.state import journal as journal_module
from stackhand.state.folder import StateFolder
from stackhand.state.journal import KEPT, Journal, Process

RESTART = "services.restart"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(StateFolder(tmp_path))


def again(tmp_path: Path) -> Journal:
    """The journal as another run reads it."""
    return Journal(StateFolder(tmp_path))


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; return its status. `work` may end it with a kill."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def test_a_run_that_ends_leaves_nothing(journal: Journal, tmp_path: Path) -> None:
    with journal.run(RESTART, {"names": ["api"]}, {"c1": "built"}) as run:
        [seen] = again(tmp_path).unfinished()
        assert seen.id == run.id
        assert seen.task == RESTART
        assert seen.facts == {"names": ["api"]}
        assert seen.steps["c1"].cause == "built"
        assert seen.is_under_way
        run.intend({"c2": "its file has changed"})
        run.done("c1")
        [seen] = again(tmp_path).unfinished(RESTART)
        assert {key: step.done for key, step in seen.steps.items()} == {"c1": True, "c2": False}
    assert again(tmp_path).unfinished() == []
    [ended] = again(tmp_path).runs(RESTART)
    assert ended.ended.endswith("+00:00")
    assert not ended.is_under_way


def test_a_run_whose_body_raises_is_unfinished(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), journal.run(RESTART, steps={"c1": ""}):
        raise KeyboardInterrupt
    [run] = again(tmp_path).unfinished()
    assert not run.is_under_way
    assert run.left(lambda key: key == "c1") == []
    assert run.left(lambda key: False) == ["c1"]


def test_a_killed_run_is_not_under_way(tmp_path: Path) -> None:
    def work() -> None:
        again(tmp_path).begin(RESTART, steps={"c1": ""})
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == signal.SIGKILL
    [run] = again(tmp_path).unfinished()
    assert not run.is_under_way
    again(tmp_path).settle(run)
    assert again(tmp_path).unfinished() == []


def test_another_process_of_the_same_number_is_another_process() -> None:
    me = Process.current()
    assert me.is_alive
    assert not Process(me.pid, "1", me.boot).is_alive
    assert not Process(me.pid, me.started, "another boot").is_alive
    assert not Process(2**30, "", me.boot).is_alive


def test_the_probe_decides_and_not_the_entry(journal: Journal) -> None:
    active = journal.begin(RESTART, steps={"marked, and not made": "", "made, and not marked": ""})
    active.done("marked, and not made")
    [run] = journal.unfinished()
    assert run.left(lambda key: key == "made, and not marked") == ["marked, and not made"]


def test_tasks_do_not_disturb_each_other(journal: Journal) -> None:
    journal.begin("services.reset", {"mode": "soft"})
    with journal.run(RESTART):
        pass
    assert [run.task for run in journal.unfinished()] == ["services.reset"]
    assert journal.unfinished(RESTART) == []
    assert [run.task for run in journal.runs()] == ["services.reset", RESTART]


# A crash at any point: the process ends at the n-th call that touches the disk.

_CALLS = ("open", "replace", "fsync", "unlink", "fdopen", "mkdir", "close")


def _crash_at(number: int) -> None:
    left = number
    for name in _CALLS:
        original = getattr(os, name)

        def call(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return _original(*args, **kwargs)

        setattr(os, name, call)


def test_a_crash_at_any_point_leaves_no_step_that_the_journal_does_not_name(tmp_path: Path) -> None:
    number, statuses = 0, []
    while True:
        number += 1
        project = tmp_path / str(number)
        world = project / "world"
        world.mkdir(parents=True)

        def work(number: int = number, project: Path = project, world: Path = world) -> None:
            _crash_at(number)
            with Journal(StateFolder(project)).run(RESTART, steps={"one": ""}) as run:
                os.mkdir(world / "one")  # noqa: PTH102  one of the calls that are counted
                run.intend({"two": ""})
                os.mkdir(world / "two")  # noqa: PTH102
                run.done("one", "two")

        statuses.append(in_child(work))
        runs = Journal(StateFolder(project)).runs()
        made = {each.name for each in world.iterdir()}
        assert len(runs) <= 1
        if made:
            [run] = runs
            assert made <= set(run.steps)
            assert set(run.left(made.__contains__)) == set(run.steps) - made
        if runs and not runs[0].ended:
            assert not runs[0].is_under_way
        # Whatever was left in the folder, the next run can use it.
        with Journal(StateFolder(project)).run("services.stop"):
            pass
        if statuses[-1] == 0:
            assert runs[0].ended
            break
    assert set(statuses[:-1]) == {signal.SIGKILL}
    assert len(statuses) > 30


# What stands in its place.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"runs": [{"id": "2026',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"runs": 3}',
        b'{"runs": null}',
        b'{"runs": [3, null, {}, {"id": 1}, []]}',
        b'{"runs": {"a": 1}}',
        b"3",
        b'{"runs": [' + b'{"id": "a", "task": "t", "began": "", "ended": "", "facts": {}, "steps": [1]}, ' * 3 + b"0]}",
    ],
    ids=["empty", "cut", "no text", "brackets", "number", "null", "strangers", "object", "no object", "steps"],
)
def test_a_document_that_is_none_counts_as_empty(journal: Journal, tmp_path: Path, content: bytes) -> None:
    (StateFolder(tmp_path).prepare() / "journal.json").write_bytes(content)
    assert journal.runs() == []
    with journal.run(RESTART):
        assert len(again(tmp_path).unfinished()) == 1


def test_a_sound_run_beside_a_damaged_one_counts(journal: Journal, tmp_path: Path) -> None:
    journal.begin(RESTART)
    path = tmp_path / ".stackhand/journal.json"
    document = json.loads(path.read_text())
    document["runs"].insert(0, {**document["runs"][0], "steps": {"c": 3}})
    document["runs"].append({**document["runs"][1], "process": {"pid": 1e999}})
    path.write_text(json.dumps(document))
    assert len(journal.runs()) == 1


@pytest.mark.parametrize("what", ["link", "dangling", "device", "fifo", "huge"])
def test_what_a_container_put_in_its_place_is_replaced_and_not_followed(
    journal: Journal, tmp_path: Path, what: str
) -> None:
    path = StateFolder(tmp_path).prepare() / "journal.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('{"runs": []}')
    if what == "link":
        path.symlink_to(elsewhere)
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with journal.run(RESTART):
        assert len(again(tmp_path).unfinished()) == 1
    assert path.is_file()
    assert not path.is_symlink()
    assert elsewhere.read_text() == '{"runs": []}'
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_in_its_place_means_that_nothing_may_be_done(journal: Journal, tmp_path: Path) -> None:
    (StateFolder(tmp_path).prepare() / "journal.json").mkdir()
    with pytest.raises(StateFolderUnwritable), journal.run(RESTART):
        pytest.fail("the body must not run")
    assert journal.runs() == []


def test_a_link_in_the_place_of_the_folder_is_not_followed(journal: Journal, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / ".stackhand").symlink_to(elsewhere)
    with pytest.raises(StateFolderUnwritable):
        journal.begin(RESTART)
    assert list(elsewhere.iterdir()) == []


def test_a_document_of_another_user_is_read_and_replaced(journal: Journal, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("THIS TEST NEEDS ROOT")
    journal.begin(RESTART)
    path = tmp_path / ".stackhand/journal.json"
    os.chown(path, 4321, 4321)
    with journal.run("services.stop"):
        assert [run.task for run in again(tmp_path).unfinished()] == [RESTART, "services.stop"]
    assert path.stat().st_uid == 0


def test_what_root_has_written_the_owner_of_the_folder_goes_on_with(journal: Journal, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("THIS TEST NEEDS ROOT")
    journal.begin(RESTART, steps={"c1": ""})
    for folder in (tmp_path, tmp_path / ".stackhand"):
        os.chown(folder, 4321, 4321)
    for folder in takewhile(lambda each: each != Path(tempfile.gettempdir()), tmp_path.parents):
        folder.chmod(0o755)

    def work() -> None:
        os.setgroups([])
        os.setresgid(4321, 4321, 4321)
        os.setresuid(4321, 4321, 4321)
        mine = again(tmp_path)
        with mine.run(RESTART):
            mine.settle(*mine.unfinished(RESTART))

    assert in_child(work) == 0
    assert journal.unfinished() == []


def test_a_lock_that_somebody_keeps_is_told(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    from stackhand.state import folder as folder_module

    monkeypatch.setattr(folder_module, "_UPDATE_TIMEOUT", 0.05)
    folder = StateFolder(tmp_path).open()
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(StateFolderUnwritable, match="another process keeps it locked"):
            journal.begin(RESTART)
    finally:
        os.close(folder)
    journal.begin(RESTART)


# A full disk.


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fill() -> None:
        def fsync(fd: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


def test_with_a_full_disk_nothing_may_be_begun(journal: Journal, tmp_path: Path, full_disk: Callable[[], None]) -> None:
    full_disk()
    with pytest.raises(StateFolderUnwritable, match="No space left"), journal.run(RESTART):
        pytest.fail("the body must not run")
    assert journal.runs() == []
    assert [each.name for each in (tmp_path / ".stackhand").iterdir()] == [".gitignore"]


def test_with_a_disk_that_fills_up_no_further_step_may_be_made(
    journal: Journal, tmp_path: Path, full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal.run(RESTART, steps={"one": ""}) as run:
        full_disk()
        with pytest.raises(StateFolderUnwritable):
            run.intend({"two": ""})
    # The end could not be written: the run is looked at again, by its probes.
    [left] = again(tmp_path).unfinished()
    assert list(left.steps) == ["one"]
    again(tmp_path).settle(left)  # neither could this; it does no harm
    monkeypatch.undo()
    again(tmp_path).settle(left)
    assert again(tmp_path).unfinished() == []


# Side by side.


def test_threads_write_side_by_side(journal: Journal, tmp_path: Path) -> None:
    with journal.run(RESTART) as run:
        threads = [threading.Thread(target=run.intend, args=({str(n): ""},)) for n in range(10)]
        threads += [threading.Thread(target=again(tmp_path).begin, args=("services.fixes",)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(journal.unfinished(RESTART)[0].steps) == set(map(str, range(10)))
    runs = journal.runs("services.fixes")
    assert len(runs) == len({run.id for run in runs}) == 10


def test_processes_write_side_by_side(journal: Journal, tmp_path: Path) -> None:
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for number in range(5):
                    with again(tmp_path).run(RESTART, steps={str(number): ""}) as run:
                        run.done(str(number))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    runs = journal.runs()
    assert len(runs) == len({run.id for run in runs}) == 20
    assert all(run.ended and all(step.done for step in run.steps.values()) for run in runs)


def test_a_journal_that_vanishes_meanwhile_has_the_run_again(journal: Journal, tmp_path: Path) -> None:
    with journal.run(RESTART, steps={"one": ""}) as run:
        (tmp_path / ".stackhand/journal.json").unlink()
        run.intend({"two": ""})
        assert list(again(tmp_path).unfinished()[0].steps) == ["one", "two"]


# What is kept.


def test_the_oldest_go_by_task_and_the_unfinished_stay(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    stopped = journal.begin("services.stop", steps={"c1": ""})
    stopped.end()
    killed = journal.begin(RESTART)
    for number in range(KEPT + 20):
        journal.begin(RESTART, {"number": number}).end()
    assert [run.id for run in journal.unfinished()] == [killed.id]
    assert [run.id for run in journal.runs("services.stop")] == [stopped.id]
    ended = [run.facts["number"] for run in journal.runs(RESTART) if run.ended]
    assert ended[-1] == KEPT + 19
    assert len(ended) <= KEPT + 1


def test_of_a_run_that_ended_only_what_was_done_is_kept(journal: Journal) -> None:
    with journal.run(RESTART, steps={"c1": "", "c2": ""}) as run:
        run.done("c1")
    with pytest.raises(KeyboardInterrupt), journal.run(RESTART, steps={"c3": ""}):
        raise KeyboardInterrupt
    assert [list(each.steps) for each in journal.runs()] == [["c1"], ["c3"]]
    journal.settle(*journal.unfinished())
    assert [list(each.steps) for each in journal.runs()] == [["c1"], []]


def test_steps_that_nobody_can_look_up_any_more_are_forgotten(journal: Journal) -> None:
    for task in ("services.stop", RESTART, "services.stop"):
        journal.begin(task, steps={"old": "", "new": ""}).done("old", "new")
    ended = [run for run in journal.runs() if run.id != journal.runs()[-1].id]
    journal.settle(*ended)
    journal.forget("services.stop", lambda key: key == "old")
    assert [list(run.steps) for run in journal.runs()] == [["new"], ["old", "new"], ["old", "new"]]


def test_a_flood_that_a_container_made_up_is_not_read_whole(journal: Journal, tmp_path: Path) -> None:
    entry: dict[str, object] = {
        "id": "a",
        "task": "t",
        "began": "",
        "ended": "",
        "facts": {},
        "steps": {},
        "process": None,
    }
    runs = [{**entry, "task": str(number)} for number in range(20_000)]
    (StateFolder(tmp_path).prepare() / "journal.json").write_text(json.dumps({"runs": runs}))
    assert len(journal.runs()) == journal_module._MOST
    journal.begin(RESTART)
    assert journal.unfinished()[-1].task == RESTART
