"""A clock that jumps: when all threads of a run wait, it goes to the next moment at which something happens."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from stackhand.graph.clock import Clock

EPOCH = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
# Seconds of the real clock. Only a test that is broken comes near it.
_GIVE_UP = 60.0


class Closed(BaseException):
    """The world has ended: what still waits in it leaves."""


@dataclass(eq=False)
class _Waiter:
    condition: threading.Condition
    happened: Callable[[], bool]
    deadline: float | None
    main: bool


class SimClock(Clock):
    """Simulated seconds, from 0. Knows the thread that made it, and those that were started through it."""

    def __init__(self) -> None:
        self._time = 0.0
        self._main = threading.current_thread()
        self._changed = threading.Condition()
        self._version = 0  # of everything below
        self._threads = 1
        self._waiting: list[_Waiter] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._interrupted = False
        self._closed = False
        self._stuck = ""
        threading.Thread(target=self._drive, name="simulated time", daemon=True).start()

    def monotonic(self) -> float:
        return self._time

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._time)

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment: in the driver's thread, while all others wait."""
        with self._changed:
            heapq.heappush(self._events, (max(moment, self._time), next(self._numbers), action))

    def sleep(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, or wait until something is so. Returns whether it is."""
        condition = threading.Condition()
        with condition:
            return self.wait_for(condition, until, seconds)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the main thread, where it waits."""
        self._interrupted = True
        self._notify(lambda waiter: waiter.main)

    def close(self) -> None:
        """End all that waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._notify(lambda waiter: True)

    def wait_for(
        self, condition: threading.Condition, happened: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        deadline = None if seconds is None else self._time + max(0.0, seconds)
        waiter = _Waiter(condition, happened, deadline, threading.current_thread() is self._main)
        with self._changed:
            self._waiting.append(waiter)
            self._has_changed()
        try:
            while True:
                if self._closed or self._stuck:
                    raise AssertionError(self._stuck) if self._stuck and waiter.main else Closed
                if waiter.main and self._interrupted:
                    self._interrupted = False
                    raise KeyboardInterrupt
                if happened():
                    return True
                if deadline is not None and deadline <= self._time:
                    return False
                condition.wait()
        finally:
            with self._changed:
                self._waiting.remove(waiter)
                self._has_changed()

    def start_thread(self, work: Callable[[], None], name: str) -> None:
        def body() -> None:
            try:
                with contextlib.suppress(Closed):
                    work()
            finally:
                with self._changed:
                    self._threads -= 1
                    self._has_changed()

        with self._changed:
            self._threads += 1
            self._has_changed()
        super().start_thread(body, name)

    def _has_changed(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _drive(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= self._threads)
                if self._closed:
                    return
                version, waiting = self._version, list(self._waiting)
            # Outside of the lock: what they wait for has locks of its own.
            if any(self._is_over(waiter) for waiter in waiting):
                self._await_change(version, waiting)
            else:
                self._jump()

    def _is_over(self, waiter: _Waiter) -> bool:
        return (
            waiter.happened()
            or (waiter.deadline is not None and waiter.deadline <= self._time)
            or (waiter.main and self._interrupted)
        )

    def _await_change(self, version: int, waiting: list[_Waiter]) -> None:
        """Wait until one that was woken goes on; what nobody has woken is a fault of the code under test."""
        with self._changed:
            moved = self._changed.wait_for(lambda: self._closed or self._version != version, _GIVE_UP)
        if not moved:
            self._give_up(f"what it waited for has happened, and nobody woke it: {waiting}")

    def _jump(self) -> None:
        with self._changed:
            deadlines = [waiter.deadline for waiter in self._waiting if waiter.deadline is not None]
            moments = [*deadlines, *(event[0] for event in self._events[:1])]
            if moments:
                self._time = max(self._time, min(moments))
            due = self._events and self._events[0][0] <= self._time
            action = heapq.heappop(self._events)[2] if due else None
        if not moments:
            self._give_up(f"at {self._time:g} s everything waits, and nothing is to come")
            return
        if action:
            action()
        self._notify(self._is_over)

    def _give_up(self, why: str) -> None:
        self._stuck = why
        self._notify(lambda waiter: True)

    def _notify(self, which: Callable[[_Waiter], bool]) -> None:
        with self._changed:
            waiting = list(self._waiting)
        for waiter in waiting:
            if which(waiter):
                with waiter.condition:
                    waiter.condition.notify_all()
