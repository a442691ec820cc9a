"""Simulated starts: the real code of a start, an engine and a Compose in memory, and a clock that jumps.

How they work:

- `world` is an engine with a project on it. `world.services(db=server(healthy=3), api=plain(...))` says which services
  there are and how each container behaves; `world.start()` is `services.start` without the command line.
- Time is simulated (`sim/clock.py`): where all threads of the run wait, it jumps to the next thing that happens. So a
  time-out of two minutes costs a millisecond, and nothing depends on how fast the machine is.
- A test says what happens on the way with `world.at(5, ...)` and looks at the report, at `world.calls` (what engine and
  Compose were asked for) and at `world.steps` (what a person sees, with the second at which).
- tests/engine proves once, for each mechanism, what the engine and Compose really do; the variations are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from no_processes import processes_and_engines_are_blocked  # noqa: F401
from sim.world import World
from support import state_elsewhere


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An engine in memory, with one project."""
    made = World(tmp_path)
    yield made
    made.close()
