"""Batches, and wake-ups: what many threads share."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from builders import START

from stackhand.engine.api.events import Event
from stackhand.errors import CommandFailed, Interrupted
from stackhand.services.start.coalesce import Coalescer, retry_one_by_one
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

    coalescer = Coalescer(act)
    tickets = coalescer.submit("a")
    assert begun.wait(PATIENCE)
    tickets += coalescer.submit("b", "c") + coalescer.submit("d") + coalescer.submit("b")
    go_on.set()
    assert all(ticket.done.wait(PATIENCE) for ticket in tickets)
    assert calls == [["a"], ["b", "c", "d"]]


def test_each_ticket_has_its_own_outcome() -> None:
    oh = ValueError("oh")
    coalescer = Coalescer(lambda items: {"bad": oh} if "bad" in items else {})
    good, bad = coalescer.submit("good", "bad")
    assert good.done.wait(PATIENCE)
    assert bad.done.wait(PATIENCE)
    assert (good.error, bad.error) == (None, oh)


def test_an_exception_reaches_everybody() -> None:
    def act(items: Sequence[str]) -> Mapping[str, Exception]:
        raise ValueError("oh")

    for ticket in Coalescer(act).submit("a", "b"):
        assert ticket.done.wait(PATIENCE)
        assert str(ticket.error) == "oh"


def test_isolating_finds_the_bad_ones() -> None:
    calls: list[list[str]] = []

    def act(names: Sequence[str]) -> None:
        calls.append(list(names))
        if "bad" in names:
            raise CommandFailed(["docker"], 1, "oh")

    assert list(retry_one_by_one(act)(["a", "bad", "b"])) == ["bad"]
    assert calls == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert retry_one_by_one(act)(["a", "b"]) == {}


def event(service: str, action: str = "start", container: str = "c1") -> Event:
    return Event(container, service, action, START)


class TestNotifier:
    def test_an_event_between_version_and_wait_is_not_missed(self) -> None:
        notifier = Notifier()
        version = notifier.version("db")
        notifier.handle(event("db"))
        assert notifier.wait("db", version, PATIENCE)

    def test_an_event_wakes_its_own_service_only(self) -> None:
        notifier = Notifier()
        version = notifier.version("db")
        notifier.handle(event("api"))
        assert not notifier.wait("db", version, 0.01)

    def test_lost_events_wake_everybody(self) -> None:
        notifier = Notifier()
        version = notifier.version("db")
        notifier.lost()
        assert notifier.wait("db", version, PATIENCE)

    @pytest.mark.parametrize("way", ["wait", "sleep", "check"])
    def test_cancelled(self, way: str) -> None:
        notifier = Notifier()
        threading.Timer(0.02, notifier.cancel).start()
        with pytest.raises(Interrupted):
            if way == "wait":
                notifier.wait("db", notifier.version("db"), PATIENCE)
            elif way == "sleep":
                notifier.sleep(PATIENCE)
            else:
                while True:
                    notifier.check()

    def test_out_of_memory_is_about_one_run_of_the_container(self) -> None:
        notifier = Notifier()
        notifier.handle(event("db", "oom"))
        assert notifier.out_of_memory("c1")
        assert not notifier.out_of_memory("c2")
        notifier.handle(event("db", "start"))
        assert not notifier.out_of_memory("c1")

    def test_how_long_the_longest_run_took_that_ended_by_itself(self) -> None:
        notifier = Notifier()

        def tell(*actions: tuple[float, str]) -> tuple[int, float | None]:
            for at, action in actions:
                notifier.handle(Event("c1", "db", action, START + timedelta(seconds=at)))
            return notifier.crashes("db"), notifier.longest_run("db")

        assert tell((0, "die")) == (1, None), "nobody heard it start"
        assert tell((1, "start"), (4, "die")) == (2, 3)
        assert tell((5, "start"), (6, "die")) == (3, 3)
        # Stopped and restarted by somebody: no end by itself.
        assert tell((7, "start"), (20, "kill"), (21, "die"), (21, "stop")) == (3, 3)
        assert notifier.was_signalled("c1")
        assert tell((22, "start"), (26, "oom"), (26, "die")) == (4, 4)
        assert not notifier.was_signalled("c1")
