"""An attacker who may write to the tree swaps what is in it, thousands of times, while root fixes or undoes."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stackhand.perms import undo
from stackhand.perms.journal import Change
from stackhand.perms.tree import workers

from .conftest import GID, UID, Tree, facts

_FOLDERS = 120
_SWAPS = 30_000
_OUTSIDE = ("inner", "a", "b", "run.sh")


@contextmanager
def attacker(app: Path, outside: Path) -> Iterator[mmap.mmap]:
    """Swap folders for symbolic links to `outside`, files for links to a file in it, until the body ends.

    The number of swaps is in the map.
    """
    swaps = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            _attack(app, outside, swaps)
        os._exit(1)
    try:
        yield swaps
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the attacker gave up"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _attack(app: Path, outside: Path, swaps: mmap.mmap) -> None:
    done = 0
    while True:
        for number in range(_FOLDERS):
            folder, aside = app / str(number), app / f"{number}.aside"
            for name in ("a", "b"):
                file = folder / name
                file.unlink()
                os.link(outside / "inner", file)
                file.unlink()
                file.symlink_to(outside / "inner")
                file.unlink()
                file.touch(0o666)
                # The link is there only now and then, so that a count of links may miss it.
                os.link(outside / "inner", folder / "once")
                (folder / "once").unlink()
            for _ in range(10):
                folder.rename(aside)
                folder.symlink_to(outside)
                folder.unlink()
                aside.rename(folder)
            done += 16
            swaps[:] = struct.pack("=Q", done)


def prepare(tree: Tree) -> Path:
    """Make a project, and beside it, on the same file system, so that links are possible, what is outside."""
    for number in range(_FOLDERS):
        for name in ("a", "b"):
            tree.file(f"project/app/{number}/{name}")
    for name in _OUTSIDE:
        tree.file(f"outside/{name}", 0o600)
    outside = tree.path / "outside"
    outside.chmod(0o700)
    return outside


@pytest.mark.parametrize(("processes", "devices_closed"), [(1, True), (2, True), (2, False)])
def test_nothing_outside_ever_changes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, processes: int, devices_closed: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processes)))
    if not devices_closed:
        monkeypatch.setattr(workers, "close_devices", lambda: False)
    outside = prepare(tree)
    inside = Tree(tree.path / "project")
    names = (".", *_OUTSIDE)
    before = [facts(outside / name) for name in names]
    changed, runs = 0, 0
    deadline = time.monotonic() + 100
    with attacker(inside.path / "app", outside) as swaps:
        while runs < 8 or struct.unpack("=Q", swaps[:])[0] < _SWAPS:
            assert time.monotonic() < deadline, f"{swaps[:]!r} swaps in {runs} runs"
            changed += inside.fix().counts.changed
            runs += 1
            assert [facts(outside / name) for name in names] == before
    # It was no fight with somebody who was not there: most of what was right was replaced, and fixed, again.
    assert changed > 2 * 2 * _FOLDERS
    # And once the attacker has gone, all is put right.
    for number in range(_FOLDERS):
        with contextlib.suppress(OSError):
            (inside.path / f"app/{number}.aside").rename(inside.path / f"app/{number}.left")
        for path in (inside.path / f"app/{number}", inside.path / f"app/{number}/once"):
            if path.is_symlink() or path.name == "once":
                path.unlink(missing_ok=True)
        for name in ("a", "b"):
            with contextlib.suppress(OSError):
                (inside.path / f"app/{number}/{name}").unlink()
    inside.fix()
    assert inside.check().ok
    wrong = [path for path, now in inside.look().items() if now[:2] != (UID, GID)]
    assert wrong == []
    assert [facts(outside / name) for name in names] == before


def test_nor_does_it_while_that_is_undone(tree: Tree) -> None:
    outside = prepare(tree)
    inside = Tree(tree.path / "project")
    before = {name: facts(outside / name) for name in (".", *_OUTSIDE)}
    restored, runs = 0, 0
    deadline = time.monotonic() + 100
    with attacker(inside.path / "app", outside) as swaps:
        while runs < 8 or struct.unpack("=Q", swaps[:])[0] < _SWAPS:
            assert time.monotonic() < deadline, f"{swaps[:]!r} swaps in {runs} runs"
            inside.fix()
            journal = undo.choose(inside.journals, None)
            assert journal is not None
            restored += undo.undo(inside.path, journal, inside.journals).restored
            runs += 1
            assert {name: facts(outside / name) for name in before} == before
    # What was not swapped in time was put back, in spite of it.
    assert restored > _FOLDERS


def test_what_a_journal_says_of_the_files_outside_is_not_done(tree: Tree) -> None:
    """The journal knows their inodes, and the names lead to them now and then; only what is below the root counts."""
    outside = prepare(tree)
    inside = Tree(tree.path / "project")
    for name in ("a", "b"):
        os.chown(outside / name, UID, GID)
        (outside / name).chmod(0o644)
    numbers = {name: (outside / name).stat().st_ino for name in ("a", "b")}
    before = {name: facts(outside / name) for name in (".", *_OUTSIDE)}
    _, writer = inside.journals.create("perms.fix", "")
    for number in range(_FOLDERS):
        changes = [Change(name, ino, 0, 0, 0o4777, UID, GID, 0o644) for name, ino in numbers.items()]
        writer.write(f"app/{number}", changes)
    writer.end(failed=0, complete=True)
    writer.close()
    with attacker(inside.path / "app", outside) as swaps:
        while struct.unpack("=Q", swaps[:])[0] < _SWAPS / 2:
            journal = undo.choose(inside.journals, None)
            assert journal is not None
            undone = undo.undo(inside.path, journal, inside.journals)
            assert undone.restored == 0
            assert {name: facts(outside / name) for name in before} == before
            inside.journals.remove(undone.journal or "")
