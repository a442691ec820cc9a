"""Keeps the start of every task quick."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_MOCK = "unittest.mock"


@contextlib.contextmanager
def without_mock() -> Iterator[None]:
    """Import Invoke without `unittest.mock`, which it needs for its `MockContext` alone, a help for tests.

    That one brings asyncio and ssl along, some 50 ms of what every task takes to begin. A `MockContext` gets the real
    `Mock` when it is made.
    """
    if _MOCK in sys.modules:
        yield
        return
    stand_in = ModuleType(_MOCK)
    stand_in.Mock = _mock  # type: ignore[attr-defined]
    sys.modules[_MOCK] = stand_in
    try:
        yield
    finally:
        del sys.modules[_MOCK]


def _mock(*args: Any, **kwargs: Any) -> Any:
    from unittest.mock import Mock

    return Mock(*args, **kwargs)
