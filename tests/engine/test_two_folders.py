"""Two folders with one project name: nothing of the other's is changed unless somebody says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from shapes import FAST, fingerprint, plain
from support import Project


@pytest.fixture
def other(project: Project) -> Iterator[Project]:
    """The same project name in another folder, with a container of the same service and one more."""
    folder = project.directory.parent / "other"
    folder.mkdir()
    other = replace(project, directory=folder, _background=[])
    other.services(db=plain(environment={"WHO": "other"}), web=plain())
    assert other.inv("services.start", "--no-fixes", env=FAST).code == 0
    yield other
    other.remove()


def test_another_folders_containers_are_changed_only_with_a_yes(project: Project, other: Project) -> None:
    project.services(db=plain(environment={"WHO": "mine"}))
    before = fingerprint(other)
    for words, code in (
        (("services.start",), 4),
        (("services.restart",), 4),
        (("services.restart", "-s", "db"), 4),
        (("up.db",), 4),
        (("services.stop",), 4),
        (("services.reset", "--full", "--yes"), 1),
        (("services.reset", "--soft", "--yes"), 1),
        (("--dry", "services.start"), 0),
        (("--dry", "services.reset", "--full"), 1),
    ):
        result = project.inv(*words, env=FAST)
        assert result.code == code, result
        assert str(other.directory) in result.stdout + result.stderr, result
    assert fingerprint(other) == before
    document = project.inv("services.start", "--json", env=FAST)
    assert (document.code, document.json()["error"]["exit_code"]) == (4, 4)

    web = other.container("web")["Id"]
    assert project.inv("services.start", "--yes", "--no-fixes", env=FAST).code == 0
    assert "WHO=mine" in project.container("db")["Config"]["Env"]
    assert project.container("web")["Id"] == web
    # From here on it is the other folder that has to ask, and this one has not.
    assert project.inv("services.restart", "-s", "db", "--no-fixes", env=FAST).code == 0
    assert other.inv("up.db", env=FAST).code == 4
    assert other.inv("up.db", "--yes", env=FAST).code == 0


def test_a_folder_that_was_moved_is_the_same_project(project: Project) -> None:
    project.services(db=plain())
    assert project.inv("services.start", "--no-fixes", env=FAST).code == 0
    moved = replace(project, directory=project.directory.rename(project.directory.parent / "moved"), _background=[])
    moved.services(db=plain(environment={"A": "2"}))
    assert moved.inv("services.start", "--no-fixes", env=FAST).code == 0
    assert moved.inv("services.reset", "--full", "--yes", "--no-fixes", env=FAST).code == 0
    moved.directory.rename(project.directory)
