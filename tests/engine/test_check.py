"""engine.check and engine.install on a machine that has an engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Project


@pytest.mark.mechanism
def test_all_well(project: Project) -> None:
    result = project.inv("engine.check", "--json")
    assert result.code == 0, result
    document = result.json()
    assert document["ok"] is True
    assert document["engine"]["version"]
    assert document["engine"]["api"].startswith("1.")
    assert document["engine"]["endpoint"]
    assert int(document["compose"]["version"].split(".")[0]) >= 2
    assert {finding["id"] for finding in document["findings"]} >= {"engine.cli", "engine.answers", "engine.compose"}


def test_it_needs_no_project(project: Project, tmp_path: Path) -> None:
    result = project.inv("engine.check", cwd=tmp_path)
    assert result.code == 0, result
    assert "answers, API" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("dry", [True, False])
def test_install_with_nothing_to_do(project: Project, dry: bool) -> None:
    result = project.inv(*["--dry"] * dry, "engine.install", "--json")
    assert result.code == 0, result
    document = result.json()
    assert (document["ok"], document["changed"], document["actions"]) == (True, False, [])
