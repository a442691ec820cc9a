"""Which Compose plugin the docker command would run, and when only that one knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackhand.engine.compose import plugin
from stackhand.engine.compose.plugin import compose_plugin


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a machine with a docker command, and no plugin yet."""
    monkeypatch.setattr(plugin, "SYSTEM_FOLDERS", (str(tmp_path / "first"), str(tmp_path / "second")))
    executable(tmp_path / "bin/docker", b"\x7fELF")
    (tmp_path / "config").mkdir()
    return {"PATH": str(tmp_path / "bin"), "DOCKER_CONFIG": str(tmp_path / "config")}


def executable(path: Path, content: bytes = b"\x7fELF", mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_the_users_own_comes_before_the_systems(machine: dict[str, str], tmp_path: Path) -> None:
    assert compose_plugin(machine) is None
    second = executable(tmp_path / "second/docker-compose")
    assert compose_plugin(machine) == second
    first = executable(tmp_path / "first/docker-compose")
    assert compose_plugin(machine) == first
    own = executable(tmp_path / "config/cli-plugins/docker-compose")
    assert compose_plugin(machine) == own
    del machine["DOCKER_CONFIG"]
    assert compose_plugin({**machine, "HOME": str(tmp_path)}) == first


def test_the_docker_command_is_asked_where_it_may_know_better(machine: dict[str, str], tmp_path: Path) -> None:
    found = executable(tmp_path / "first/docker-compose")
    (tmp_path / "config/config.json").write_text('{"currentContext": "x"}')
    assert compose_plugin(machine) == found
    (tmp_path / "config/config.json").write_text('{"cliPluginsExtraDirs": ["/opt"]}')
    assert compose_plugin(machine) is None
    (tmp_path / "config/config.json").unlink()
    executable(tmp_path / "bin/docker", b"#!/bin/sh\nexec podman\n")
    assert compose_plugin(machine) is None
    (tmp_path / "bin/docker").unlink()
    assert compose_plugin(machine) is None


@pytest.mark.parametrize("kind", ["not executable", "folder", "dangling"])
def test_a_plugin_that_can_not_be_run_is_left_to_the_docker_command(
    machine: dict[str, str], tmp_path: Path, kind: str
) -> None:
    executable(tmp_path / "second/docker-compose")
    path = tmp_path / "first/docker-compose"
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        executable(path, mode=0o644)
    assert compose_plugin(machine) is None
