"""The block that keeps unit tests from starting processes is there."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import no_processes
import pytest


def connect() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/var/run/docker.sock")


def swallowed() -> None:
    try:
        subprocess.run(["true"], check=False)
    except Exception:
        pytest.fail("no exception that code may swallow")


@pytest.mark.parametrize(
    "act",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: os.system("true"),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        os.fork,
        connect,
        swallowed,
    ],
    ids=["subprocess", "system", "spawn", "fork", "connect", "swallowed"],
)
def test_a_test_that_does_it_fails(act: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="tried to"):
        act()
    # It would fail even so.
    assert no_processes._attempts
    no_processes._attempts.clear()
