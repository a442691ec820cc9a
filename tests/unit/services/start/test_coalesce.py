"""Batches, and wake-ups: what many threads share."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from stackhand.engine.api.events import Event
from stackhand.errors import CommandFailed, Interrupted
from stackhand.services.start.coalesce import Batch, isolating
from stackhand.services.start.notifier import Notifier

PATIENCE = 30


def test_what_comes_while_one_is_under_way_goes_together_into_the_next() -> None:
    calls: list[list[str]] = []
    begun, go_on = threading.Event(), threading.Event()

    def act(items: Sequence[str]) -> Mapping[str, Exception]:
        calls.append(list(items))
        begun.set()
        assert go_on.wait(PATIENCE)
        return {}

    batch = Batch(act)
    tickets = batch.submit("a")
    assert begun.wait(PATIENCE)
    tickets += batch.submit("b", "c") + batch.submit("d") + batch.submit("b")
    go_on.set()
    assert all(ticket.done.wait(PATIENCE) for ticket in tickets)
    assert calls == [["a"], ["b", "c", "d"]]


def test_each_ticket_has_its_own_outcome() -> None:
    oh = ValueError("oh")
    batch = Batch(lambda items: {"bad": oh} if "bad" in items else {})
    good, bad = batch.submit("good", "bad")
    assert good.done.wait(PATIENCE)
    assert bad.done.wait(PATIENCE)
    assert (good.error, bad.error) == (None, oh)


def test_an_exception_reaches_everybody() -> None:
    def act(items: Sequence[str]) -> Mapping[str, Exception]:
        raise ValueError("oh")

    for ticket in Batch(act).submit("a", "b"):
        assert ticket.done.wait(PATIENCE)
        assert str(ticket.error) == "oh"


def test_isolating_finds_the_bad_ones() -> None:
    calls: list[list[str]] = []

    def act(names: Sequence[str]) -> None:
        calls.append(list(names))
        if "bad" in names:
            raise CommandFailed(["docker"], 1, "oh")

    assert list(isolating(act)(["a", "bad", "b"])) == ["bad"]
    assert calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert isolating(act)(["a", "b"]) == {}


def event(service: str, action: str = "start", container: str = "c1") -> Event:
    return Event(container, service, action)


class TestWakeups:
    def test_an_event_between_mark_and_wait_is_not_missed(self) -> None:
        wakeups = Notifier()
        mark = wakeups.mark("db")
        wakeups.handle(event("db"))
        assert wakeups.wait("db", mark, PATIENCE)

    def test_an_event_wakes_its_own_service_only(self) -> None:
        wakeups = Notifier()
        mark = wakeups.mark("db")
        wakeups.handle(event("api"))
        assert not wakeups.wait("db", mark, 0.01)

    def test_lost_events_wake_everybody(self) -> None:
        wakeups = Notifier()
        mark = wakeups.mark("db")
        wakeups.lost()
        assert wakeups.wait("db", mark, PATIENCE)

    @pytest.mark.parametrize("way", ["wait", "sleep", "check"])
    def test_cancelled(self, way: str) -> None:
        wakeups = Notifier()
        threading.Timer(0.02, wakeups.cancel).start()
        with pytest.raises(Interrupted):
            if way == "wait":
                wakeups.wait("db", wakeups.mark("db"), PATIENCE)
            elif way == "sleep":
                wakeups.sleep(PATIENCE)
            else:
                while True:
                    wakeups.check()

    def test_out_of_memory_is_about_one_run_of_the_container(self) -> None:
        wakeups = Notifier()
        wakeups.handle(event("db", "oom"))
        assert wakeups.out_of_memory("c1")
        assert not wakeups.out_of_memory("c2")
        wakeups.handle(event("db", "start"))
        assert not wakeups.out_of_memory("c1")
