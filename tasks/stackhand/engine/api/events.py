"""Listens to the container events of one project.

The engine sends events live; what it sent while we were not connected is gone, so the listener says when that happened.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from stackhand.engine.api.sdk import errors
from stackhand.engine.compose.labels import ONEOFF_LABEL, PROJECT_LABEL, SERVICE_LABEL
from stackhand.errors import StackError

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# How many events an engine keeps: https://github.com/moby/moby/blob/master/daemon/events/events.go
_REMEMBERED = 256
# Each probe of a healthcheck emits three more events (exec_create, exec_start, exec_die), which nobody here needs.
_EVENTS = ("start", "die", "oom", "health_status", "destroy", "stop", "kill", "restart")


@dataclass(frozen=True)
class Event:
    """One container event. `action` lacks the detail after a colon: `health_status`, not `health_status: healthy`.

    `at` is the time by the engine's clock.
    """

    container: str
    service: str
    action: str
    at: datetime


class Listener:
    """Reads the engine's events until closed, and connects again after a break."""

    def __init__(
        self, read_api: Callable[[], Any], project: str, handle: Callable[[Event], None], lost: Callable[[], None]
    ) -> None:
        self._read_api = read_api
        self._project = project
        self._handle = handle
        self._lost = lost
        self._closed = threading.Event()
        self._stream: Any = None
        self._stream = self._open()
        threading.Thread(target=self._read, name="events", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        with contextlib.suppress(Exception):
            self._stream.close()

    def _open(self) -> Any:
        with errors():
            return self._read_api().events(
                decode=True,
                filters={
                    "type": "container",
                    "event": list(_EVENTS),
                    # Containers of `docker compose run` have the labels of their service, too.
                    "label": [f"{PROJECT_LABEL}={self._project}", f"{ONEOFF_LABEL}=False"],
                },
            )

    def _read(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(Exception):
                for raw in self._stream:
                    self._handle(_event(raw))
            # The stream ended with the engine or with the connection. Events until the next stream are lost.
            while not self._closed.wait(0.25):
                try:
                    self._stream = self._open()
                except StackError:
                    continue
                self._lost()
                break


def _event(raw: Mapping[str, Any]) -> Event:
    actor = raw.get("Actor") or {}
    service = (actor.get("Attributes") or {}).get(SERVICE_LABEL, "")
    at = _EPOCH + timedelta(microseconds=(raw.get("timeNano") or 0) // 1000)
    return Event(actor.get("ID", ""), service, str(raw.get("Action", "")).partition(":")[0], at)


def between(api: Any, since: datetime, until: datetime) -> list[Event]:
    """Return the events of containers, images, networks and volumes that the engine still remembers of this time.

    It remembers its last 256. `since` and `until` are times by its own clock.
    """
    with errors():
        return [_event(raw) for raw in api.events(since=_timestamp(since), until=_timestamp(until), decode=True)]


def was_signalled(heard: Sequence[Event], container: str, stop_timeout: float) -> bool | None:
    """Return whether somebody sent a signal to a container before its last end; None where the engine has forgotten.

    `docker stop` and `docker kill` tell of a `kill`, an end by itself is only a `die`. `heard` is all that the engine
    remembers since the container's start (`between`), and `stop_timeout` the longest time, in seconds, that lies
    between the two: afterwards `docker stop` sends another signal.
    """
    mine = [each for each in heard if each.container == container]
    ends = [each.at for each in mine if each.action == "die"]
    if not ends:
        return None
    if any(each.action == "kill" for each in mine):
        return True
    reaches_back = len(heard) < _REMEMBERED or heard[0].at < ends[-1] - timedelta(seconds=stop_timeout)
    return False if reaches_back else None


def _timestamp(moment: datetime) -> str:
    return f"{(moment - _EPOCH) // timedelta(microseconds=1) / 1e6:.6f}"
