"""What the client asks the engine for, as the SDK is called."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from stackhand.engine.api.client import Engine


class _Api:
    def __init__(self, network: dict[str, Any] | None = None, **info: Any) -> None:
        self._network = network or {}
        self._info = info
        self.connected: dict[str, Any] = {}

    def connect_container_to_network(self, container: str, network: str, **options: Any) -> None:
        self.connected = {key: value for key, value in options.items() if value}

    def info(self) -> dict[str, Any]:
        return {"SystemTime": "2026-11-23T16:46:07.640747292+01:00", **self._info}

    def inspect_network(self, network: str) -> dict[str, Any]:
        return self._network


def _engine(api: _Api) -> Engine:
    made = Engine({})
    made._api = api
    return made


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


def test_the_engines_clock() -> None:
    assert _engine(_Api()).now() == datetime(2026, 11, 23, 15, 46, 7, 640747, tzinfo=timezone.utc)


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
