"""Undoing: everything back that nobody has changed since, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackhand.errors import FixFailed, JournalFailed, JournalRefused, StateFolderUnwritable, UnknownRun
from stackhand.perms import undo
from stackhand.perms.journal import Change, Journals
from stackhand.perms.tree import workers
from stackhand.perms.undo import UndoResult
from stackhand.state.private import PrivateFolder

from .conftest import GID, UID, Tree, as_user, facts


def put_back(tree: Tree, id: str | None = None, *, dry: bool = False) -> UndoResult:
    journals = tree.journals
    journal = undo.choose(journals, id)
    if journal is None:
        return UndoResult(None, tree.path)
    return undo.plan(tree.path, journal, journals) if dry else undo.undo(tree.path, journal, journals)


@pytest.fixture
def wrong(tree: Tree) -> Tree:
    tree.file("app/a.py", 0o600)
    tree.file("app/deep/closed/b.sh", 0o1666)
    (tree.path / "app/deep/closed").chmod(0o000)
    tree.file(b"secrets/\xff\n", 0o644, uid=77)
    (tree.path / "app/link").symlink_to("nowhere")
    tree.settle()
    return tree


def test_everything_is_as_it_was(wrong: Tree) -> None:
    before = wrong.look()
    result = wrong.fix()
    assert wrong.look() != before
    assert put_back(wrong, dry=True).restored == result.counts.changed
    assert wrong.look() != before
    done = put_back(wrong)
    assert (done.id, done.restored, done.left, done.ok) == (result.journal, result.counts.changed, 0, True)
    assert wrong.look() == before


def test_an_undo_can_be_undone(wrong: Tree) -> None:
    wrong.fix()
    fixed = wrong.look()
    done = put_back(wrong)
    put_back(wrong, done.journal)
    assert wrong.look() == fixed


def test_without_an_id_it_goes_back_run_by_run(wrong: Tree) -> None:
    first = wrong.look()
    wrong.fix()
    second = wrong.look()
    late = wrong.file("app/late.py")
    before = facts(late)
    wrong.fix()
    put_back(wrong)
    assert facts(late) == before
    late.unlink()
    assert wrong.look() == second
    put_back(wrong)
    assert wrong.look() == first
    assert put_back(wrong).id is None


@pytest.mark.parametrize("how", ["mode", "owner", "content", "forged", "recreated", "replaced", "gone", "linked"])
def test_what_was_changed_since_stays(wrong: Tree, how: str) -> None:
    result = wrong.fix()
    path = wrong.path / "app/a.py"
    wrong.settle()
    if how == "mode":
        path.chmod(0o640)
    elif how == "owner":
        os.chown(path, 77, GID)
    elif how == "content":
        path.write_text("more")
    elif how == "forged":
        times = path.stat()
        path.write_text("more")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif how == "recreated":
        times = path.stat()
        path.unlink()
        # The file system likes to give the same number again.
        wrong.file("app/a.py", 0o644, uid=UID, gid=GID)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif how == "replaced":
        wrong.file("app/new", 0o644, uid=UID, gid=GID).rename(path)
    elif how == "gone":
        path.unlink()
    else:
        os.link(path, wrong.path / "second")
    now = facts(path) if path.exists() else None
    done = put_back(wrong)
    assert (done.restored, done.left) == (result.counts.changed - 1, 1)
    assert [each.path for each in done.events.read("left")] == ["app/a.py"]
    assert (facts(path) if path.exists() else None) == now


def test_of_two_runs_that_changed_the_same_files_both_can_be_undone(wrong: Tree) -> None:
    before = wrong.look()
    wrong.fix()
    wrong.fix(uid=UID + 1, gid=GID + 1)
    put_back(wrong)
    put_back(wrong)
    assert wrong.look() == before


def test_an_unknown_run_names_those_that_there_are(wrong: Tree) -> None:
    id = wrong.fix().journal
    with pytest.raises(UnknownRun) as caught:
        put_back(wrong, "20010101-000000")
    assert id and id in (caught.value.hint or "")


def test_what_lies_in_the_project_is_not_believed(tree: Tree) -> None:
    """Else whoever is root in a container could have root make his program setuid root."""
    program = tree.file("app/a", 0o644, uid=UID, gid=GID)
    forged = PrivateFolder(tree.path, {"STACKHAND_STATE": str(tree.path / ".stackhand")})
    _, writer = Journals(forged).create("perms.fix", "")
    writer.write("app", [Change("a", program.stat().st_ino, 0, 0, 0o4755, UID, GID, 0o644)])
    writer.close()
    (tree.path / ".stackhand/perms").symlink_to(forged.path)
    assert put_back(tree).id is None
    assert facts(program) == (UID, GID, 0o644)


@pytest.mark.parametrize("how", ["owner", "mode", "link", "file"])
def test_journals_that_others_could_write_are_refused(wrong: Tree, tmp_path: Path, how: str) -> None:
    id = wrong.fix().journal
    folder = wrong.state.private.path
    if how == "owner":
        os.chown(folder, UID, GID)
    elif how == "mode":
        folder.parent.chmod(0o777)
    elif how == "link":
        folder.rename(tmp_path / "aside")
        folder.symlink_to(tmp_path / "aside")
    else:
        (folder / f"{id}.jsonl").chmod(0o666)
    now = wrong.look()
    with pytest.raises(JournalRefused):
        put_back(wrong)
    assert wrong.look() == now
    if how != "file":
        with pytest.raises(StateFolderUnwritable):
            wrong.fix()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("", ".."),
        ("..", "a"),
        ("app/..", "a"),
        ("", "../a"),
        ("/etc", "a"),
        ("app//x", "a"),
        ("", ""),
        ("", "a\0b"),
        ("", 7),
    ],
)
def test_a_name_that_leads_elsewhere_is_not_followed(tree: Tree, folder: str, name: object) -> None:
    outside = tree.file("a", 0o644, uid=UID, gid=GID)
    inside = Tree(tree.path / "project")
    good = inside.file("app/a", 0o644, uid=UID, gid=GID)
    _, writer = inside.journals.create("perms.fix", "")
    for at, each, path in ((folder, name, outside), ("app", "a", good)):
        changes = [[[0, 0, 0o600, UID, GID, 0o644], [each], [path.stat().st_ino]]]
        os.write(writer.fd, b"\n" + json.dumps({"folder": at, "changes": changes}).encode())
    writer.close()
    done = put_back(inside)
    assert (done.restored, done.left, done.failed) == (1, 0, 0)
    assert facts(outside) == (UID, GID, 0o644)
    assert facts(good) == (0, 0, 0o600)


@pytest.mark.parametrize("names", [["a", "b"], ["a"], [], "ab", None, [7, "b"]])
def test_a_line_whose_names_and_inodes_do_not_agree_is_passed_over(tree: Tree, names: object) -> None:
    path = tree.file("app/a", 0o644, uid=UID, gid=GID)
    _, writer = tree.journals.create("perms.fix", "")
    inodes = [path.stat().st_ino] * (3 if names else 0)
    changes = [[[0, 0, 0o600, UID, GID, 0o644], names, inodes]]
    os.write(writer.fd, b"\n" + json.dumps({"folder": "app", "changes": changes}).encode())
    writer.close()
    assert put_back(tree).restored == 0
    assert facts(path) == (UID, GID, 0o644)


def test_an_ordinary_user_undoes_his_own(tree: Tree) -> None:
    os.chown(tree.path, UID, GID)
    path = tree.file("app/a", 0o666, uid=UID, gid=GID)
    os.chown(tree.path / "app", UID, GID)

    def work() -> None:
        assert tree.fix().ok
        assert facts(path)[2] == 0o644
        assert put_back(tree).restored == 1

    as_user(work)
    assert facts(path) == (UID, GID, 0o666)


def at_call(name: str, count: int, then: Callable[[], object]) -> None:
    """Have something happen just before so many calls of a function of `os`; in a process of the test's own."""
    real, calls = getattr(os, name), 0

    def counting(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            then()
        return real(*args, **named)

    setattr(os, name, counting)


def killed(work: Callable[[], object], name: str, count: int) -> None:
    """Do something in a process that is killed at so many calls of a function of `os`."""
    pid = os.fork()
    if pid == 0:
        at_call(name, count, lambda: os.kill(os.getpid(), signal.SIGKILL))
        work()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


@pytest.fixture
def many(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """400 files in 40 folders, all wrong; one process does all."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    for number in range(400):
        tree.file(f"app/{number % 40}/{number}.py")
    tree.settle()
    return tree


def test_killed_in_the_middle_the_journal_is_complete_and_the_next_run_finishes(many: Tree) -> None:
    tree, before = many, many.look()
    killed(tree.fix, "chown", 150)
    half = tree.look()
    changed = [path for path, now in half.items() if now != before[path]]
    assert 100 < len(changed) < 300
    (id,) = tree.journals.ids()
    journal = tree.journals.open(id)
    named = {f"{at}/{each.name}" if at else each.name for at, changes in journal.backwards() for each in changes}
    assert {path for path in changed if not path.endswith("/.")} - {each.replace("/.", "") for each in named} == set()
    assert tree.fix().ok
    assert tree.check().ok
    put_back(tree)
    assert tree.look() == half
    put_back(tree)
    assert tree.look() == before


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_an_undo_that_came_to_no_end_is_done_again(many: Tree, how: str) -> None:
    tree, before = many, many.look()
    tree.fix()
    fixed = tree.look()
    if how == "killed":
        killed(lambda: put_back(tree), "chown", 150)
    else:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "chown", os.chown)  # so that it is put back
            at_call("chown", 150, lambda: os.kill(os.getpid(), signal.SIGINT))
            done = put_back(tree)
        assert isinstance(done.stopped, KeyboardInterrupt)
        assert not done.ok
        assert 150 <= done.restored < 300
        assert done.journal
    half = tree.look()
    assert before != half != fixed
    done = put_back(tree)
    assert done.ok
    assert (done.restored, done.left) == (sum(half[path] != before[path] for path in before), 0)
    assert tree.look() == before
    assert put_back(tree).id is None


def test_what_was_done_again_can_be_undone_again(wrong: Tree) -> None:
    before = wrong.look()
    first = wrong.fix()
    fixed = wrong.look()
    again = put_back(wrong, put_back(wrong).journal)
    assert wrong.look() == fixed
    done = put_back(wrong)
    assert (done.id, wrong.look()) == (first.journal, before)
    assert put_back(wrong).id is None
    # And that again: undoing what was done again leaves all as it is now.
    put_back(wrong, again.journal)
    assert wrong.look() == before


def test_a_failed_undo_is_chosen_again(wrong: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    before = wrong.look()
    wrong.fix()

    def chown(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "chown", chown)
        assert not put_back(wrong).ok
    assert put_back(wrong).ok
    assert wrong.look() == before


def test_a_program_does_not_get_its_setuid_bit_back_with_its_owner(tree: Tree) -> None:
    """Whoever had it meanwhile could have rewritten it, while the run still went on."""
    tree.file("app/program.sh", 0o4755)
    tree.file("app/group.sh", 0o2755)
    tree.folder("app/shared", 0o2775)
    able = tree.file("app/able.sh", 0o755)
    os.setxattr(able, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    before = tree.look()
    assert tree.fix().ok
    assert facts(tree.path / "app/program.sh") == (UID, GID, 0o4755)
    done = put_back(tree)
    assert done.ok
    assert tree.look() == {**before, "app/program.sh": (0, 0, 0o755), "app/group.sh": (0, 0, 0o755)}
    assert "security.capability" not in os.listxattr(able)
    assert {each.path: each.reason for each in done.events.read("left")} == {
        "app/program.sh": "put back without its setuid bit: `chmod u+s` if it is still the program it was",
        "app/group.sh": "put back without its setgid bit: `chmod g+s` if it is still the program it was",
        "app/able.sh": "put back without its capabilities: `setcap` if it is still the program it was",
    }
    assert done.left == 0


def test_a_mount_since_is_left_alone(wrong: Tree) -> None:
    result = wrong.fix()
    subprocess.run(["mount", "-t", "tmpfs", "none", wrong.path / "app/deep"], check=True)
    try:
        done = put_back(wrong)
        assert {each.reason for each in done.events.read("left")} == {"another file system is mounted there"}
        assert (done.left, done.restored) == (2 + 1, (result.counts.changed) - 3)
    finally:
        subprocess.run(["umount", wrong.path / "app/deep"], check=True)


@pytest.mark.parametrize("call", ["chown", "chmod"])
@pytest.mark.parametrize("count", range(1, 5))
def test_no_special_bit_is_lost_whenever_it_is_killed(tree: Tree, call: str, count: int) -> None:
    tree.file("app/program", 0o6777, b"\x7fELF")
    tree.folder("app/shared", 0o3777)
    tree.settle()
    with contextlib.suppress(AssertionError):  # there may not be that many calls
        killed(tree.fix, call, count)
    assert tree.path.joinpath("app/shared").stat().st_mode & 0o7000 == 0o3000
    result = tree.fix()
    assert result.ok
    assert facts(tree.path / "app/program") == (UID, GID, 0o6755)
    assert facts(tree.path / "app/shared") == (UID, GID, 0o3755)
    assert tree.check().ok


def test_a_program_that_was_changed_after_the_kill_gets_no_bit(tree: Tree) -> None:
    path = tree.file("app/program", 0o4755, b"\x7fELF")
    os.chown(tree.folder("app", 0o755), UID, GID)
    os.chown(tree.path, UID, GID)
    tree.settle()
    # Between the change of its owner and that of its mode.
    killed(tree.fix, "chmod", 1)
    assert facts(path) == (UID, GID, 0o755)
    old = tree.journals.open(tree.journals.ids()[0]).ended
    while time.time_ns() <= old + 100_000_000:
        pass
    path.write_bytes(b"\x7fELF another")
    assert tree.fix().ok
    assert facts(path) == (UID, GID, 0o755)


def test_a_mode_is_put_back_where_the_owner_can_not_be_changed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree.file("app/tool.sh", 0o4777)

    def chown(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "chown", chown)
    result = tree.fix()
    assert {each.reason for each in result.events.read("failed")} == {"Disk quota exceeded"}
    assert facts(path) == (0, 0, 0o4777)


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_what_was_begun(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processes)))
    for number in range(4000):
        tree.file(f"app/{number % 200}/{number}.sh", 0o6777)
    before = tree.look()
    first, make = os.getpid(), mmap.mmap
    shared: list[mmap.mmap] = []

    def once() -> None:
        with contextlib.suppress(FileExistsError):
            (tmp_path / "sent").touch(exist_ok=False)
            os.kill(first, signal.SIGINT)
        # Goes on with its batch once the first process has told all to end.
        while shared and not shared[0][0]:
            pass

    def keeping(*args: int) -> mmap.mmap:
        shared.append(make(*args))
        return shared[0]

    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", keeping)
        patched.setattr(os, "chown", os.chown)
        at_call("chown", 300, once)
        result = tree.fix()
    assert isinstance(result.stopped, KeyboardInterrupt)
    assert not result.ok
    half = tree.look()
    changed = {path for path in half if half[path] != before[path]}
    assert 300 <= result.counts.changed == len(changed) < 4200
    assert {half[path] for path in changed if path.endswith(".sh")} == {(UID, GID, 0o6755)}
    journal = tree.journals.open(result.journal or "")
    assert journal.end and not journal.end.complete
    assert result.head()["error"]["exit_code"] == 130
    assert tree.fix().ok
    assert {now[2] for path, now in tree.look().items() if path.endswith(".sh")} == {0o6755}


def test_a_crew_member_that_dies_in_a_batch(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for number in range(4000):
        tree.file(f"app/{number % 200}/{number}.sh", 0o6777)
    before, first = tree.look(), os.getpid()
    tree.settle()
    with monkeypatch.context() as patched:
        patched.setattr(os, "chown", os.chown)
        # Both of them, however slow one is: what it leaves to the other is more. Each has told what it counted by then.
        at_call("chown", 1500, lambda: os.getpid() != first and os.kill(os.getpid(), signal.SIGKILL))
        result = tree.fix()
    assert isinstance(result.stopped, FixFailed)
    assert result.journal
    assert 300 < result.counts.changed < 4000
    assert tree.fix().ok
    assert {now for path, now in tree.look().items() if path.endswith(".sh")} == {(UID, GID, 0o6755)}
    put_back(tree)
    put_back(tree)
    # But for the setuid bits, which nobody gets back; without it, the second undo knows what was half way no more.
    expected = {path: (*ids, mode & ~0o6000) for path, (*ids, mode) in before.items()}
    differs = [now for path, now in tree.look().items() if now != expected[path]]
    assert differs in ([], [(0, 0, 0o755)], [(0, 0, 0o755)] * 2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB for the journals."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        monkeypatch.setenv("STACKHAND_STATE", str(tmp_path))
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_is_full_in_the_middle(
    tree: Tree, small: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processes)))
    for number in range(4000):
        tree.file(f"app/{number % 200}/{number}.py")
    before = tree.look()
    result = tree.fix()
    assert isinstance(result.stopped, JournalFailed)
    half = tree.look()
    assert 0 < result.counts.changed == sum(half[path] != before[path] for path in before) < 4000
    assert [each.path for each in result.events.read("failed")] == []
    # No room for a journal: nothing is changed, and none is left that an undo could take for the last.
    with contextlib.suppress(OSError):
        (small / "filling").write_bytes(b"x" * 64_000)
    with pytest.raises(StateFolderUnwritable, match="No space left"):
        tree.fix()
    assert tree.journals.ids() == [result.journal]
    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
    assert tree.fix().ok
    put_back(tree)
    assert tree.look() == half
    put_back(tree)
    assert tree.look() == before


def test_a_line_that_was_cut_short_spoils_no_other(wrong: Tree) -> None:
    before = wrong.look()
    result = wrong.fix()
    path = wrong.state.private.path / f"{result.journal}.jsonl"
    with path.open("ab") as file:
        file.write(b'\n{"folder": "app", "changes": [[[0, 0, 438, 4321, 4321, 420], ["a.py"')
    assert put_back(wrong).restored == result.counts.changed
    assert wrong.look() == before


def test_a_full_disk_changes_nothing_that_is_not_journaled(wrong: Tree, tmp_path: Path) -> None:
    before = wrong.look()
    with pytest.raises(JournalFailed, match="No space left"):
        workers.walk(
            str(wrong.path),
            wrong.rules(),
            workers.LastCleanRun(),
            workers.Writer(os.open("/dev/full", os.O_WRONLY)),
            workers.EventSpool(),
        )
    assert wrong.look() == before


def test_old_journals_go(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackhand.perms import journal

    monkeypatch.setattr(journal, "KEPT", 2)
    ids = []
    for number in range(3):
        tree.file(f"app/{number}")
        ids.append(tree.fix().journal)
    assert tree.journals.ids() == [ids[2], ids[1]]


def test_time_of_the_last_line(tree: Tree) -> None:
    began = time.time_ns()
    tree.file("app/a")
    run_ = tree.fix()
    journal = tree.journals.open(run_.journal or "")
    assert journal.end and began < journal.end.at <= time.time_ns()
    assert list(run_.events.read("failed")) == []
