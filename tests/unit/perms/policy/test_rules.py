"""The rules, without any file."""

from __future__ import annotations

import itertools
import time

import pytest

from stackhand.perms.policy.content import may_hold_a_key, mode_by_content
from stackhand.perms.policy.rules import PLAIN, REST, SECRET, VENDORED, PathRule, Rules, Target, Zone
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


@pytest.mark.parametrize(
    ("head", "mode", "wanted"),
    [
        (b"#!/usr/bin/env python3\n", 0o600, 0o755),
        (b"# !/bin/sh", 0o755, 0o644),
        (b"\x7fELF\x02", 0o755, 0o755),
        (b"\x7fELF\x02", 0o644, 0o644),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644, 0o600),
        (b"-----BEGIN RSA PRIVATE KEY-----\n", 0o644, 0o600),
        (b"\n-----BEGIN PRIVATE KEY-----\n", 0o644, 0o600),
        (
            b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n",
            0o644,
            0o600,
        ),
        (b"-----BEGIN CERTIFICATE-----\nMII\n", 0o600, 0o644),
        (b"-----BEGIN PUBLIC KEY-----\n", 0o600, 0o644),
        (b"PEM = '''\n-----BEGIN PRIVATE KEY-----\n'''", 0o644, 0o644),
        (b"", 0o000, 0o644),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", 0o644, 0o600),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", 0o600, 0o644),
        (b"# created: today\n# public key: age1x\nAGE-SECRET-KEY-1X\n", 0o644, 0o600),
        (b"AGE-SECRET-KEY-1X\n", 0o644, 0o600),
        (b"# of the proxy\r\n\r\n  # and more\r\n-----BEGIN PRIVATE KEY-----\r\n", 0o644, 0o600),
        (b"\xef\xbb\xbf# of the proxy\n-----BEGIN PRIVATE KEY-----\n", 0o644, 0o600),
        (b"# how to make one:\nopenssl genrsa\n-----BEGIN PRIVATE KEY-----\n", 0o644, 0o644),
        (b"A text about -----BEGIN PRIVATE KEY-----\n", 0o600, 0o644),
        # PKCS #8, PKCS #1, EC, PKCS #12; a certificate; a number.
        (bytes.fromhex("308204bd020100300d06092a"), 0o600, 0o600),
        (bytes.fromhex("308204a20201000282010100"), 0o600, 0o600),
        (bytes.fromhex("30770201010420"), 0o400, 0o600),
        (bytes.fromhex("30820a1f0201033082"), 0o600, 0o600),
        (bytes.fromhex("308204bd020100300d06092a"), 0o640, 0o644),
        (bytes.fromhex("308202b030820198a003020102"), 0o600, 0o644),
        (b"0\n", 0o600, 0o644),
    ],
)
def test_modes_by_content(head: bytes, mode: int, wanted: int) -> None:
    assert mode_by_content(head, mode) == wanted


def test_a_key_that_is_called_a_script_is_a_key() -> None:
    assert mode_by_content(b"-----BEGIN PRIVATE KEY-----\n", 0o755, "deploy_key.sh", script=True) == 0o600
    assert mode_by_content(b"echo", 0o644, "go.sh", script=True) == 0o755
    assert mode_by_content(b"", 0o600, "id_rsa.sh", script=True) == 0o755


@pytest.mark.parametrize(
    ("name", "private"),
    [
        *((f"a.{end}", True) for end in ("p12", "PFX", "key", "jks", "keystore", "kdbx", "ppk")),
        ("id_rsa", True),
        ("id_ed25519_work", True),
        ("id_rsa.pub", False),
        ("identity.txt", False),
        ("key", False),
    ],
)
def test_what_may_be_a_key_by_its_name_is_not_opened_up(name: str, private: bool) -> None:
    assert mode_by_content(b"\0\1", 0o600, name) == (0o600 if private else 0o644)
    # Where others can read it now, it is not taken for one.
    assert mode_by_content(b"\0\1", 0o644, name) == 0o644


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
        make(keeps_executable=True),
    ]
    assert len(set(prints)) == len(prints)
    assert make() == make()
