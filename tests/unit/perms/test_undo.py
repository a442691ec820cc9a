"""Undoing: everything back that nobody has changed since, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from stackhand.errors import JournalRefused, UnknownRun
from stackhand.perms import crew, run, undo
from stackhand.perms.journal import Change, Journals
from stackhand.perms.undo import Undone

from .conftest import GID, UID, Tree, as_user, facts


def put_back(tree: Tree, id: str | None = None, *, dry: bool = False) -> Undone:
    folder = tree.state.open()
    try:
        journals = Journals(folder)
        journal = undo.choose(journals, id)
        if journal is None:
            return Undone(None, tree.path)
        return undo.plan(tree.path, journal) if dry else undo.undo(tree.path, journal, journals)
    finally:
        os.close(folder)


@pytest.fixture
def wrong(tree: Tree) -> Tree:
    tree.file("app/a.py", 0o600)
    tree.file("app/deep/closed/b.sh", 0o4666)
    (tree.path / "app/deep/closed").chmod(0o000)
    tree.file(b"secrets/\xff\n", 0o644, uid=77)
    (tree.path / "app/link").symlink_to("nowhere")
    tree.settle()
    return tree


def test_everything_is_as_it_was(wrong: Tree) -> None:
    before = wrong.look()
    result = wrong.fix()
    assert wrong.look() != before
    assert put_back(wrong, dry=True).restored == result.tally.changed
    assert wrong.look() != before
    done = put_back(wrong)
    assert (done.id, done.restored, done.left, done.ok) == (result.journal, result.tally.changed, 0, True)
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


@pytest.mark.parametrize("how", ["mode", "owner", "content", "replaced", "gone", "linked"])
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
    elif how == "replaced":
        wrong.file("app/new", 0o644, uid=UID, gid=GID).rename(path)
    elif how == "gone":
        path.unlink()
    else:
        os.link(path, wrong.path / "second")
    now = facts(path) if path.exists() else None
    done = put_back(wrong)
    assert (done.restored, done.left) == (result.tally.changed - 1, 1)
    assert [each.path for each in done.notes.read("left")] == ["app/a.py"]
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


def test_root_does_not_do_what_another_users_journal_says(tree: Tree) -> None:
    """Else whoever can write to the project could have root make his program setuid root."""
    os.chown(tree.path, UID, GID)
    program = tree.file("app/a", 0o644, uid=UID, gid=GID)

    def forge() -> None:
        folder = tree.state.open()
        _, writer = Journals(folder).create("perms.fix", "")
        writer.write("app", [Change("a", program.stat().st_ino, 0, 0, 0o4755, UID, GID, 0o644)])

    as_user(forge)
    with pytest.raises(JournalRefused):
        put_back(tree)
    assert facts(program) == (UID, GID, 0o644)


def test_an_ordinary_user_undoes_his_own(tree: Tree) -> None:
    os.chown(tree.path, UID, GID)
    path = tree.file("app/a", 0o600, uid=UID, gid=GID)
    os.chown(tree.path / "app", UID, GID)

    def work() -> None:
        assert tree.fix().ok
        assert facts(path)[2] == 0o644
        assert put_back(tree).restored == 1

    as_user(work)
    assert facts(path) == (UID, GID, 0o600)


def test_killed_in_the_middle_the_journal_is_complete_and_the_next_run_finishes(tree: Tree) -> None:
    for number in range(400):
        tree.file(f"app/{number % 40}/{number}.py")
    tree.settle()
    before = tree.look()
    pid = os.fork()
    if pid == 0:
        # Killed by itself right in a batch, after so many changes.
        real, count = os.chown, 0

        def chown(*args: object, **named: object) -> None:
            nonlocal count
            count += 1
            if count == 150:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **named)  # type: ignore[arg-type]

        os.chown = chown  # type: ignore[assignment]
        tree.fix()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    half = tree.look()
    changed = [path for path, now in half.items() if now != before[path]]
    assert 100 < len(changed) < 300
    folder = tree.state.open()
    (id,) = Journals(folder).ids()
    journal = Journals(folder).open(id)
    os.close(folder)
    named = {f"{at}/{each.name}" if at else each.name for at, changes in journal.backwards() for each in changes}
    assert {path for path in changed if not path.endswith("/.")} - {each.replace("/.", "") for each in named} == set()
    assert tree.fix().ok
    assert tree.check().ok
    put_back(tree)
    assert tree.look() == half
    put_back(tree)
    assert tree.look() == before


def test_a_line_that_was_cut_short_spoils_no_other(wrong: Tree) -> None:
    before = wrong.look()
    result = wrong.fix()
    path = wrong.path / f".stackhand/perms/{result.journal}.jsonl"
    with path.open("ab") as file:
        file.write(b'\n{"folder":"app","changes":[["a.py",1')
    assert put_back(wrong).restored == result.tally.changed
    assert wrong.look() == before


def test_a_full_disk_changes_nothing_that_is_not_journaled(wrong: Tree, tmp_path: Path) -> None:
    before = wrong.look()
    with pytest.raises(OSError, match="No space left"):
        crew.walk(
            str(wrong.path),
            wrong.rules(),
            crew.Known(),
            crew.Writer(os.open("/dev/full", os.O_WRONLY)),
            crew.Notes(),
        )
    assert wrong.look() == before


def test_old_journals_go(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackhand.perms import journal

    monkeypatch.setattr(journal, "KEPT", 2)
    ids = []
    for number in range(3):
        tree.file(f"app/{number}")
        ids.append(tree.fix().journal)
    folder = tree.state.open()
    assert Journals(folder).ids() == [ids[2], ids[1]]
    os.close(folder)


def test_time_of_the_last_line(tree: Tree) -> None:
    began = time.time_ns()
    tree.file("app/a")
    run_ = tree.fix()
    folder = tree.state.open()
    journal = Journals(folder).open(run_.journal or "")
    os.close(folder)
    assert journal.end and began < journal.end["at"] <= time.time_ns()
    assert run.first(run_.notes, 1, "failed") == []
