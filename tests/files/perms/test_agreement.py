"""One rule says which owner and mode an entry should have; whatever looks at entries fast agrees with it."""

from __future__ import annotations

import itertools
import os
import random
import stat
from pathlib import Path

import pytest

from stackhand.perms.policy.content import MODES, usual_mode
from stackhand.perms.policy.rules import PLAIN, REST, SECRET, VENDORED, VOLUME, Zone
from stackhand.perms.tree import workers
from stackhand.perms.tree.plain_files import PlainFiles

from .conftest import GID, UID, Tree, facts

ZONES = (PLAIN, SECRET, VENDORED, REST, VOLUME)
OWNERS = ((0, 0), (UID, GID), (UID, 0), (5000, 5000))
SOME_MODES = (0o000, 0o400, 0o600, 0o644, 0o640, 0o664, 0o755, 0o777, 0o100, 0o2755, 0o4755, 0o1777)
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
CONTENTS = (b"", b"text", b"#!/bin/sh\n", b"\x7fELF", b"-----BEGIN PRIVATE KEY-----\n", b"# a\n" * 2000)
NAMES = ("a.txt", "run.sh", "b.env", "id_rsa", "tls.p12", "readme")
FOLDERS = ("app", "app/node_modules/x", "secrets", "elsewhere", "docker/deep/er")


@pytest.fixture
def rules_of(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
def test_what_the_walk_passes_over_is_right_whatever_its_content(rules_of: Tree, zone: Zone) -> None:
    rules = rules_of.rules()
    for kind, (uid, gid), mode in itertools.product(KINDS, OWNERS, SOME_MODES):
        now, right = (uid, gid, mode), rules.stays(zone, kind, uid, gid, mode)
        outcomes = [rules.desired(zone, kind, uid, gid, mode, usual) for usual in MODES]
        assert (right is True) == all(each == now for each in outcomes)
        assert (right is False) == all(each != now for each in outcomes)


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
def test_what_was_put_right_is_right(rules_of: Tree, zone: Zone) -> None:
    rules = rules_of.rules()
    for kind, owner, mode, usual in itertools.product(KINDS, OWNERS, SOME_MODES, MODES):
        once = rules.desired(zone, kind, *owner, mode, usual)
        assert rules.desired(zone, kind, *once, usual) == once


def made_up(tree: Tree, seed: int) -> dict[str, tuple[int, int, int]]:
    """Make files at random; return what each should become, by the rule alone."""
    chance, rules, desired = random.Random(seed), tree.rules(), {}
    for number in range(150):
        folder, name = chance.choice(FOLDERS), f"{number}-{chance.choice(NAMES)}"
        content, mode, (uid, gid) = chance.choice(CONTENTS), chance.choice(SOME_MODES), chance.choice(OWNERS)
        path = f"{folder}/{name}"
        # Nobody's program is given to somebody else.
        mode &= 0o777 if uid not in (0, UID) else 0o7777
        tree.file(path, mode, content, uid, gid)
        script = rules.is_executable(name)
        zone = rules.zone(path, folder=False)
        usual = usual_mode(content[:4096], mode, name, script=script) if zone is PLAIN else 0o755 if script else 0o644
        desired[path] = rules.desired(zone, stat.S_IFREG, uid, gid, mode, usual)
    return desired


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("way", ["one by one", "together"])
def test_all_ways_come_to_what_the_rule_says(tree: Tree, monkeypatch: pytest.MonkeyPatch, way: str, seed: int) -> None:
    desired = made_up(tree, seed)
    if way == "together":
        monkeypatch.setattr(workers, "_WORTH_IT", 0)
        monkeypatch.setattr(workers, "_SHARES", 0)
        tree.settle()
    before = {path: facts(tree.path / path) for path in desired}
    wrong = {path for path in desired if before[path] != desired[path]}
    named = {each.path for each in tree.check().events.read("wrong")}
    assert named & set(desired) == wrong
    result = tree.fix()
    assert result.ok
    assert {path: facts(tree.path / path) for path in desired} == desired
    # Nothing is wrong now: by the walk that reads contents, and by the one that knows what was right before.
    assert tree.check().counts.wrong == 0
    (tree.path / ".stackhand/perms.json").unlink()
    assert tree.check().counts.wrong == 0


@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
def test_files_that_are_held_together_become_what_the_rule_says(tree: Tree, zone: Zone) -> None:
    rules, expected = tree.rules(), {}
    for number, (content, (uid, gid), mode) in enumerate(itertools.product(CONTENTS, OWNERS, SOME_MODES)):
        if not 0 < mode <= 0o777:
            continue
        name = f"{number}.bin"
        tree.file(f"here/{name}", mode, content, uid, gid)
        usual = usual_mode(content[:4096], mode, name, script=False) if zone is PLAIN else 0o644
        new = rules.desired(zone, stat.S_IFREG, uid, gid, mode, usual)
        if new != (uid, gid, mode):
            expected[name] = (uid, gid, mode, *new)
    tree.settle()
    folder = os.open(tree.path / "here", os.O_RDONLY)
    held = PlainFiles(sorted(each.name for each in (tree.path / "here").iterdir()), folder)
    try:
        wrong = held.wrong(rules, zone, os.fstat(folder).st_dev, 2**62, keeps_executable=False)
    finally:
        held.close()
        os.close(folder)
    assert held.others == []
    assert {name: become for become, files in wrong.items() for name in files.names} == expected
