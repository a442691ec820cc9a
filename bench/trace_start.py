"""Print the way of one start from the task's body to the engine: calls and files. Exits 1 when it is too long.

It runs `services.start` of two services, one after the other, on the simulated engine of tests/sim, and looks at the
stack when the engine is asked to start a container. Compose's own way, from its command to the engine's API, is 12
calls in 5 files (docker/compose v5: cmd/compose/up.go, pkg/compose/{up,start,dependencies,convergence}.go).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tasks"), str(CHECKOUT / "tests")]

from sim.command_line import run  # noqa: E402
from sim.services import after, server  # noqa: E402
from sim.world import World  # noqa: E402

MOST_CALLS = 12
MOST_FILES = 5
_BODY = "cli/services.py"
_ENGINE = "engine/api/client.py"


@dataclass(frozen=True)
class Call:
    """One call on the way: the file below the package, and the function."""

    file: str
    function: str


def trace() -> list[Call]:
    """Return the calls from the task's body to the engine's start, both among them."""
    ways: list[list[Call]] = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.services(db=server(), api=server(depends_on=after(db="healthy")))
        start = world.engine.start

        def seen(container: str) -> None:
            ways.append([*_calls(sys._getframe(1)), Call(_ENGINE, "Engine.start")])
            start(container)

        world.engine.start = seen
        result = run(world, "services.start", "--no-fixes")
        world.close()
    assert (result.code, len(ways)) == (0, 2), result
    return max(ways, key=len)


def _calls(frame: FrameType | None) -> list[Call]:
    """Return our own calls on a stack, from the task's body on."""
    package = f"{CHECKOUT / 'tasks' / 'stackhand'}/"
    found: list[Call] = []
    while frame:
        code = frame.f_code
        if code.co_filename.startswith(package):
            name = getattr(code, "co_qualname", code.co_name)
            found.insert(0, Call(code.co_filename.removeprefix(package), name))
        frame = frame.f_back
    body = next(index for index, call in enumerate(found) if call.file == _BODY)
    return found[body:]


def files(calls: list[Call]) -> list[str]:
    """Return the files of a way, each once."""
    return list(dict.fromkeys(call.file for call in calls))


def main() -> int:
    """Print the way and return the exit code."""
    calls = trace()
    for number, call in enumerate(calls, start=1):
        print(f"{number:3}  {call.file:32} {call.function}")
    print(f"{len(calls)} calls (at most {MOST_CALLS}), {len(files(calls))} files (at most {MOST_FILES})")
    return int(len(calls) > MOST_CALLS or len(files(calls)) > MOST_FILES)


if __name__ == "__main__":
    sys.exit(main())
