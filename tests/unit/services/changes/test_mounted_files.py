"""Files that containers are given, and whether they changed since the start."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import START, container, project, service

from stackhand.engine.compose.project import Project
from stackhand.services.changes import mounted_files as mounted

BEFORE, AFTER = (START - timedelta(hours=1)).timestamp(), (START + timedelta(hours=1)).timestamp()


def stack(tmp_path: Path, **volume: Any) -> Project:
    for name in ("secret", "mounted"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, (BEFORE, BEFORE))
    entry = {"type": "bind", "source": str(tmp_path / "mounted"), "target": "/mounted", **volume}
    return project(
        service("api", secrets=("key",)),
        service("web", raw={"volumes": [entry]}),
        secret_files={"key": tmp_path / "secret"},
    )


def causes(made: Project, seen: dict[str, dict[str, str]] | None = None) -> dict[str, str]:
    containers = {name: [container(name)] for name in made.services}
    return mounted.changed(made, containers, mounted.file_stats(made, made.services), seen or {})


def test_written_after_the_start(tmp_path: Path) -> None:
    made = stack(tmp_path)
    assert causes(made) == {}
    os.utime(tmp_path / "secret", (AFTER, AFTER))
    assert causes(made) == {"api": "secret key changed since its start"}
    os.utime(tmp_path / "mounted", (AFTER, AFTER))
    assert causes(made)["web"] == "file mounted changed since its start"


@pytest.mark.parametrize(("hours", "changed"), [(-2, set()), (0, set()), (0.5, set()), (2, {"api", "web"})])
def test_the_clock_of_the_engine_may_be_ahead_or_behind(tmp_path: Path, hours: float, changed: set[str]) -> None:
    """The files were written an hour before the start, if both clocks are right."""
    made, offset = stack(tmp_path), timedelta(hours=hours)
    containers = {name: [container(name)] for name in made.services}
    stats = mounted.file_stats(made, made.services)
    assert set(mounted.changed(made, containers, stats, {}, offset)) == changed
    seen = mounted.runs_to_remember(made, [container("api")], stats, {}, offset)
    assert bool(seen) is not bool(changed)


def test_what_is_remembered_goes_first(tmp_path: Path) -> None:
    made = stack(tmp_path)
    run = container("api")
    seen = mounted.runs_to_remember(made, [run], mounted.file_stats(made, made.services), {})
    assert set(seen) == {run.run_key}
    assert "old" not in str(seen)
    # Another file in its place, which is older still: a copy that was put back.
    (tmp_path / "new").write_text("newer")
    os.utime(tmp_path / "new", (BEFORE - 5, BEFORE - 5))
    (tmp_path / "new").replace(tmp_path / "secret")
    assert causes(made, seen) == {"api": "secret key changed since its start"}
    # Of another run nothing is known.
    assert causes(made, {"another run": {}}) == {}


def test_a_file_that_is_gone_counts_as_changed(tmp_path: Path) -> None:
    made = stack(tmp_path)
    (tmp_path / "secret").unlink()
    assert set(causes(made)) == {"api"}


@pytest.mark.parametrize(
    ("name", "read_only", "counts"),
    [("app.conf", False, True), ("app.log", False, False), ("data.sqlite", False, False), ("data.sqlite", True, True)],
)
def test_what_a_container_writes_itself_does_not_count(
    tmp_path: Path, name: str, read_only: bool, counts: bool
) -> None:
    (tmp_path / name).write_text("x")
    made = stack(tmp_path, source=str(tmp_path / name), read_only=read_only)
    assert ("web" in causes(made)) is counts


def test_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    made = stack(tmp_path, source=str(tmp_path / "folder"))
    assert mounted.mounted_files(made, "web") == []


def test_what_changed_while_it_started_counts_later(tmp_path: Path) -> None:
    made = stack(tmp_path)
    file_stats = mounted.file_stats(made, made.services)
    os.utime(tmp_path / "secret", (START.timestamp() - 1, START.timestamp() - 1))
    seen = mounted.runs_to_remember(made, [container("api")], file_stats, {})
    assert set(causes(made, seen)) == {"api"}


def test_a_container_that_was_not_started_anew_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    made = stack(tmp_path)
    known = {container("api").run_key: {"a": "b"}, "gone 2026": {"a": "b"}}
    listed = container("api", started_at=None)
    assert mounted.runs_to_remember(made, [listed], {}, known) == {container("api").run_key: {"a": "b"}}
