"""Remembers a reset that is under way, so that the next run knows of one that was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Literal

from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal as Actions
from stackhand.state.journal import Run, Unfinished

Mode = Literal["soft", "full"]

TASK = "services.reset"


class Journal:
    """What the journal of actions says of resets."""

    def __init__(self, state: StateFolder) -> None:
        self._actions = Actions(state)

    @contextlib.contextmanager
    def run(self, mode: Mode, names: Collection[str]) -> Iterator[None]:
        """Note that a reset removes things while the body runs; `names` are the services to be started afterwards.

        Where the body raises, or is killed, the reset is unfinished. Once one is finished, so are those before it.
        Raises StateFolderUnwritable; then nothing may be removed.
        """
        before = self._actions.unfinished(TASK)
        with self._actions.run(TASK, {"mode": mode, "names": list(names)}):
            yield
        self._actions.settle(*before)

    def unfinished(self) -> tuple[Mode, list[str]] | None:
        """Return mode and services of the last reset that was not finished, or None."""
        runs = [run for run in self._actions.unfinished(TASK) if _mode(run)]
        if not runs:
            return None
        mode, names = _mode(runs[-1]), runs[-1].facts.get("names")
        return (mode, [str(name) for name in names if name] if isinstance(names, list) else []) if mode else None


def describe(run: Run) -> Unfinished | None:
    """Return what a person is told of a reset that was not finished."""
    mode = _mode(run)
    if mode is None:
        return None
    return Unfinished(
        TASK,
        run.began,
        f"a reset --{mode} was interrupted before all was removed",
        f"`inv services.reset --{mode}` finishes it",
    )


def _mode(run: Run) -> Mode | None:
    mode = run.facts.get("mode")
    return mode if mode in ("soft", "full") else None
