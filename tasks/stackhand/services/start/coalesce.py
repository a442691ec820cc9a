"""Joins what several threads ask for at the same moment into one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from stackhand.errors import CommandFailed
from stackhand.graph.clock import SYSTEM, Clock

T = TypeVar("T", bound=Hashable)


class Ticket(Generic[T]):
    """One thing that was asked for; `done` is set when it was carried out, `error` when that failed."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = threading.Event()
        self.error: Exception | None = None


class Coalescer(Generic[T]):
    """Hands items to `act` as they come: those that arrive while a call is under way go into the next one.

    `act` gets several items and returns the exception of each that failed; `on_done` is called for each item. One call
    of the Compose command line costs a tenth of a second before it does anything; twelve services that become
    startable together cost it once.
    """

    def __init__(
        self,
        act: Callable[[Sequence[T]], Mapping[T, Exception]],
        *,
        on_done: Callable[[T], None] = lambda item: None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._act = act
        self._clock = clock
        self._on_done = on_done
        self._lock = threading.Lock()
        self._waiting: list[Ticket[T]] = []
        self._busy = False
        self._acting = 0

    @property
    def load(self) -> int:
        """How many items are under way or waiting."""
        return self._acting + len(self._waiting)

    def submit(self, *items: T) -> list[Ticket[T]]:
        """Ask for items, all of which go into the same call. Returns at once with a ticket for each."""
        tickets = [Ticket(item) for item in items]
        if not tickets:
            return tickets
        with self._lock:
            self._waiting += tickets
            if self._busy:
                return tickets
            self._busy = True
        self._clock.start_thread(self._work, "coalescer")
        return tickets

    def _work(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._busy = False
                    return
                self._acting += len(batch)
            try:
                failed = self._act(list(dict.fromkeys(ticket.item for ticket in batch)))
            except Exception as error:
                failed = {ticket.item: error for ticket in batch}
            with self._lock:
                self._acting -= len(batch)
            for ticket in batch:
                ticket.error = failed.get(ticket.item)
                ticket.done.set()
                self._on_done(ticket.item)


def retry_one_by_one(
    act: Callable[[Sequence[str]], object], done: Callable[[str], int] = lambda name: 0
) -> Callable[[Sequence[str]], Mapping[str, Exception]]:
    """Return a function that does something to several services at once, and returns the error of each that failed.

    When it fails for several together, it is done for each alone: a good service must not fail with a bad one,
    and each gets its own message. `done` counts how often it was seen to happen to a service; those for which the
    failed attempt has done it are left alone.
    """

    def attempt(names: Sequence[str]) -> Mapping[str, Exception]:
        before = {name: done(name) for name in names}
        try:
            act(names)
        except CommandFailed as error:
            if len(names) == 1:
                return {names[0]: error}
            left = [name for name in names if done(name) == before[name]]
            return {name: failed for each in left for name, failed in attempt([each]).items()}
        return {}

    return attempt
