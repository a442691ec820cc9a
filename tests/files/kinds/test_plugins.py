"""Kinds that other packages bring, first of all the one that the documentation shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import project, service
from shells import Shell, context, running
from support import CHECKOUT

from stackhand.checks.check import NoAnswer
from stackhand.errors import BrokenKind, UnknownKind
from stackhand.kinds import registry

Install = Callable[[str, str, str], None]
DOCUMENT = (CHECKOUT / "docs/kinds.md").read_text(encoding="utf-8")


def _shown(language: str, file: str) -> str:
    """Return a file that the documentation shows."""
    found = re.search(rf"```{language}\n# {re.escape(file)}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, f"docs/kinds.md no longer shows {file}"
    return found[1]


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    registry.kinds.cache_clear()
    yield
    registry.kinds.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Makes a module findable as an installed distribution with one entry point in our group."""
    modules: list[str] = []

    def make(module: str, code: str, entry: str) -> None:
        site = tmp_path / "site"
        folder = site / f"{module}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[stackhand.kinds]\n{entry}\n")
        (site / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        modules.append(module)

    yield make
    for module in modules:
        sys.modules.pop(module, None)


# A small server of MySQL's client: it knows the users in a file, and keeps what it is told.
MYSQL = """#!/bin/sh
here=${0%/*}
[ "$MYSQL_PWD" = root-word ] || { echo "ERROR 1045 (28000): Access denied" >&2; exit 1; }
said=$(cat)
printf '%s\\n' "$said" >> "$here/said"
case $said in SELECT*user*) cat "$here/users";; CREATE*) echo app >> "$here/users";; esac
"""


def test_the_kind_of_the_documentation(tmp_path: Path, install: Install) -> None:
    """As installed from the two files that are shown: found, recognised, asked and acted with."""
    entry = re.search(r'entry-points."stackhand.kinds"\]\n(.*)', _shown("toml", "pyproject.toml"))
    assert entry
    install("stackhand_mysql", _shown("python", "stackhand_mysql.py"), entry[1].replace('"', ""))

    environment = {"MYSQL_USER": "app", "MYSQL_PASSWORD": "it's", "MYSQL_DATABASE": "shop"}
    db = service("db", image="mariadb:11", environment={**environment, "MYSQL_ROOT_PASSWORD": "root-word"})
    other = {"DB_HOST": "db", "DB_USER": "reports", "DB_PASSWORD": "x"}
    api = service("api", environment={"DATABASE_URL": "mysql://app:it's@db/shop"})
    made = project(db, api, service("reports", environment=other))
    (kind,) = registry.recognise(made).of("db")
    assert kind.name == "mysql"
    assert registry.data_kind(db) == "mysql"

    shell = Shell(tmp_path / "bin", {"mysql": MYSQL}, running("db", "api"))
    (shell.folder / "users").write_text("root\n")
    stage = context(made, shell, tmp_path)
    answers, users = kind.checks()
    assert [each.status for each in answers.run(stage, "db")] == ["ok"]
    found = {each.subject: each for each in users.run(stage, "db")}
    assert {name: each.status for name, each in found.items()} == {"app": "fail", "reports": "fail"}
    assert [name for name, each in found.items() if each.fix] == ["app"]
    found["app"].fix.act()
    said = (shell.folder / "said").read_text()
    assert "CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY 'it''s'; GRANT ALL ON `shop`.* TO 'app'@'%'" in said
    stage.invalidate()
    assert {each.subject: each.status for each in users.run(stage, "db")} == {"app": "ok", "reports": "fail"}
    kind.warm(stage, "db", "SELECT count(*) FROM products")
    assert not any("it's" in word for argv, _ in shell.asked for word in argv)

    stranger = project(service("db", image="mariadb:11", environment={"MYSQL_ROOT_PASSWORD": "wrong"}))
    with pytest.raises(NoAnswer, match="Access denied"):
        kind.collect(context(stranger, shell, tmp_path), "db")


KIND = """
from stackhand.kinds import Kind
class Mine(Kind[None]):
    name = "mine"
    images = frozenset({"mine"})
"""


def test_a_kind_that_is_brought_is_one_of_all(install: Install) -> None:
    install("brings_mine", KIND, "mine = brings_mine:Mine")
    assert [each.name for each in registry.kinds_of(service("it", image="shop/mine:1"))] == ["mine"]
    labelled = service("it", raw={"labels": {"stackhand.kind": "mine"}})
    assert [each.name for each in registry.kinds_of(labelled)] == ["mine"]
    with pytest.raises(UnknownKind) as caught:
        registry.kinds_of(service("it", raw={"labels": {"stackhand.kind": "mime"}}))
    assert caught.value.hint == "did you mean 'mine'?"


@pytest.mark.parametrize(
    ("code", "entry", "says"),
    [
        ("import no_such_module", "mine = broken:Mine", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def Mine(): raise ValueError('not today')", "mine = broken:Mine", "ValueError: not today"),
        ("Mine = dict", "mine = broken:Mine", "no stackhand.kinds.Kind but dict"),
        ("", "mine = broken:Mine", "AttributeError"),
        ("syntax error", "mine = broken:Mine", "SyntaxError"),
        ("Mine = 5", "mine = broken:Mine", "TypeError"),
        (KIND.replace('    name = "mine"\n', ""), "mine = broken:Mine", "it has no name"),
        (KIND.replace('"mine"', '"redis"', 1), "mine = broken:Mine", "there is a kind redis already"),
    ],
)
def test_a_kind_that_cannot_be_loaded(install: Install, code: str, entry: str, says: str) -> None:
    install("broken", code, entry)
    with pytest.raises(BrokenKind) as caught:
        registry.kinds()
    assert caught.value.exit_code == 2
    assert "the kind mine (broken:Mine) cannot be loaded: " in caught.value.message
    assert says in caught.value.message
    assert "broken" in (caught.value.hint or "")
