"""engine.check and engine.install on a machine that has an engine, or is told of one that does not exist."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from support import Project


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


def test_no_engine(project: Project) -> None:
    result = project.inv("engine.check", "--json", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert result.code == 3
    document = result.json()
    assert document["ok"] is False
    assert document["engine"]["version"] is None
    assert [f["id"] for f in document["findings"] if f["status"] == "fail"] == ["engine.answers"]
    assert result.stderr.splitlines()[0] == "error: no engine answers: /nowhere.sock does not exist"
    assert result.stderr.splitlines()[1].startswith("hint: DOCKER_HOST chose this engine")


def test_an_unknown_context(project: Project) -> None:
    result = project.inv("engine.check", env={"DOCKER_CONTEXT": "nowhere"})
    assert result.code == 2
    assert "error: the docker context 'nowhere' does not exist" in result.stderr


def test_no_docker_command(project: Project, tmp_path: Path) -> None:
    result = project.inv("engine.check", "--json", env={"PATH": str(tmp_path)})
    assert result.code == 3
    assert "error: the docker command is not installed" in result.stderr


@pytest.mark.parametrize("task", ["engine.check", "engine.install", "services.status"])
def test_no_permission(project: Project, tmp_path: Path, task: str) -> None:
    project.services(web={})
    path = tmp_path / "closed.sock"
    # Root may use every socket, except without its capabilities.
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        result = project.inv(task, "--json", env={"DOCKER_HOST": f"unix://{path}"}, prefix=prefix)
    assert result.code == 3, result
    assert result.json()["ok"] is False
    assert f"error: no permission to use the engine's socket {path}" in result.stderr
    assert "group `docker`" in result.stderr


@pytest.mark.parametrize("dry", [True, False])
def test_install_with_nothing_to_do(project: Project, dry: bool) -> None:
    result = project.inv(*["--dry"] * dry, "engine.install", "--json")
    assert result.code == 0, result
    document = result.json()
    assert (document["ok"], document["changed"], document["actions"]) == (True, False, [])


def test_install_leaves_an_engine_alone_that_somebody_chose(project: Project) -> None:
    result = project.inv("engine.install", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert result.code == 3
    assert "hint: DOCKER_HOST chose this engine" in result.stderr
