"""How many at once, and which first: with a clock that stands still until all wait."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from sim.clock import SimClock

from stackhand.graph.slots import TimedSemaphore
from stackhand.services.start.limits import StartLimiter, Turn


@pytest.fixture
def clock() -> Iterator[SimClock]:
    made = SimClock()
    yield made
    made.close()


def test_few_go_one_by_one_and_the_most_urgent_first(clock: SimClock) -> None:
    limiter, order = StartLimiter(clock), []

    def body(name: str, urgency: int) -> None:
        with limiter.slot(urgency):
            order.append((name, clock.monotonic()))
            clock.sleep(1)

    clock.start_thread(lambda: body("first", 0), "first")
    clock.sleep(0.5)
    for name, urgency in (("idle", 0), ("urgent", 5)):
        clock.start_thread(partial(body, name, urgency), name)
    clock.sleep(10)
    assert order == [("first", 0), ("urgent", 1), ("idle", 2)]


def test_many_go_several_at_once(clock: SimClock) -> None:
    limiter, ended = StartLimiter(clock), []

    def body() -> None:
        with limiter.slot(0):
            clock.sleep(1)
            ended.append(clock.monotonic())

    for number in range(40):
        clock.start_thread(body, str(number))
    clock.sleep(100)
    assert len(ended) == 40
    assert max(ended) < 40 / 2


def test_only_the_beginning_of_a_body_counts(clock: SimClock) -> None:
    slots, begun = TimedSemaphore(1, 0.5, clock), []

    def body(seconds: float) -> None:
        with slots.slot():
            begun.append(clock.monotonic())
            clock.sleep(seconds)

    for seconds in (60, 60, 0.1, 0.1):
        clock.start_thread(partial(body, seconds), "body")
        clock.sleep(0.001)
    clock.sleep(10)
    # The long ones give their slot away after half a second, the short ones at their end, in whichever order.
    assert len(begun) == 4
    assert begun[-1] <= 0.5 + 0.5 + 0.1 + 0.01


def test_turns(clock: SimClock) -> None:
    turn, inside = Turn(clock), []

    def body() -> None:
        with turn:
            inside.append("in")
            clock.sleep(1)
            inside.append("out")

    for number in range(3):
        clock.start_thread(body, str(number))
    clock.sleep(10)
    assert inside == ["in", "out"] * 3
