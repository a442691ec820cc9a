"""A suite: which checks a run asks, in which phases it fixes, under which name it takes the lock, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from stackhand.checks.check import Check


@dataclass(frozen=True)
class Limits:
    """How long and how often a run of checks tries. Times are in seconds.

    `check` is for one check: several answers, each with its own time-out, go into one verdict. A check that got no
    answer in time is asked again, with `stretch` times as long for everything. `engine` is for the engine, where a
    check took too long; `pause` is between two looks. `rounds` ends a run in which every fix uncovers new trouble.
    """

    check: float = 30.0
    stretch: float = 4.0
    engine: float = 5.0
    pause: float = 0.4
    rounds: int = 3


@dataclass(frozen=True)
class Suite:
    """What a run asks. `checks` are asked of every service; those of its kinds join them where `kinds` is set.

    `task` holds the lock while something is fixed. `phases` are in the order in which they are fixed; a failure in
    the first of them may pass by itself, so it is waited for. A failure in one of the `explaining` phases can be why
    a service does not work.
    """

    task: str
    phases: tuple[str, ...]
    checks: tuple[Check, ...]
    explaining: tuple[str, ...] = ()
    kinds: bool = True
    limits: Limits = Limits()
