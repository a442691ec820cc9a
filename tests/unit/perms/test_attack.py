"""An attacker who may write to the tree swaps what is in it, thousands of times, while root fixes it."""

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

from .conftest import GID, UID, Tree, facts

_FOLDERS = 120
_SWAPS = 30_000


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


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_outside_ever_changes(tree: Tree, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processes)))
    for number in range(_FOLDERS):
        for name in ("a", "b"):
            tree.file(f"project/app/{number}/{name}")
    # Beside the tree, on the same file system, so that links are possible.
    for name in ("inner", "a", "b", "run.sh"):
        tree.file(f"outside/{name}", 0o600)
    outside = tree.path / "outside"
    outside.chmod(0o700)
    inside = Tree(tree.path / "project")
    names = (".", "inner", "a", "b", "run.sh")
    before = [facts(outside / name) for name in names]
    changed, runs = 0, 0
    deadline = time.monotonic() + 100
    with attacker(inside.path / "app", outside) as swaps:
        while runs < 8 or struct.unpack("=Q", swaps[:])[0] < _SWAPS:
            assert time.monotonic() < deadline, f"{swaps[:]!r} swaps in {runs} runs"
            changed += inside.fix().tally.changed
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
