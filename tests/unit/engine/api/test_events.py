"""Which of the engine's events count for a service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from builders import START

from stackhand.engine.api.events import Event, Listener, was_signalled


class Api:
    """An engine that sends these events once, those that have the labels that are asked for."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = events

    def events(self, *, filters: dict[str, Any], **_options: Any) -> Iterator[dict[str, Any]]:
        events, self._events = self._events, ()
        labels = dict(label.split("=") for label in filters["label"])
        return (event for event in events if labels.items() <= event["Actor"]["Attributes"].items())


def died(container: str, one_off: str) -> dict[str, Any]:
    of = "com.docker.compose."
    labels = {f"{of}project": "shop", f"{of}service": "web", f"{of}oneoff": one_off}
    return {"Action": "die", "Actor": {"ID": container, "Attributes": labels}, "timeNano": 0}


def test_what_somebody_runs_once_is_no_container_of_its_service() -> None:
    heard: list[Event] = []
    api, lost = Api(died("once", "True"), died("web-1", "False")), threading.Event()
    listener = Listener(lambda: api, "shop", heard.append, lost.set)
    assert lost.wait(10)  # the first stream has been read to its end
    listener.close()
    assert [(event.container, event.service, event.action) for event in heard] == [("web-1", "web", "die")]


@pytest.mark.parametrize(
    ("others", "seconds_before", "signalled"),
    [
        (10, 0.1, False),
        # The engine has forgotten what was before the oldest of 256, and `docker stop` gives a container 10 s to end.
        (255, 9, None),
        (255, 11, False),
    ],
)
def test_a_signal_may_have_been_forgotten(others: int, seconds_before: float, signalled: bool | None) -> None:
    oldest = Event("other", "", "exec_start", START - timedelta(seconds=seconds_before))
    heard = [oldest] * others + [Event("it", "web", "die", START)]
    assert was_signalled(heard, "it", 10) is signalled
    assert was_signalled([*heard, Event("it", "web", "kill", START)], "it", 10) is True
