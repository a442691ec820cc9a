"""Containers that share a namespace: which have lost it, and what puts that right."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from builders import START, container, needs, project, service

from stackhand.checks.check import Fix
from stackhand.engine.api.containers import Container, parse
from stackhand.engine.compose.project import Shared
from stackhand.services.checks.shared import evaluate_outside, evaluate_shared
from stackhand.services.start import sharing
from stackhand.services.start.facts import by_service

LATER = START + timedelta(minutes=1)
RESTART = Fix("restart", lambda: None, "restart")
RECREATE = Fix("make a new container of", lambda: None, "recreate")


def web(what: Shared = "network", other: str = "id-vpn-1", **more: Any) -> Container:
    return container("web", shares=((what, other),), **more)


@pytest.mark.parametrize(
    ("setting", "mine", "vpn", "fix"),
    [
        ({"network_mode": "service:vpn"}, web(), container("vpn"), None),
        ({"network_mode": "service:vpn"}, web(started_at=LATER), container("vpn"), None),
        ({"network_mode": "service:vpn"}, web(), container("vpn", started_at=LATER), RESTART),
        ({"network_mode": "service:vpn"}, web(other="old"), container("vpn"), RECREATE),
        ({"network_mode": "service:vpn"}, web(other="shop-vpn-1"), container("vpn"), None),
        ({"ipc": "service:vpn"}, web("ipc"), container("vpn", started_at=LATER), RESTART),
        ({"pid": "service:vpn"}, web("pid", "old"), container("vpn"), RECREATE),
        ({"volumes_from": ["vpn:ro"]}, web("volumes"), container("vpn", started_at=LATER), None),
        ({"volumes_from": ["vpn:ro"]}, web("volumes", "old"), container("vpn"), RECREATE),
    ],
)
def test_what_is_lost(setting: dict[str, Any], mine: Container, vpn: Container, fix: Fix | None) -> None:
    shop = project(service("vpn"), service("web", needs("vpn"), raw=setting))
    verdict = evaluate_shared(shop, "web", [mine, vpn], RESTART, RECREATE)
    assert verdict.fix is fix
    assert verdict.status == ("fail" if fix else "ok")
    if fix:
        assert ("without a network" in verdict.summary) is ("network_mode" in setting)


def test_another_containers_volumes_are_not_these() -> None:
    shop = project(service("a"), service("b"), service("web", raw={"volumes_from": ["a", "b", "container:outside"]}))
    mine = container("web", shares=(("volumes", "id-a-1"), ("volumes", "id-b-1"), ("volumes", "outside")))
    there = by_service([mine, container("a"), container("b")])
    assert set(shop.services["web"].shares) == {"a", "b"}
    assert sharing.renewal(shop, "web", there) is None
    gone = by_service([mine, container("a"), container("b", id="new")])
    action = sharing.renewal(shop, "web", gone)
    assert action
    assert (action.verb, action.force) == ("recreate", True)


@pytest.mark.parametrize(
    ("other", "status", "fix"),
    [
        (container("vpn"), "ok", None),
        (container("vpn", started_at=LATER), "fail", RESTART),
        (container("vpn", status="exited"), "fail", None),
        (None, "fail", RECREATE),
    ],
)
def test_one_outside_of_the_project(other: Container | None, status: str, fix: Fix | None) -> None:
    verdict = evaluate_outside(web(), "network", other, RESTART, RECREATE)
    assert (verdict.status, verdict.fix) == (status, fix)


def test_what_the_engine_says_of_it() -> None:
    host = {"NetworkMode": "container:abc", "IpcMode": "private", "PidMode": "container:def", "VolumesFrom": ["ghi:ro"]}
    document = {"Id": "x", "Name": "/web", "State": {"Status": "running"}, "Config": {}, "HostConfig": host}
    assert parse(document).shares == (("network", "abc"), ("pid", "def"), ("volumes", "ghi"))
