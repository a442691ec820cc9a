"""Fixing real trees, with real owners."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackhand.perms import undo
from stackhand.perms.policy.rules import PathRule
from stackhand.perms.tree import evaluate, workers
from stackhand.perms.tree.cursor import MOUNTED

from .conftest import GID, UID, Tree, as_user, facts

MINE = (UID, GID)


@pytest.fixture(autouse=True, params=["one by one", "together"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have all of it hold both where files are taken one by one and where worker processes take plain ones together."""
    if request.param == "together":
        monkeypatch.setattr(workers, "_WORTH_IT", 0)
        monkeypatch.setattr(workers, "_SHARES", 0)
        fix = Tree.fix

        def settled(tree: Tree, **target: int) -> object:
            tree.settle()
            return fix(tree, **target)

        monkeypatch.setattr(Tree, "fix", settled)
    return bool(request.param == "together")


def test_every_rule_at_once_and_a_second_run_finds_nothing(tree: Tree) -> None:
    wanted = {
        "app/a.py": 0o644,
        "app/deep/er/run.sh": 0o755,
        "app/tool": 0o755,
        "app/tls.key": 0o600,
        "app/recorded": 0o755,
        "secrets/db.txt": 0o600,
        "secrets/sub/run.sh": 0o600,
        "run.sh": 0o755,
        "prod.env": 0o644,
        "data/left": 0o666,
        "data/none": 0o600,
        "app/node_modules/x.js": 0o664,
        "app/env/lib/y.py": 0o640,
        "config/token.txt": 0o600,
    }
    content = {"app/tool": b"#!/bin/sh\n", "app/tls.key": b"-----BEGIN PRIVATE KEY-----\n"}
    kept = {"app/node_modules/x.js": 0o664, "app/env/lib/y.py": 0o640, "data/none": 0o000}
    for name in wanted:
        tree.file(name, kept.get(name, 0o666), content.get(name, b"text"))
    tree.file("app/env/pyvenv.cfg")
    tree.file("data/theirs", 0o666, uid=999, gid=999)
    tree.special = {
        "app": {"recorded": PathRule(mode=0o755, plain=True)},
        "config": {"token.txt": PathRule(mode=0o600)},
    }
    tree.settle()
    wrong = tree.check().counts.wrong
    result = tree.fix()
    assert result.ok
    assert result.counts.changed == wrong > len(wanted)
    for name, mode in wanted.items():
        assert facts(tree.path / name) == (*MINE, mode), name
    assert facts(tree.path / "data/theirs") == (999, 999, 0o666)
    assert facts(tree.path / "app/deep") == (*MINE, 0o755)
    assert facts(tree.path / "secrets/sub") == (*MINE, 0o700)
    after = tree.look()
    second = tree.fix()
    assert (second.counts.wrong, second.journal) == (0, None)
    assert second.counts.scanned == result.counts.scanned
    assert tree.look() == after


def test_what_has_become_a_script_since_is_seen(tree: Tree) -> None:
    tool = tree.file("app/tool", content=b"text", uid=UID, gid=GID)
    tree.settle()
    assert tree.fix().ok
    tree.settle()
    tool.write_bytes(b"#!/bin/sh\n")
    assert [each.path for each in tree.check().events.read("wrong")] == ["app/tool"]


def test_what_was_moved_in_with_its_folder_is_seen(tree: Tree) -> None:
    tree.folder("app", uid=UID, gid=GID)
    tree.file("elsewhere/tool", 0o644, b"#!/bin/sh\n", uid=UID, gid=GID)
    tree.settle()
    assert tree.fix().ok
    assert facts(tree.path / "elsewhere/tool")[2] == 0o644
    tree.settle()
    (tree.path / "elsewhere").rename(tree.path / "app/elsewhere")
    assert "app/elsewhere/tool" in [each.path for each in tree.check().events.read("wrong")]


@pytest.mark.parametrize(
    "name", [b"a\nb", b'it\'s "so"', b"-rf", b"--", b"\xff\xfe", b" ", b"a\\b", "ä☃".encode(), b"$(id)"]
)
def test_any_name(tree: Tree, name: bytes) -> None:
    tree.file(b"app/" + name)
    tree.file(b"secrets/" + name + b"/" + name)
    assert tree.fix().ok
    path = os.fsencode(tree.path)
    assert facts(os.path.join(path, b"app", name)) == (*MINE, 0o644)
    assert facts(os.path.join(path, b"secrets", name, name)) == (*MINE, 0o600)


def test_five_thousand_folders_deep(tree: Tree) -> None:
    tree.folder("app")
    fd = os.open(tree.path / "app", os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)
    result = tree.fix()
    assert result.ok
    assert result.counts.scanned == 5003
    fd = os.open(tree.path / "app", os.O_RDONLY)
    for _ in range(5000):
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    bottom = os.stat("bottom", dir_fd=fd)
    os.close(fd)
    assert (bottom.st_uid, stat.S_IMODE(bottom.st_mode)) == (UID, 0o600)
    assert tree.check().ok
    # shutil.rmtree recurses.
    subprocess.run(["rm", "-rf", tree.path / "app"], check=True)


def test_links_are_not_followed_and_get_their_owner(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    tree.folder("app")
    (tree.path / "app/file").symlink_to(outside / "file")
    (tree.path / "app/folder").symlink_to(outside)
    (tree.path / "logs").symlink_to(outside)
    before = facts(outside), facts(outside / "file")
    assert tree.fix().ok
    assert (facts(outside), facts(outside / "file")) == before
    for name in ("app/file", "app/folder", "logs"):
        assert facts(tree.path / name)[:2] == MINE


def test_hard_links_are_refused(tree: Tree, tmp_path: Path) -> None:
    path = tree.file("app/twice")
    os.link(path, tree.path / "outside-the-roots")
    result = tree.fix()
    assert not result.ok
    assert {each.path for each in result.events.read("refused")} == {"app/twice", "outside-the-roots"}
    assert facts(path) == (0, 0, 0o666)


def test_sockets_devices_and_fifos_are_left_alone(tree: Tree) -> None:
    tree.folder("app")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree.path / "app/socket"))
        os.mkfifo(tree.path / "app/fifo", 0o600)
        os.mknod(tree.path / "app/device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        names = ("app/socket", "app/fifo", "app/device")
        before = [facts(tree.path / name) for name in names]
        tree.file("app/wrong")  # after which the next ones are expected to be wrong, too
        assert tree.fix().ok
        assert [facts(tree.path / name) for name in names] == before


def test_special_bits_stay(tree: Tree) -> None:
    tree.file("app/tool.sh", 0o6777)
    tree.folder("app/shared", 0o3777)
    tree.folder("secrets/shared", 0o2755)
    assert tree.fix().ok
    assert facts(tree.path / "app/tool.sh") == (*MINE, 0o6755)
    assert facts(tree.path / "app/shared") == (*MINE, 0o3755)
    assert facts(tree.path / "secrets/shared") == (*MINE, 0o2700)


def test_a_setuid_file_of_another_user_does_not_become_the_target_users(tree: Tree) -> None:
    path = tree.file("app/tool.sh", 0o4755, uid=999, gid=999)
    result = tree.fix()
    assert [each.path for each in result.events.read("refused")] == ["app/tool.sh"]
    assert facts(path) == (999, 999, 0o4755)


def test_attributes_capabilities_and_access_lists_stay(tree: Tree) -> None:
    path = tree.file("app/tool.sh", 0o777)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(path, "security.capability", capability)
    os.setxattr(path, "user.note", b"mine")
    entries = [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 6, 999),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 6, 0xFFFFFFFF),
        (0x20, 4, 0xFFFFFFFF),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    listed = tree.file("secrets/shared", 0o666)
    os.setxattr(listed, "system.posix_acl_access", acl)
    assert tree.fix().ok
    assert os.getxattr(path, "security.capability") == capability
    assert os.getxattr(path, "user.note") == b"mine"
    # The mask shows as the group's rights, and stays; everybody else has none any more.
    assert facts(listed) == (*MINE, 0o660)
    after = struct.iter_unpack("<HHI", os.getxattr(listed, "system.posix_acl_access")[4:])
    assert [each[:2] for each in after] == [(0x01, 6), (0x02, 6), (0x04, 4), (0x10, 6), (0x20, 0)]
    assert tree.check().ok


def test_a_file_that_vanishes_is_no_failure(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree.file("app/gone")
    tree.file("app/stays")
    real = os.open

    def opening(name: str, *rest: int, **options: int) -> int:
        if name == "gone":
            path.unlink(missing_ok=True)
        return real(name, *rest, **options)

    monkeypatch.setattr(os, "open", opening)
    result = tree.fix()
    assert result.ok
    assert not path.exists()
    assert facts(tree.path / "app/stays") == (*MINE, 0o644)


def test_a_read_only_mount_is_a_failure_that_names_every_file(tree: Tree) -> None:
    tree.file("app/a")
    subprocess.run(["mount", "--bind", tree.path, tree.path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tree.path], check=True)
        result = workers.EventSpool()
        counts = workers.walk(
            str(tree.path),
            tree.rules(),
            workers.LastCleanRun(),
            workers.Writer(os.open(os.devnull, os.O_WRONLY)),
            result,
        )
        assert counts.changed == 0
        assert {each.path for each in result.read("failed")} == {".", "app", "app/a"}
        assert {each.reason for each in result.read("failed")} == {"Read-only file system"}
    finally:
        subprocess.run(["umount", tree.path], check=True)


def test_other_file_systems_are_left_alone(tree: Tree) -> None:
    inner = tree.folder("app/mounted")
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    try:
        (inner / "file").write_text("x")
        (inner / "file").chmod(0o666)
        result = tree.fix()
        assert [each.path for each in result.events.read("left")] == ["app/mounted"]
        assert facts(inner / "file") == (0, 0, 0o666)
    finally:
        subprocess.run(["umount", inner], check=True)


def test_what_a_container_owns_is_left_alone_with_the_reason(tree: Tree) -> None:
    tree.file("docker/db/PG_VERSION", 0o600, uid=999, gid=999)
    tree.special = {"docker": {"db": PathRule(leave="Postgres data of db")}}
    result = tree.fix()
    assert result.ok
    assert [tuple(each) for each in result.events.read("left")] == [("left", "docker/db", "Postgres data of db")]
    assert facts(tree.path / "docker/db/PG_VERSION") == (999, 999, 0o600)


@pytest.mark.parametrize(
    ("mark", "uid", "mode", "left"),
    [
        # Below the folder that is mounted, or where no compose file tells of it.
        ("PG_VERSION", 999, 0o700, True),
        ("dump.rdb", 999, 0o755, True),
        # Postgres as the target user does not start with a wider mode.
        ("PG_VERSION", UID, 0o700, True),
        ("PG_VERSION", UID, 0o750, True),
        ("dump.rdb", UID, 0o700, False),
        ("PG_VERSION", 0, 0o755, False),
        ("something", 999, 0o700, False),
    ],
)
def test_the_data_of_a_database_is_told_by_what_is_in_it(
    tree: Tree, mark: str, uid: int, mode: int, left: bool
) -> None:
    tree.file(f"docker/db/pgdata/{mark}", 0o600, uid=uid, gid=uid)
    tree.folder("docker/db/pgdata", mode, uid=uid, gid=uid)
    result = tree.fix()
    assert result.ok
    assert [each.path for each in result.events.read("left")] == ["docker/db/pgdata"] * left
    assert facts(tree.path / "docker/db") == (UID, GID, 0o755)
    kept = (uid, uid, mode), (uid, uid, 0o600)
    fixed = (UID, GID, mode), (UID, GID, 0o600)
    found = facts(tree.path / "docker/db/pgdata"), facts(tree.path / f"docker/db/pgdata/{mark}")
    assert found == (kept if left else fixed)
    assert not tree.check().counts.wrong


def test_what_a_container_made_in_its_data_folder_is_left_alone(tree: Tree) -> None:
    """The folder itself may be root's, as Docker makes it; and what is left alone is told once."""
    tree.file("docker/mq/mnesia/deep/er", 0o600, uid=999, gid=999)
    tree.folder("docker/mq/mnesia/deep", 0o700, uid=999, gid=999)
    tree.folder("docker/mq/mnesia", 0o700, uid=999, gid=999)
    tree.file("docker/mq/cookie", 0o400, uid=999, gid=999)
    (tree.path / "docker/mq/link").symlink_to("cookie")
    os.chown(tree.path / "docker/mq/link", 999, 999, follow_symlinks=False)
    tree.file("docker/mq/in/theirs", 0o600, uid=998, gid=998)
    tree.file("docker/mq/in/roots")
    tree.file("data/store/theirs", 0o000, uid=999, gid=999)
    tree.special = {"docker": {"mq": PathRule(data="mq")}, "data": {"store": PathRule(data="db")}}
    left = ["docker/mq/mnesia", "docker/mq/cookie", "docker/mq/link", "docker/mq/in/theirs", "data/store/theirs"]
    before = [facts(tree.path / name) for name in (*left, "docker/mq/mnesia/deep/er")]
    result = tree.fix()
    assert result.ok
    told = {each.path: each.reason for each in result.events.read("left")}
    assert sorted(told) == sorted(left)
    assert told["docker/mq/mnesia"] == "it is data of mq, and its container has given it to uid 999"
    assert [facts(tree.path / name) for name in (*left, "docker/mq/mnesia/deep/er")] == before
    assert facts(tree.path / "docker/mq") == facts(tree.path / "docker/mq/in") == (*MINE, 0o755)
    assert facts(tree.path / "docker/mq/in/roots") == (*MINE, 0o644)
    assert not tree.check().counts.wrong


def test_what_a_container_left_in_the_source_code_changes(tree: Tree) -> None:
    path = tree.file("app/__pycache__/a.pyc", 0o644, uid=999, gid=999)
    private = tree.file("app/__pycache__/b.pyc", 0o600, uid=999, gid=999)
    assert tree.fix().ok
    assert facts(path) == (*MINE, 0o644)
    assert facts(private) == (*MINE, 0o600)


def test_private_keys_stay_their_owners(tree: Tree) -> None:
    key = b"-----BEGIN PRIVATE KEY-----\n"
    bundle = b"-----BEGIN CERTIFICATE-----\n" + b"MII\n" * 3000 + b"-----END CERTIFICATE-----\n" + key
    contents = {
        "app/deploy_key.sh": key,
        "app/recorded": key,
        "app/chain.pem": bundle,
        "app/bags.pem": b"Bag Attributes\n" + bundle,
        "app/store.p12": b"\0\0\0",
        "app/id_ed25519": b"x",
        "scripts/age.txt": b"# public\nAGE-SECRET-KEY-1\n",
    }
    for name, content in contents.items():
        tree.file(name, 0o600, content)
    tree.file("app/public.p12", 0o640, b"\0\0\0")
    tree.file("app/certificates.pem", 0o644, bundle.removesuffix(key))
    tree.special = {"app": {"recorded": PathRule(mode=0o755, plain=True)}}
    assert tree.fix().ok
    assert {name: oct(facts(tree.path / name)[2]) for name in contents} == dict.fromkeys(contents, oct(0o600))
    assert facts(tree.path / "app/public.p12") == (*MINE, 0o640)
    assert facts(tree.path / "app/certificates.pem") == (*MINE, 0o644)
    tree.settle()
    assert not tree.check().counts.wrong
    (tree.path / "app/deploy_key.sh").chmod(0o755)
    assert [each.path for each in tree.check().events.read("wrong")] == ["app/deploy_key.sh"]


def test_what_only_its_owner_may_read_or_enter_stays_so(tree: Tree) -> None:
    """Owner, mode and what becomes of them; and the plan says the same as the fix."""
    private = {
        ".env": (0o600, 0o600),
        "prod.env": (0o660, 0o640),
        "compose.yaml": (0o600, 0o600),
        "app/x.env": (0o640, 0o640),
        "app/open.env": (0o666, 0o644),
        "config/acme.json": (0o600, 0o600),
        "config/go.sh": (0o700, 0o700),
        "config/for-the-group.sh": (0o750, 0o750),
        "docker/none": (0o000, 0o600),
        "docs/run-only.sh": (0o711, 0o711),
        "data/kept": (0o600, 0o600),
    }
    for name, (mode, _) in private.items():
        tree.file(name, mode, b"text")
    folders = {"config/in": 0o700, "config/group": 0o2770, "config/pass": 0o711, "config/none": 0o000}
    for name, mode in folders.items():
        tree.file(f"{name}/open", 0o644)
        tree.folder(name, mode)
    listed = tree.file("config/listed", 0o600)
    acl = [(0x01, 6, 2**32 - 1), (0x02, 4, 999), (0x04, 0, 2**32 - 1), (0x10, 4, 2**32 - 1), (0x20, 0, 2**32 - 1)]
    os.setxattr(
        listed, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in acl)
    )
    tree.settle()
    planned = tree.check()
    result = tree.fix()
    assert result.ok
    assert result.counts.changed == planned.counts.wrong
    assert {name: facts(tree.path / name) for name in private} == {
        name: (*MINE, wanted) for name, (_, wanted) in private.items()
    }
    found = {name: facts(tree.path / name)[2] for name in folders}
    assert found == {"config/in": 0o700, "config/group": 0o2750, "config/pass": 0o711, "config/none": 0o700}
    # Its mask shows as the group's rights. The list, and those who are on it, stay.
    assert facts(listed) == (*MINE, 0o640)
    assert tree.check().counts.wrong == 0
    after = tree.look()
    assert tree.fix().journal is None
    assert tree.look() == after


def test_what_strict_programs_read_is_left_to_root_and_named(tree: Tree) -> None:
    modes = {
        "docker/cron.d/backup": 0o644,
        "docker/sudoers.d/app": 0o440,
        "config/ssh/authorized_keys": 0o600,
        "config/ssh/ssh_host_rsa_key": 0o600,
        "data/logrotate.d/x": 0o644,
        "docker/etc/mine": 0o644,
        "docker/jobs/x": 0o644,
    }
    for name, mode in modes.items():
        tree.file(name, mode, b"text")
    tree.special = {"docker/etc": {"mine": PathRule(strict="cron")}, "docker": {"jobs": PathRule(strict="cron")}}
    loose = tree.file("docker/cron.d/loose", 0o666)
    key = tree.file("config/ssh/ssh_host_ed25519_key", 0o644, b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    theirs = tree.file("docker/cron.d/in/theirs", 0o664, uid=UID, gid=GID)
    result = tree.fix()
    assert result.ok
    assert {name: facts(tree.path / name) for name in modes} == {name: (0, 0, mode) for name, mode in modes.items()}
    assert facts(tree.path / "docker/cron.d") == (0, 0, 0o755)
    # Only what others could write to, or a key that they could read, is closed.
    assert (facts(loose), facts(key), facts(theirs)) == ((0, 0, 0o644), (0, 0, 0o600), (*MINE, 0o644))
    told = {each.path: each.reason for each in result.events.read("left")}
    assert set(told) == {
        *("docker/cron.d", "docker/sudoers.d", "data/logrotate.d", "docker/etc/mine", "docker/jobs"),
        *(f"config/ssh/{name}" for name in ("authorized_keys", "ssh_host_rsa_key", "ssh_host_ed25519_key")),
    }
    assert told["docker/cron.d"].startswith("cron refuses files that root does not own")
    assert tree.check().counts.wrong == 0


def test_what_a_container_wrote_as_its_own_user_stays_its_own(tree: Tree) -> None:
    """In a folder that is mounted anywhere; and in the project's folder, if that is mounted itself."""
    names = ("app/cache/x", "app/in/cache/y", "config/z", "top", "app/pyc")
    for name in names:
        tree.file(name, 0o644, uid=999, gid=999)
    people = tree.file("app/people", 0o644, uid=4000, gid=4000)
    roots = tree.file("app/roots", 0o644)
    group = tree.file("app/group", 0o640, gid=999)
    mounted = PathRule(data="web", uids=frozenset({999}))
    tree.special = {"": {"app": mounted, ".": replace(mounted, data="all")}}
    before = [facts(tree.path / name) for name in names]
    result = tree.fix()
    assert result.ok
    assert [facts(tree.path / name) for name in names] == before
    assert facts(people) == facts(roots) == (*MINE, 0o644)
    assert facts(group) == (0, 999, 0o640)
    told = {each.path: each.reason for each in result.events.read("left")}
    assert told["app/pyc"] == "web runs as uid 999, which owns it"
    assert told["config/z"] == "all runs as uid 999, which owns it"
    assert tree.check().counts.wrong == 0


def test_where_git_can_not_be_asked_what_is_executable_stays_so(tree: Tree) -> None:
    for folder in ("app", "app/nested", "app/nested/in"):
        tree.file(f"{folder}/tool", 0o755, b"text")
        tree.file(f"{folder}/short", 0o755)
        tree.file(f"{folder}/plain", 0o646, b"text")
    tree.folder("app/nested/.git")
    assert tree.fix().ok
    tools = [facts(tree.path / f"{folder}/tool")[2] for folder in ("app", "app/nested", "app/nested/in")]
    # Another repository was not asked what it records.
    assert tools == [0o644, 0o755, 0o755]
    assert facts(tree.path / "app/nested/in/plain")[2] == 0o644
    for name in ("tool", "short"):
        (tree.path / f"app/{name}").chmod(0o755)
    tree.keeps_executable = True
    assert tree.check().ok
    tree.keeps_executable = False
    assert {each.path for each in tree.check().events.read("wrong")} == {"app/tool", "app/short"}


def test_few_descriptors_are_enough(tree: Tree) -> None:
    for number in range(300):
        tree.file(f"app/{number}")

    def work() -> None:
        free = len(os.listdir("/proc/self/fd")) + 25  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
        result = tree.fix()
        assert result.ok, list(result.events.read("failed"))
        assert result.counts.changed == 302

    as_user(work, uid=0, gid=0)
    assert tree.look()["app/299"] == (*MINE, 0o644)


def test_files_that_are_held_together_fail_one_by_one(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure is told, its file keeps the mode it had, and the others of its kind are done."""
    paths = [tree.file(f"app/{number}") for number in range(70)]
    inode = paths[41].stat().st_ino
    real: dict[str, Any] = {"chown": os.chown, "fchown": os.fchown}

    def refusing(name: str) -> None:
        def change(fd: int, uid: int, gid: int, **options: bool) -> None:
            if os.stat(fd).st_ino == inode:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            real[name](fd, uid, gid, **options)

        monkeypatch.setattr(os, name, change)

    refusing("chown")
    refusing("fchown")
    result = tree.fix()
    assert [each.path for each in result.events.read("failed")] == ["app/41"]
    assert facts(paths[41]) == (0, 0, 0o666)
    assert {facts(path) for path in paths if path != paths[41]} == {(*MINE, 0o644)}
    assert (result.counts.wrong, result.counts.changed) == (72, 71)
    assert not result.ok


def test_whose_it_was_can_not_widen_the_mode_just_before_it_is_no_longer_his(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tree.file(f"app/{number}", uid=10001, gid=10001) for number in range(5)]
    inodes = {path.stat().st_ino for path in paths}

    def widening(name: str) -> None:
        real = getattr(os, name)

        def change(fd: int, uid: int, gid: int, **options: bool) -> None:
            if os.stat(fd).st_ino in inodes:
                os.chmod(fd, 0o666)
            real(fd, uid, gid, **options)

        monkeypatch.setattr(os, name, change)

    widening("chown")
    widening("fchown")
    assert tree.fix().ok
    assert {facts(path) for path in paths} == {(*MINE, 0o644)}


def test_a_file_that_can_not_be_looked_at_costs_no_other(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        tree.file(f"app/one/f{number}")
    (tree.path / "app/one/link").symlink_to("f1")
    tree.file("app/two/f")
    inode, real = (tree.path / "app/one/f3").stat().st_ino, os.fstat

    def stale(fd: int) -> os.stat_result:
        seen = real(fd)
        if seen.st_ino == inode:
            raise OSError(errno.ESTALE, "Stale file handle")
        return seen

    monkeypatch.setattr(os, "fstat", stale)
    result = tree.fix()
    monkeypatch.undo()
    assert [(each.path, each.reason) for each in result.events.read("failed")] == [("app/one/f3", "Stale file handle")]
    assert [path for path, found in tree.look().items() if found[:2] != MINE] == ["app/one/f3"]
    journal = undo.choose(tree.journals, None)
    assert journal is not None
    assert undo.undo(tree.path, journal, tree.journals).restored == result.counts.changed


def test_a_mark_of_a_virtual_environment_is_not_followed(tree: Tree) -> None:
    """Where a container could have it lead must make no difference: it would tell what there is on this machine."""
    tree.file("app/one/file")
    tree.file("app/two/file")
    (tree.path / "app/one/pyvenv.cfg").symlink_to("/etc/passwd")
    (tree.path / "app/two/pyvenv.cfg").symlink_to("/etc/nothing")
    assert tree.fix().ok
    assert tree.look()["app/one/file"] == tree.look()["app/two/file"] == (*MINE, 0o666)


def test_a_file_system_that_takes_calls_and_does_nothing_is_no_success(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        tree.file(f"app/{number}")
    for name in ("chown", "fchown"):
        monkeypatch.setattr(os, name, lambda *_, **__: None)
    result = tree.fix()
    failed = {each.path: each.reason for each in result.events.read("failed")}
    assert set(failed) == {".", "app", "app/0", "app/1", "app/2"}
    assert set(failed.values()) == {"the file system does not take owners or modes"}
    assert result.counts.changed == 0


def test_when_descriptors_run_out_what_is_held_is_done_first(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        tree.file(f"app/{number}")
    real, held = evaluate.Entry, 0

    def opening(*given: object) -> object:
        nonlocal held
        if held == 7:
            held = 0
            raise OSError(errno.EMFILE, "Too many open files")
        held += 1
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "Entry", opening)
    assert tree.fix().ok
    monkeypatch.undo()
    assert not tree.check().counts.wrong


@pytest.mark.parametrize("likely_wrong", [False, True])
def test_what_can_not_be_looked_at_is_no_success(tree: Tree, likely_wrong: bool) -> None:
    """Names can be listed where nothing can be looked up."""
    os.chown(tree.path, UID, GID)
    tree.path.chmod(0o755)
    tree.file("data/listed/roots")
    tree.file("data/listed/folder/in")
    tree.folder("data/listed", 0o744, uid=999, gid=999)
    os.chown(tree.folder("data", 0o755), UID, GID)
    if likely_wrong:
        tree.special = {"data/listed": {"roots": PathRule(mode=0o600)}}

    def work() -> None:
        for result in (tree.check(), tree.fix()):
            assert not result.ok
            found = {each.path: each.reason for each in result.events.read("failed")}
            assert found == dict.fromkeys(("data/listed/roots", "data/listed/folder"), "Permission denied")

    as_user(work)


def test_a_change_in_part_is_no_success(tree: Tree) -> None:
    os.chown(tree.path, UID, GID)
    os.chown(tree.folder("app", 0o755), UID, 27)
    for number in range(3):
        tree.file(f"app/{number}", 0o666, uid=UID, gid=GID)

    def work() -> None:
        planned = tree.check(gid=27)
        assert all(each.reason.startswith("needs root: ") for each in planned.events.read("wrong"))
        result = tree.fix(gid=27)
        assert not result.ok
        counts = result.counts
        assert (counts.changed, counts.partial, counts.wrong, counts.needs_root) == (0, 3, 3, 3)
        assert [facts(tree.path / f"app/{number}")[2] for number in range(3)] == [0o644] * 3
        assert result.head()["ok"] is False

    as_user(work)


def test_roots_group_counts_where_root_is_the_target(tree: Tree) -> None:
    for name in ("data/in/a", "data/in/b", "app/c"):
        tree.file(name, 0o644)
    os.chown(tree.path / "data/in", 0, 100)
    rest = {"data/in/a", "data/in/b", "data", "app", "app/c", "."}
    assert {each.path for each in tree.check(uid=0, gid=100).events.read("wrong")} == rest
    assert tree.fix(uid=0, gid=100).ok
    assert facts(tree.path / "data/in/a") == (0, 100, 0o644)
    assert not tree.check(uid=0, gid=100).counts.wrong


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_mounted_meanwhile_is_left_alone(tree: Tree, folder: bool) -> None:
    """Not only what is below it: the root of the mount, and a file, are another file system's too."""
    elsewhere = tree.folder("elsewhere")
    subprocess.run(["mount", "-t", "tmpfs", "none", elsewhere], check=True)
    try:
        source = elsewhere / "it"
        source.mkdir() if folder else source.touch()
        source.chmod(0o666)
        point = tree.folder("app/it") if folder else tree.file("app/it")
        subprocess.run(["mount", "--bind", source, point], check=True)
        try:
            result = tree.fix()
            assert ("app/it", MOUNTED) in [(each.path, each.reason) for each in result.events.read("left")]
            assert facts(source) == (0, 0, 0o666)
        finally:
            subprocess.run(["umount", point], check=True)
    finally:
        subprocess.run(["umount", elsewhere], check=True)


def test_an_ordinary_user_does_what_he_may(tree: Tree) -> None:
    os.chown(tree.path, UID, GID)
    tree.file("app/mine", 0o666, uid=UID, gid=GID)
    closed = tree.file("app/closed/inner", 0o000, uid=UID, gid=GID)
    os.chown(closed.parent, UID, GID)
    closed.parent.chmod(0o000)
    os.chown(tree.path / "app", UID, GID)
    roots = tree.file("app/roots", 0o666)

    def work() -> None:
        result = tree.fix()
        assert not result.ok
        assert result.counts.needs_root == 1
        assert [each.path for each in result.events.read("failed")] == ["app/roots"]
        assert result.counts.changed == 3

    as_user(work)
    assert facts(tree.path / "app/mine") == (*MINE, 0o644)
    assert facts(closed) == (*MINE, 0o600)
    assert facts(closed.parent) == (*MINE, 0o700)
    assert facts(roots) == (0, 0, 0o666)
    assert tree.fix().ok
    assert facts(roots) == (*MINE, 0o644)


def test_a_folder_that_may_not_be_read_is_a_failure(tree: Tree) -> None:
    os.chown(tree.path, UID, GID)
    os.chown(tree.folder("app", 0o755), UID, GID)
    tree.folder("data/closed", 0o700, uid=999)

    def work() -> None:
        result = tree.check()
        assert not result.ok
        assert [tuple(each) for each in result.events.read("failed")] == [
            ("failed", "data/closed", "Permission denied")
        ]

    as_user(work)


def test_stackhands_own_folder_becomes_the_target_users_but_not_the_journals(tree: Tree) -> None:
    tree.file("app/a")
    result = tree.fix()
    state = tree.path / ".stackhand"
    for name in (".", "lock", ".gitignore", "perms.json"):
        assert facts(state / name)[:2] == MINE, name
    private = tree.state.private.path
    assert facts(private) == (0, 0, 0o700)
    assert facts(private / f"{result.journal}.jsonl") == (0, 0, 0o600)
    as_user(tree.fix)


def test_several_processes_come_to_the_same(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for number in range(300):
        tree.file(f"app/{number}/a.py")
        tree.file(f"app/{number}/in/run.sh")
    os.link(tree.path / "app/7/a.py", tree.path / "app/8/in/again")
    result = tree.fix()
    assert result.counts.scanned == 2 + 300 * 4 + 1
    assert {each.path for each in result.events.read("refused")} == {"app/7/a.py", "app/8/in/again"}
    assert result.counts.changed == result.counts.scanned - 2
    assert result.counts.by_top_folder["app"][2] == result.counts.changed - 1
    wrong = [path for path, (uid, gid, _) in tree.look().items() if (uid, gid) != MINE]
    assert sorted(wrong) == ["app/7/a.py", "app/8/in/again"]


def test_a_process_that_dies_fails_the_run(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackhand.errors import FixFailed

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for number in range(300):
        tree.folder(f"app/{number}")
    monkeypatch.setattr(workers, "close_devices", lambda: os.kill(os.getpid(), 9))
    result = tree.fix()
    assert not result.ok
    assert isinstance(result.stopped, FixFailed)
    assert "ended early: it was killed" in result.stopped.message
    monkeypatch.undo()
    assert tree.fix().ok
