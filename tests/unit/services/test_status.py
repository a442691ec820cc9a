"""A service's status from those of its containers, and the findings that follow from facts."""

from __future__ import annotations

import pytest
from builders import container, ended, healthy, project, service

from stackhand.checks.check import Fix
from stackhand.engine.api.containers import Container
from stackhand.services.checks.attached import evaluate_attached
from stackhand.services.checks.ready import evaluate_ready
from stackhand.services.status import ServiceStatus, summarise

STACK = project(
    service("web", networks=("front", "back")),
    service("pair", replicas=2),
    service("none", replicas=0),
    networks={"front": "shop_front", "back": "shop_back"},
)


FIX = Fix("mend", lambda: None)


@pytest.mark.parametrize(
    ("name", "containers", "states", "state", "ready"),
    [
        ("web", [container()], [("running", "")], "running", True),
        ("web", [healthy()], [("healthy", "")], "healthy", True),
        ("web", [ended(code=3)], [("exited", "exit code 3")], "exited", False),
        ("web", [], [], "missing", False),
        ("none", [], [], "completed", True),
        ("pair", [container(), container(number=2)], [("running", ""), ("healthy", "")], "running", True),
        ("pair", [container(), container(number=2)], [("healthy", ""), ("exited", "oh")], "exited", False),
        ("pair", [container()], [("running", "")], "missing", False),
        ("pair", [container()], [("starting", "")], "starting", False),
    ],
)
def test_a_service_is_as_good_as_its_worst_container(
    name: str, containers: list[Container], states: list[tuple[str, str]], state: str, ready: bool
) -> None:
    found = summarise(STACK, name, tuple(containers), states)
    assert (found.state, found.ready) == (state, ready)
    assert found.to_json()["ready"] is ready


@pytest.mark.parametrize(
    ("state", "status", "fixable"),
    [
        ("healthy", "ok", False),
        ("running", "ok", False),
        ("completed", "ok", False),
        ("exited", "fail", True),
        ("missing", "fail", True),
        ("unhealthy", "fail", False),
        ("restarting", "fail", False),
    ],
)
def test_findings_about_services(state: str, status: str, fixable: bool) -> None:
    finding = evaluate_ready(ServiceStatus("web", state, "some detail", ()), FIX)
    assert (finding.status, finding.fix is FIX) == (status, fixable)
    assert bool(finding.remedy) is (status == "fail")


@pytest.mark.parametrize(
    ("attached", "status"),
    [
        ({"shop_front", "shop_back"}, "ok"),
        ({"shop_front", "shop_back", "other"}, "ok"),
        ({"shop_front"}, "fail"),
        (set(), "fail"),
    ],
)
def test_findings_about_networks(attached: set[str], status: str) -> None:
    finding = evaluate_attached(STACK, container(networks=frozenset(attached)), FIX)
    assert finding.status == status
    assert (finding.fix is FIX) is (status == "fail")
    if status == "fail":
        assert "shop_back" in finding.summary
        assert finding.remedy.startswith("docker network connect")
