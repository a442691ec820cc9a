"""Unit tests: facts in, decisions out. No process, no engine, no network, no trees of files. They mirror the package.

This is enforced: a test that starts a process or reaches for an engine fails and says so, also when the code under
test swallows the error or does it on another thread. What starts programs of this machine belongs in tests/files.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from no_processes import processes_and_engines_are_blocked  # noqa: F401
from support import state_elsewhere


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield
