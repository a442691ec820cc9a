"""Unit tests: no engine, no docker CLI, no network. They mirror the package, folder by folder.

Docker is blocked here: a test that reaches for an engine or starts the docker CLI fails and says so, also
when the code under test swallows the error or does it on another thread. What needs an engine belongs in
tests/engine.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Runner, clean_environment, state_elsewhere

_BLOCKED_PROGRAMS = {"docker", "dockerd", "docker-compose", "apt-get", "dpkg", "systemctl", "sudo"}
_ENGINE_PORTS = {2375, 2376}


@pytest.fixture(autouse=True)
def _docker_is_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    attempts: list[str] = []

    def refuse(what: str) -> None:
        attempts.append(what)
        pytest.fail(f"a unit test {what}: pass facts in, or move the test to tests/engine", pytrace=False)

    def connect(self: socket.socket, address: Any) -> None:
        text = str(address)
        if "docker" in text or (isinstance(address, tuple) and address[1] in _ENGINE_PORTS):
            refuse(f"tried to connect to an engine at {text}")
        real_connect(self, address)

    def start(self: subprocess.Popen[Any], args: Any, *rest: Any, **named: Any) -> None:
        program = Path(args.split()[0] if isinstance(args, str) else args[0]).name
        if program in _BLOCKED_PROGRAMS:
            refuse(f"tried to run `{args if isinstance(args, str) else ' '.join(map(str, args))}`")
        real_start(self, args, *rest, **named)

    real_connect, real_start = socket.socket.connect, subprocess.Popen.__init__
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    # For what a test starts as a process of its own, which the patches above do not reach.
    monkeypatch.setenv("DOCKER_HOST", "unix:///docker-is-blocked-in-unit-tests.sock")
    yield
    assert not attempts, f"a unit test {attempts[0]}"


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    """Runs stackhand in an empty folder, with an endpoint where no engine is."""
    runner = Runner(tmp_path, clean_environment())
    yield runner
    runner.close()
