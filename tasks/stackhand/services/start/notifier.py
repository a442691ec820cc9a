"""Wakes waiting threads when the engine reports something about their containers.

An event only says that it is worth looking again; what is true always comes from an inspect. So a lost, doubled or
late event costs a moment, never a wrong answer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from stackhand.engine.api.events import Event
from stackhand.errors import Interrupted
from stackhand.graph.clock import SYSTEM, Clock

LONGEST_SLEEP = 2.0
"""Seconds that a waiter sleeps at most before it looks again, should an event get lost."""


@dataclass(frozen=True)
class Started:
    """A start of a container: the time by the engine's clock, and when we heard of it, by the monotonic one."""

    at: datetime
    heard: float


class Notifier:
    """Counts what happened to each service; `wait` returns when its count has moved on."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._longest: dict[str, float] = {}
        self._started: dict[str, Started] = {}
        self._signalled: set[str] = set()
        self._oom: set[str] = set()
        self._everything = 0
        self._cancelled = False

    def handle(self, event: Event) -> None:
        """Take note of one event. Called from the listener's thread."""
        with self._condition:
            self._counts[event.service] += 1
            if event.action == "start":
                self._starts[event.service] += 1
                self._started[event.container] = Started(event.at, self._clock.monotonic())
                self._oom.discard(event.container)
                self._signalled.discard(event.container)
            if event.action == "kill":
                self._signalled.add(event.container)
            if event.action == "die" and event.container not in self._signalled:
                self._crashes[event.service] += 1
                started = self._started.get(event.container)
                if started:
                    ran = (event.at - started.at).total_seconds()
                    self._longest[event.service] = max(ran, self._longest.get(event.service, 0.0))
            if event.action == "oom":
                self._oom.add(event.container)
            self._condition.notify_all()

    def notify(self, service: str) -> None:
        """Wake all that wait for this service."""
        with self._condition:
            self._counts[service] += 1
            self._condition.notify_all()

    def lost(self) -> None:
        """Events were missed: everybody has to look again."""
        with self._condition:
            self._everything += 1
            self._condition.notify_all()

    def cancel(self) -> None:
        """Wake everybody, to leave."""
        with self._condition:
            self._cancelled = True
            self._condition.notify_all()

    def out_of_memory(self, container: str) -> bool:
        """Return whether the engine reported that something in this run of the container ran out of memory."""
        with self._condition:
            return container in self._oom

    def started(self, container: str) -> Started | None:
        """Return the last start of a container that was heard of."""
        with self._condition:
            return self._started.get(container)

    def was_signalled(self, container: str) -> bool:
        """Return whether somebody sent a signal to this run of the container: its end is no end by itself."""
        with self._condition:
            return container in self._signalled

    def crashes(self, service: str) -> int:
        """Return how many runs of the service's containers were heard to end by themselves."""
        with self._condition:
            return self._crashes[service]

    def longest_run(self, service: str) -> float | None:
        """Return the seconds that the longest of those runs took; None where none was heard from start to end.

        Those of `remember_crash` count, too.
        """
        with self._condition:
            return self._longest.get(service)

    def remember_crash(self, service: str, seconds: float) -> None:
        """Take note of a run that ended by itself after so many seconds, before anybody listened."""
        with self._condition:
            self._longest[service] = max(seconds, self._longest.get(service, 0.0))

    def version(self, service: str) -> int:
        """Return the count to give to `wait` later."""
        with self._condition:
            return self._counts[service] + self._everything

    def starts(self, service: str) -> int:
        """Return how many containers of the service were seen to start."""
        with self._condition:
            return self._starts[service]

    def wait(self, service: str, version: int, seconds: float) -> bool:
        """Wait until something happened to the service since `version`, for `seconds` at most. Raises Interrupted."""
        return self._wait(lambda: self._counts[service] + self._everything != version, seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the run is cancelled. Raises Interrupted."""
        self._wait(lambda: False, seconds)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait until something is so, looking whenever anything is reported. Raises Interrupted."""
        while not self._wait(happened, LONGEST_SLEEP):
            pass

    def check(self) -> None:
        """Raise Interrupted once the run was cancelled."""
        if self._cancelled:
            raise Interrupted("interrupted")

    def _wait(self, happened: Callable[[], bool], seconds: float) -> bool:
        with self._condition:
            done = self._clock.wait_for(self._condition, lambda: self._cancelled or happened(), seconds)
        self.check()
        return done
