"""The services that simulated starts are made of: what the compose file says, and how each run of a container goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORDS = {"started": "service_started", "healthy": "service_healthy", "completed": "service_completed_successfully"}


@dataclass(frozen=True)
class Life:
    """How one run of a container goes. Times are seconds after its start.

    `ends` when its main process ends by itself, with `code`. `healthy` when its healthcheck first succeeds; None is
    never. `refuses` is what the engine says instead of starting it. `probe` is what its healthcheck prints, with
    `probe_code` as long as it fails (None: it hangs). A database is `initialising` for so many seconds, in which its
    temporary server may be healthy; `unseen` says that its processes are not to be seen,
    `begins_to` for how many seconds there is neither of its servers.
    """

    ends: float | None = None
    code: int = 0
    healthy: float | None = None
    log: tuple[str, ...] = ()
    oom: bool = False
    refuses: str = ""
    probe: str = ""
    probe_code: int | None = 1
    probe_error: str = ""
    initialising: float = 0.0
    unseen: bool = False
    begins_to: float = 0.0


@dataclass(frozen=True)
class Fake:
    """A service: its entry in the compose file, and its lives: one for each start, the last for all further ones."""

    entry: Mapping[str, Any]
    lives: tuple[Life, ...]

    def changed(self, **more: Any) -> Fake:
        """Return it with another entry."""
        return Fake({**self.entry, **more}, self.lives)


def check(interval: float = 300, timeout: float = 5, retries: int = 3) -> dict[str, Any]:
    """Return a healthcheck that the engine itself runs every so many seconds."""
    return {"test": ["CMD", "check"], "interval": interval, "timeout": timeout, "retries": retries}


def server(healthy: float | None = 0.0, **entry: Any) -> Fake:
    """Return a service that stays up and is healthy so many seconds after each start."""
    return Fake({"healthcheck": check(), **entry}, (Life(healthy=healthy),))


def plain(**entry: Any) -> Fake:
    """Return a service without a healthcheck that stays up."""
    return Fake(entry, (Life(),))


def one_shot(code: int = 0, takes: float = 0.5, log: tuple[str, ...] = ("done its work",), **entry: Any) -> Fake:
    """Return a service that does something and ends."""
    return Fake(entry, (Life(ends=takes, code=code, log=log),))


def lives(*each: Life, **entry: Any) -> Fake:
    """Return a service whose starts go like this, one after the other."""
    return Fake(entry, each)


def dies(code: int = 1, after: float = 0.1, **more: Any) -> Life:
    """Return a life that ends badly."""
    return Life(ends=after, code=code, **more)


def after(**conditions: str) -> dict[str, dict[str, Any]]:
    """Return `depends_on` from short words: `after(db="healthy", cache="started optional", api="healthy restart")`."""
    found: dict[str, dict[str, Any]] = {}
    for name, words in conditions.items():
        first, *rest = words.split()
        entry: dict[str, Any] = {"condition": WORDS[first], "required": "optional" not in rest}
        found[name] = {**entry, "restart": True} if "restart" in rest else entry
    return found
