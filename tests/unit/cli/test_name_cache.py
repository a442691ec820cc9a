"""The remembered service names: read again whenever a compose file may have changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from builders import needs, project, service

from stackhand.cli import name_cache
from stackhand.cli.name_cache import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text("include: [more.yaml]\nservices: {}\n")
    (tmp_path / "more.yaml").write_text("services: {a: {extends: {file: base/base.yml, service: b}}}\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/base.yml").write_text("services: {}\n")
    (tmp_path / ".env").write_text("A=1\n")
    return tmp_path


def change(path: Path) -> None:
    path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "name", ["compose.yaml", "more.yaml", "base/base.yml", ".env", "compose.override.yaml", "docker-compose.yml"]
)
def test_a_change_of_any_file_in_use_counts(folder: Path, name: str) -> None:
    before = fingerprint(folder, {})
    assert before
    change(folder / name)
    # A second main file is not in use; Compose takes the first of its names.
    assert (fingerprint(folder, {}) != before) is (name != "docker-compose.yml")


def test_a_file_of_the_same_size_and_another_time_counts(folder: Path) -> None:
    before = fingerprint(folder, {})
    path = folder / "compose.yaml"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert fingerprint(folder, {}) != before


@pytest.mark.parametrize(
    "environ",
    [{"COMPOSE_FILE": "more.yaml"}, {"COMPOSE_PROFILES": "dev"}, {"COMPOSE_PROJECT_NAME": "x"}],
)
def test_the_environment_of_compose_counts(folder: Path, environ: dict[str, str]) -> None:
    assert fingerprint(folder, environ) != fingerprint(folder, {})


def test_other_variables_do_not(folder: Path) -> None:
    assert fingerprint(folder, {"PATH": "/x"}) == fingerprint(folder, {})


def test_a_removed_file_counts(folder: Path) -> None:
    before = fingerprint(folder, {})
    (folder / "more.yaml").unlink()
    assert fingerprint(folder, {}) != before


@pytest.mark.parametrize("mention", ["include: ['${WHICH}.yaml']", "include: [$WHICH/x.yml]"])
def test_what_can_not_be_followed_is_never_remembered(folder: Path, mention: str) -> None:
    (folder / "compose.yaml").write_text(mention)
    assert fingerprint(folder, {}) == ""


def test_files_that_mention_each_other_end(folder: Path) -> None:
    (folder / "more.yaml").write_text("# compose.yaml more.yaml\n")
    assert fingerprint(folder, {})


class Whole:
    """Stands in for reading the project with all its profiles; counts how often it was read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> Any:
        self.reads += 1
        return project(service("db"), service("api", needs("db", "service_healthy", required=False)))


def test_reading_twice_asks_once(folder: Path) -> None:
    whole = Whole()
    first, second = name_cache.read(folder, {}, whole), name_cache.read(folder, {}, whole)
    assert first == second == {"db": [], "api": ["service_healthy 0 db"]}
    assert whole.reads == 1
    change(folder / "base/base.yml")
    name_cache.read(folder, {}, whole)
    assert whole.reads == 2


def folders_of_ours(root: Path) -> list[str]:
    return [str(path.parent.relative_to(root)) for path in root.rglob(".stackhand")]


@pytest.mark.parametrize("by", ["environment", ".env"])
def test_names_are_remembered_in_the_folder_of_the_project_alone(tmp_path: Path, by: str) -> None:
    for name in ("project", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "project/compose.yaml").write_text("services: {}\n")
    chosen = "COMPOSE_FILE=../project/compose.yaml"
    if by == ".env":
        (tmp_path / "here/.env").write_text(chosen)
    environ = dict([chosen.split("=")]) if by == "environment" else {}
    whole = Whole()
    for _ in range(2):
        name_cache.read(tmp_path / "here", environ, whole)
    assert (folders_of_ours(tmp_path), whole.reads) == (["project"], 1)


def test_a_link_to_a_file_of_another_folder_counts_where_it_lies(tmp_path: Path) -> None:
    for name in ("template", "shop"):
        (tmp_path / name).mkdir()
    (tmp_path / "template/compose.yaml").write_text("services: {}\n")
    (tmp_path / "shop/compose.yaml").symlink_to(tmp_path / "template/compose.yaml")
    name_cache.read(tmp_path / "shop", {}, Whole())
    assert folders_of_ours(tmp_path) == ["shop"]


def test_a_file_that_is_not_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_FILE=https://example.com/shop.git")
    name_cache.read(tmp_path, {}, Whole())
    assert set(folders_of_ours(tmp_path)) <= {"."}


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    name_cache.read(folder, {}, Whole(), dry=True)
    assert folders_of_ours(folder) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', "null", '{"services": {}}'])
def test_a_damaged_memory_is_no_obstacle(folder: Path, text: str) -> None:
    (folder / ".stackhand").mkdir()
    (folder / ".stackhand/catalogue.json").write_text(text)
    whole = Whole()
    assert set(name_cache.read(folder, {}, whole)) == {"db", "api"}
    assert json.loads((folder / ".stackhand/catalogue.json").read_text())["services"]


def test_a_folder_that_can_not_be_written(folder: Path) -> None:
    (folder / ".stackhand").write_text("in the way")
    whole = Whole()
    assert set(name_cache.read(folder, {}, whole)) == {"db", "api"}
