"""What the client asks the engine for, as the SDK is called."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from builders import START, ended
from docker.errors import APIError

from stackhand.engine.api.client import Engine
from stackhand.engine.api.sdk import errors
from stackhand.errors import StackError


class _Api:
    def __init__(self, network: dict[str, Any] | None = None, **info: Any) -> None:
        self._network = network or {}
        self._info = info
        self.connected: dict[str, Any] = {}
        self.refuses = False
        self.actions: list[str] = []
        self.question: dict[str, Any] = {}

    def connect_container_to_network(self, container: str, network: str, **options: Any) -> None:
        self.connected = {key: value for key, value in options.items() if value}

    def info(self) -> dict[str, Any]:
        if self.refuses:
            raise APIError("403 Client Error: Forbidden")
        return {"SystemTime": "2026-11-23T16:46:07.640747292+01:00", **self._info}

    def _url(self, path: str) -> str:
        return path

    def _get(self, url: str) -> Any:
        return SimpleNamespace(headers={"Date": "Mon, 23 Nov 2026 15:46:07 GMT"})

    def events(self, **question: Any) -> list[dict[str, Any]]:
        self.question = question
        return [{"Action": action, "timeNano": 0, "Actor": {"ID": ended().id}} for action in self.actions]

    def inspect_container(self, container: str) -> dict[str, Any]:
        return {"Config": {}}

    def inspect_network(self, network: str) -> dict[str, Any]:
        return self._network


def _engine(api: _Api) -> Engine:
    made = Engine({})
    made._api = api
    return made


@pytest.mark.parametrize(
    ("actions", "signalled"),
    [
        (["die"], False),
        (["kill", "die"], True),
        (["kill", "kill", "die", "stop"], True),
        # The engine keeps so many events only.
        ([], None),
        (["kill"], None),
    ],
)
def test_the_engine_tells_an_end_by_itself_from_a_stop(actions: list[str], signalled: bool | None) -> None:
    api = _Api()
    api.actions = actions
    assert _engine(api).was_signalled(ended()) is signalled
    # Both by the engine's clock: with a moment that is still to come, it would go on until then.
    assert (api.question["since"], api.question["until"]) == ("1795448767.000000", "1795448767.640747")


def test_the_engines_time_comes_from_elsewhere_where_a_proxy_refuses_to_tell() -> None:
    api = _Api()
    api.refuses = True
    assert _engine(api).now() == START


def test_two_clocks_that_differ_by_less_than_an_answer_takes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(_Api())
    monkeypatch.setattr(engine, "now", lambda: datetime.now(timezone.utc) + timedelta(seconds=1))
    assert engine.clock_offset() == timedelta()
    monkeypatch.setattr(engine, "now", lambda: datetime.now(timezone.utc) - timedelta(hours=3))
    assert abs(engine.clock_offset() + timedelta(hours=3)) < timedelta(minutes=1)


def test_a_container_is_connected_as_it_is_configured() -> None:
    api = _Api()
    entry = {"ipv4_address": "10.0.0.9", "mac_address": "02:42:ac:11:00:03", "driver_opts": {"a": "b"}, "priority": 7}
    _engine(api).connect("it", "net", entry, ["web"])
    assert api.connected == {
        "aliases": ["web"],
        "ipv4_address": "10.0.0.9",
        "mac_address": "02:42:ac:11:00:03",
        "driver_opt": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("driver", "ranges"),
    [
        ("bridge", ["10.0.0.0/24"]),
        ("overlay", ["10.0.0.0/24"]),
        # What the engine does not know of may have an address there: it is the LAN's.
        ("macvlan", []),
        ("ipvlan", []),
        ("somebodys/plugin", []),
    ],
)
def test_only_where_all_addresses_are_the_engines_is_there_a_range(driver: str, ranges: list[str]) -> None:
    network = {
        "Driver": driver,
        "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]},
        "Containers": {"x": {"IPv4Address": "10.0.0.2/24", "IPv6Address": ""}},
    }
    assert _engine(_Api(network)).addresses("net") == (ranges, ["10.0.0.1", "10.0.0.2"])


def test_the_engines_clock_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    api = _Api()
    engine, told = _engine(api), datetime(2026, 11, 23, 15, 46, 7, 640747, tzinfo=timezone.utc)
    assert engine.now() == told
    api.refuses = True
    now[0] += 20
    assert engine.now() == told + timedelta(seconds=20)
    now[0] += 20
    assert engine.now() == START, "asked again, and refused"


@pytest.mark.parametrize(
    ("options", "folder", "shift"),
    [
        (["name=seccomp,profile=builtin", "name=cgroupns"], "/var/lib/docker", (0, 0)),
        (None, "/var/lib/docker", (0, 0)),
        (["name=userns"], "/var/lib/docker/231072.231073", (231072, 231073)),
        (["name=userns"], "/data", None),
        (["name=rootless", "name=cgroupns"], "/home/maria/.local/share/docker", None),
    ],
)
def test_how_far_the_users_of_containers_are_shifted(
    options: list[str] | None, folder: str, shift: tuple[int, int] | None
) -> None:
    assert _engine(_Api(SecurityOptions=options, DockerRootDir=folder)).user_shift() == shift


def test_what_the_engine_refuses_comes_with_the_hint_of_its_message() -> None:
    with pytest.raises(StackError, match="the engine refused: invalid reference format") as caught, errors():
        raise APIError("400 Client Error", explanation="invalid reference format")
    assert caught.value.hint == "correct the service's settings in the compose file"
