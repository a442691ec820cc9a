"""Remembers a reset that is under way, so that the next run knows of one that was killed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from stackhand.state.folder import StateFolder

Mode = Literal["soft", "full"]

_NAME = "reset"


class Journal:
    """Begun before the first thing is removed, ended when all of it is gone."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def begin(self, mode: Mode, names: Collection[str]) -> None:
        """Note what is about to be done: the mode, and the services that are to be started afterwards."""
        self._state.remember(_NAME, {"mode": mode, "names": list(names)})

    def end(self) -> None:
        """Note that it is done."""
        self._state.remember(_NAME, None)

    def unfinished(self) -> tuple[Mode, list[str]] | None:
        """Return mode and services of a reset that was not finished, or None."""
        found: Any = self._state.recall(_NAME)
        if not isinstance(found, dict) or found.get("mode") not in ("soft", "full"):
            return None
        return found["mode"], [str(name) for name in found.get("names") or ()]
