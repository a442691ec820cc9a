"""The rules, without any file."""

from __future__ import annotations

import itertools
import time
from stat import S_IFDIR, S_IFREG

import pytest

from stackhand.perms.policy.content import may_hold_a_key, mode_by_content
from stackhand.perms.policy.rules import PLAIN, REST, SECRET, STRICT, VENDORED, PathRule, Rules, Target, Zone
from stackhand.perms.policy.steps import steps

RULES = Rules(
    Target(1, 1, "a", "a"), ("app", "docker/x", "secrets"), ("secrets", "app/key.txt"), ("*.sh", "bin_?"), (".env",)
)


@pytest.mark.parametrize(
    ("path", "folder", "zone"),
    [
        ("app", True, PLAIN),
        ("app/a/b", False, PLAIN),
        ("app/key.txt", False, SECRET),
        ("app/key.txt.old", False, PLAIN),
        ("application", True, REST),
        ("docker", True, REST),
        ("docker/x/y", True, PLAIN),
        ("secrets", True, SECRET),
        ("secrets/a/b.sh", False, SECRET),
        ("data/secrets", True, REST),
        (".env", False, PLAIN),
        ("data/.env", False, REST),
        ("main.py", False, REST),
        ("app/node_modules/x", True, VENDORED),
        ("app/.git/objects/ab/cd", False, VENDORED),
        (".git", True, REST),
    ],
)
def test_zones(path: str, folder: bool, zone: Zone) -> None:
    assert RULES.zone(path, folder=folder) is zone


@pytest.mark.parametrize(
    ("name", "yes"), [("a.sh", True), (".sh", True), ("a.sh.txt", False), ("bin_x", True), ("bin_xy", False)]
)
def test_scripts_by_name(name: str, yes: bool) -> None:
    assert RULES.is_executable(name) is yes


KEY = b"-----BEGIN PRIVATE KEY-----\n"


def in_a_root(head: bytes, mode: int, name: str = "", *, script: bool = False) -> int:
    """Return the mode that a file of the target user's gets in a plain zone."""
    return RULES.desired(PLAIN, S_IFREG, 1, 1, mode, mode_by_content(head, mode, name, script=script))[2]


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"#!/usr/bin/env python3\n", 0o755),
        (b"# !/bin/sh", 0o644),
        (b"\x7fELF\x02", 0o755),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o600),
        (b"-----BEGIN RSA PRIVATE KEY-----\n", 0o600),
        (b"\n-----BEGIN PRIVATE KEY-----\n", 0o600),
        (b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n", 0o600),
        (b"-----BEGIN CERTIFICATE-----\nMII\n", 0o644),
        (b"-----BEGIN PUBLIC KEY-----\n", 0o644),
        (b"PEM = '''\n-----BEGIN PRIVATE KEY-----\n'''", 0o644),
        (b"", 0o644),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", 0o600),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", 0o644),
        (b"# created: today\n# public key: age1x\nAGE-SECRET-KEY-1X\n", 0o600),
        (b"AGE-SECRET-KEY-1X\n", 0o600),
        (b"# of the proxy\r\n\r\n  # and more\r\n-----BEGIN PRIVATE KEY-----\r\n", 0o600),
        (b"\xef\xbb\xbf# of the proxy\n-----BEGIN PRIVATE KEY-----\n", 0o600),
        (b"# how to make one:\nopenssl genrsa\n-----BEGIN PRIVATE KEY-----\n", 0o644),
        (b"A text about -----BEGIN PRIVATE KEY-----\n", 0o644),
        # A private key in DER: nothing tells it for sure.
        (bytes.fromhex("308204bd020100300d06092a"), 0o644),
    ],
)
def test_modes_by_content(head: bytes, wanted: int) -> None:
    assert in_a_root(head, 0o777) == in_a_root(head, 0o755) == wanted
    # What only its owner may read stays so, whatever is in it.
    assert in_a_root(head, 0o700) == wanted & 0o700
    assert in_a_root(head, 0o750) == wanted & 0o750


def test_a_program_is_one_only_if_it_is_executable() -> None:
    assert in_a_root(b"\x7fELF\x02", 0o644) == 0o644
    assert in_a_root(b"#!/bin/sh", 0o600) == 0o700


def test_a_key_that_is_called_a_script_is_a_key() -> None:
    assert in_a_root(KEY, 0o755, "deploy_key.sh", script=True) == 0o600
    assert in_a_root(b"echo", 0o644, "go.sh", script=True) == 0o755


@pytest.mark.parametrize("name", ["a.p12", "id_rsa", "acme.json", ".netrc", ".my.cnf", ".env", "kubeconfig"])
def test_whatever_its_name_a_private_file_stays_private(name: str) -> None:
    for mode, wanted in (
        (0o600, 0o600),
        (0o400, 0o600),
        (0o000, 0o600),
        (0o640, 0o640),
        (0o660, 0o640),
        (0o666, 0o644),
    ):
        assert in_a_root(b"\0\1", mode, name) == wanted


@pytest.mark.parametrize("name", [".pgpass", ".mylogin.cnf", ".erlang.cookie"])
def test_a_file_that_its_program_takes_only_if_it_is_private_becomes_so(name: str) -> None:
    assert in_a_root(b"db:5432:app:app:word", 0o644, name) == 0o600


@pytest.mark.parametrize("zone", [PLAIN, VENDORED, REST, STRICT], ids=lambda zone: zone.name)
def test_nobody_may_read_afterwards_what_he_may_not_read_now(zone: Zone) -> None:
    """A group stands for its members; root's own group and that of the target user are those of the owner."""
    for kind, mode, usual in itertools.product((S_IFREG, S_IFDIR), range(0o1000), (0o755, 0o644, 0o600)):
        for uid, gid in itertools.product((0, 1, 50), (0, 1, 50)):
            _, new_gid, wanted = RULES.desired(zone, kind, uid, gid, mode, usual)
            assert not wanted & 0o004 & ~mode
            assert not wanted & 0o040 & ~mode
            if gid == 50 and new_gid != gid:
                # Another group reads only what everybody may, or in a folder of others' tools.
                assert wanted & 0o004 or not wanted & 0o040


@pytest.mark.parametrize(
    ("zone", "now", "wanted"),
    [
        (PLAIN, (0, 50, 0o640), (1, 50, 0o640)),
        (PLAIN, (1, 50, 0o640), (1, 50, 0o640)),
        (PLAIN, (0, 50, 0o660), (1, 50, 0o640)),
        (REST, (0, 50, 0o640), (1, 50, 0o640)),
        (VENDORED, (5, 50, 0o640), (1, 50, 0o640)),
        (SECRET, (0, 50, 0o640), (1, 1, 0o600)),
        (PLAIN, (0, 0, 0o640), (1, 1, 0o640)),
        (PLAIN, (0, 50, 0o644), (1, 1, 0o644)),
        (PLAIN, (0, 50, 0o600), (1, 1, 0o600)),
    ],
)
def test_a_private_file_keeps_the_group_that_reads_it(
    zone: Zone, now: tuple[int, int, int], wanted: tuple[int, int, int]
) -> None:
    assert RULES.desired(zone, S_IFREG, *now, 0o644) == wanted


@pytest.mark.parametrize(
    ("path", "folder", "program"),
    [
        ("docker/x/cron.d", True, True),
        ("docker/x/cron.d/backup", False, True),
        ("data/logrotate.d/in/x", False, True),
        ("app/ssh/authorized_keys", False, True),
        ("app/.ssh/config", False, True),
        ("app/ssh/ssh_host_rsa_key", False, True),
        ("app/cron.d", False, False),
        ("app/sudoers.d.old", True, False),
        ("app/node_modules/cron.d", True, False),
        ("secrets/authorized_keys", False, False),
    ],
)
def test_what_a_strict_program_reads_is_known_by_its_name(path: str, folder: bool, program: bool) -> None:
    assert (RULES.zone(path, folder=folder) is STRICT) is program


def test_what_a_strict_program_reads_stays_its_owners_and_is_closed_to_writers() -> None:
    for owner in ((0, 0), (1, 1), (50, 50)):
        for mode, wanted in ((0o644, 0o644), (0o666, 0o644), (0o440, 0o440), (0o600, 0o600), (0o777, 0o755)):
            assert RULES.desired(STRICT, S_IFREG, *owner, mode, 0o644) == (*owner, wanted)
        assert RULES.desired(STRICT, S_IFDIR, *owner, 0o775, 0o755) == (*owner, 0o755)
        # A host key is a key.
        assert RULES.desired(STRICT, S_IFREG, *owner, 0o644, 0o600) == (*owner, 0o600)


MOUNTED = PathRule(data="db", uids=frozenset({999}))


@pytest.mark.parametrize(
    ("mounted", "uid", "gid", "mode", "left"),
    [
        (MOUNTED, 0, 0, 0o600, False),
        (MOUNTED, 1, 1, 0o600, False),
        (MOUNTED, 999, 999, 0o644, True),
        # Nobody of this machine, a system account, a person.
        (MOUNTED, 5555, 5555, 0o644, True),
        (MOUNTED, 1001, 1001, 0o644, False),
        # A person's number is also the container's.
        (PathRule(data="db", uids=frozenset({1001})), 1001, 1001, 0o644, True),
        # Without a way to write, it is only what it alone may read.
        (PathRule(data="db", uids=frozenset({999}), writes=False), 999, 999, 0o644, False),
        (PathRule(data="db", uids=frozenset({999}), writes=False), 999, 999, 0o640, True),
        # Root has opened it to a group of the container.
        (MOUNTED, 0, 999, 0o640, True),
        (MOUNTED, 0, 999, 0o644, False),
        (MOUNTED, 0, 1, 0o640, False),
        # At a data place all is the container's.
        (PathRule(data="db"), 1001, 1001, 0o644, True),
        (PathRule(data="db"), 1, 1, 0o644, False),
    ],
)
def test_what_is_left_to_a_container(mounted: PathRule, uid: int, gid: int, mode: int, left: bool) -> None:
    rules = Rules(Target(1, 1, "a", "a"), (), (), (), is_person=lambda uid: uid == 1001)
    reason = rules.reason_of_container(mounted, uid, gid, mode)
    assert (reason is not None) is left
    assert reason is None or "db" in reason


def test_a_long_comment_is_looked_at_once() -> None:
    began = time.process_time()
    assert not may_hold_a_key((b"#" + b" \t" * 30 + b"\n") * 1000 + b"x" + b" " * 4000)
    assert time.process_time() - began < 0.5


def test_on_the_way_nobody_has_rights_that_he_has_neither_before_nor_after() -> None:
    for old, new in itertools.product(
        (0o000, 0o600, 0o644, 0o666, 0o4755, 0o2777, 0o777), (0o600, 0o644, 0o755, 0o4755)
    ):
        owner, mode = "old", old
        for what, one, _ in steps(1, 1, old, 2, 2, new):
            if what == "owner":
                # The new owner must not get more than he will have.
                assert mode & ~new & 0o7777 == 0
                owner = "new"
            else:
                mode = one
                if owner == "old":
                    assert mode & ~old == 0
        assert (owner, mode) == ("new", new)


def test_rules_that_differ_are_told_apart() -> None:
    def make(**other: object) -> str:
        usual: dict[str, object] = {
            "target": Target(1, 1, "a", "a"),
            "roots": ("app",),
            "secrets": (),
            "executable": (),
        }
        return Rules(**{**usual, **other}).fingerprint()  # type: ignore[arg-type]

    prints = [
        make(),
        make(roots=("app", "b")),
        make(secrets=("app",)),
        make(target=Target(2, 1, "a", "a")),
        make(special={"app": {"x": PathRule(mode=0o600)}}),
        make(special={"app": {"x": PathRule(data="db")}}),
        make(special={"app": {"x": PathRule(data="db", uids=frozenset({5, 6}))}}),
        make(keeps_executable=True),
    ]
    assert len(set(prints)) == len(prints)
    assert make() == make()
