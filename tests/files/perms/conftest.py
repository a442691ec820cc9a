"""Tests of permissions need real owners: they run as root, and become an ordinary user where that is the point.

Without root they are skipped on a laptop, and the run says so; with CI=true they fail.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stackhand.perms import run
from stackhand.perms.journal import Journals
from stackhand.perms.policy.rules import PathRule, Rules, Target
from stackhand.perms.result import Result
from stackhand.perms.tree.entry import TICK
from stackhand.settings import Perms
from stackhand.state.folder import StateFolder

UID, GID = 4321, 4322
TOP = (".env", "*.env", "run.sh", "compose.yaml")


@dataclass
class Tree:
    """A project's folder, and what is done to it."""

    path: Path
    special: dict[str, dict[str, PathRule]] = field(default_factory=dict)
    keeps_executable: bool = False

    def file(self, name: str | bytes, mode: int = 0o666, content: bytes = b"", uid: int = 0, gid: int = 0) -> Path:
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.path), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.chown(path, uid, gid)
        path.chmod(mode)
        return path

    def folder(self, name: str, mode: int = 0o777, uid: int = 0, gid: int = 0) -> Path:
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, uid, gid)
        path.chmod(mode)
        return path

    def rules(self, uid: int = UID, gid: int = GID) -> Rules:
        usual = Perms()
        special = {"": {".stackhand": PathRule()}, **self.special}
        return Rules(
            Target(uid, gid, str(uid), str(gid)),
            usual.roots,
            usual.secrets,
            usual.executable,
            TOP,
            special,
            keeps_executable=self.keeps_executable,
        )

    @property
    def journals(self) -> Journals:
        return Journals(self.state.private)

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.path)

    def check(self, **target: int) -> Result:
        return run.check(self.path, self.rules(**target), (), self.state)

    def fix(self, **target: int) -> Result:
        with self.state.lock("perms.fix"):
            return run.fix(self.path, self.rules(**target), (), self.state)

    def settle(self) -> None:
        """Let the clock tick, so that what was just made counts as old."""
        until = time.time_ns() + TICK
        while time.time_ns() < until:
            pass

    def look(self) -> dict[str, tuple[int, int, int]]:
        """Return owner, group and mode of everything, but stackhand's own folder."""
        found = {}
        for folder, folders, files in os.walk(os.fsencode(self.path)):
            folders[:] = [name for name in folders if name != b".stackhand"]
            for name in [b".", *folders, *files]:
                path = os.path.join(folder, name)
                found[os.fsdecode(os.path.relpath(path, os.fsencode(self.path)))] = facts(path)
        return found


def facts(path: Path | bytes) -> tuple[int, int, int]:
    seen = os.lstat(path)
    return seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)


def as_user(work: Callable[[], object], uid: int = UID, gid: int = GID) -> None:
    """Do something in a process of an ordinary user's; what it raises fails the test."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("tests of permissions are required here, and need root", pytrace=False)
        pytest.skip("TESTS OF PERMISSIONS NEED ROOT: sudo -E env PATH=$PATH pytest tests/files")


@pytest.fixture
def tree() -> Iterator[Tree]:
    # Not tmp_path, which only root may enter.
    path = Path(tempfile.mkdtemp(prefix="stackhand-perms-"))
    path.chmod(0o755)
    yield Tree(path)
    shutil.rmtree(path)
