"""Keeps tests from starting processes and from reaching for an engine, for the groups that may do neither."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_STARTS_A_PROCESS = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen",
}  # fmt: skip
_ENGINE_PORTS = {2375, 2376}
_WHO = "a test of tests/unit or tests/sim"

# What the test that runs now must not have done; None between such tests. (An audit hook can not be taken out again.)
_attempts: list[str] | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _attempts is None:
        return
    if event in _STARTS_A_PROCESS:
        _refuse(f"tried to start a process: {event} {args[1] if event == 'subprocess.Popen' else args}")
    elif event == "socket.connect":
        address = args[1]
        if "docker" in str(address) or (isinstance(address, tuple) and address[1] in _ENGINE_PORTS):
            _refuse(f"tried to connect to an engine at {address}")


def _refuse(what: str) -> None:
    assert _attempts is not None
    _attempts.append(what)
    pytest.fail(f"{_WHO} {what}: pass facts in, or move the test to another group", pytrace=False)


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def processes_and_engines_are_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that starts a process or reaches for an engine, also where the code under test swallows the error."""
    global _attempts  # noqa: PLW0603 - one test at a time, and the hook can not be given anything
    monkeypatch.setenv("DOCKER_HOST", "unix:///docker-is-blocked-in-unit-tests.sock")
    attempts: list[str] = []
    _attempts = attempts
    yield
    _attempts = None
    assert not attempts, f"{_WHO} {attempts[0]}"
