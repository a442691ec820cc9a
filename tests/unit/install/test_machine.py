"""Reading facts about a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackhand.install import machine
from stackhand.install.machine import Machine, root_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, (None, False)),
        ("", (None, False)),
        ("999999999", (None, True)),
        ("this process", (None, True)),
        ("garbage", (None, True)),
    ],
)
def test_a_pid_file_counts_only_while_its_process_is_dockerd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: tuple[int | None, bool]
) -> None:
    file = tmp_path / "docker.pid"
    if text is not None:
        # Named in words: the ids of tests have to be the same in every process.
        file.write_text(text.replace("this process", str(os.getpid())))
    monkeypatch.setattr(machine, "PID_FILE", file)

    assert machine._daemon() == expected


def test_a_dockerd_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {str(machine.PID_FILE): "77", "/proc/77/comm": "dockerd"}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(str(path), ""))

    assert machine._daemon() == (77, False)


def test_both_kinds_of_source_files_are_read(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("one")
    (parts / "debian.sources").write_text("two")
    (parts / "old.list.disabled").write_text("three")
    (parts / "folder.list").mkdir()

    assert machine._sources(tmp_path) == {"sources.list": "one", "debian.sources": "two"}
    assert machine._sources(tmp_path / "none") == {}


def test_who_has_apt() -> None:
    def has(distribution: str, *like: str, system: str = "Linux") -> bool:
        seen = machine.check.Observation()
        return Machine(seen, system=system, distribution=distribution, like=like).has_apt

    assert has("debian")
    assert has("linuxmint", "ubuntu", "debian")
    assert not has("fedora")
    assert not has("debian", system="Darwin")


def test_root_s_folders_come_last() -> None:
    assert root_path({"PATH": "/mine"}).startswith("/mine:/usr/local/sbin")
    assert root_path({}).startswith("/usr/local/sbin")
