"""Tests on real trees of files: owners and modes, links, full disks, attackers, programs that are started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import state_elsewhere


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield
