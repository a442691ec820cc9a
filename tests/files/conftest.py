"""Tests that need a machine, and no engine: real trees with owners and modes, attackers, programs that are started.

Those of permissions run as root and become an ordinary user where that is the point. Without root they are skipped on a
laptop, and the run says so; with CI=true they fail. A folder here mirrors one of the package, as in tests/unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Runner, clean_environment, state_elsewhere


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no-engine-in-tests-of-files.sock")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    """Runs stackhand in an empty folder."""
    runner = Runner(tmp_path, clean_environment())
    yield runner
    runner.close()
