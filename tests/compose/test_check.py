"""engine.check and engine.install on a machine that is told of an engine that does not exist."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from support import Project


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
    del project.env["DOCKER_HOST"]
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


def test_install_leaves_an_engine_alone_that_somebody_chose(project: Project) -> None:
    result = project.inv("engine.install", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert result.code == 3
    assert "hint: DOCKER_HOST chose this engine" in result.stderr
