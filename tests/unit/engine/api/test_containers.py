"""Containers as data: from an engine's inspect document."""

from __future__ import annotations

from typing import Any

import pytest

from stackhand.engine.api.containers import parse

STARTED = "2026-11-23T15:46:07.640747292Z"


def document(**state: Any) -> dict[str, Any]:
    return {
        "Id": "abc",
        "Name": "/shop-api-2",
        "Image": "sha256:1",
        "RestartCount": 4,
        "Config": {
            "Labels": {
                "com.docker.compose.service": "api",
                "com.docker.compose.container-number": "2",
                "com.docker.compose.config-hash": "h",
            },
            "Healthcheck": state.pop("healthcheck", None),
        },
        "State": {"Status": "running", "StartedAt": STARTED, "FinishedAt": "0001-01-01T00:00:00Z", **state},
        "NetworkSettings": {"Networks": {"shop_default": {}}},
    }


def test_all_of_it() -> None:
    it = parse(document(ExitCode=3, OOMKilled=True, Error="oh"))
    assert (it.id, it.name, it.service, it.number, it.image_id) == ("abc", "shop-api-2", "api", 2, "sha256:1")
    assert (it.config_hash, it.restart_count, it.exit_code, it.oom_killed, it.error) == ("h", 4, 3, True, "oh")
    assert it.started_at is not None
    assert it.started_at.isoformat() == "2026-11-23T15:46:07.640747+00:00"
    assert it.finished_at is None
    assert it.networks == {"shop_default"}
    assert it.running


@pytest.mark.parametrize(
    ("status", "probed", "health"),
    [
        ("healthy", "2026-11-23T15:46:09Z", "healthy"),
        ("unhealthy", "2026-11-23T15:46:09+00:00", "unhealthy"),
        ("starting", None, "starting"),
        ("none", None, "none"),
        # The verdict of the run before: a container keeps it until its next probe.
        ("healthy", "2026-11-23T15:46:05Z", "starting"),
        ("unhealthy", "2026-11-23T17:46:05+02:00", "starting"),
    ],
)
def test_health_is_about_this_run_of_the_container(status: str, probed: str | None, health: str) -> None:
    log = [{"Start": probed, "Output": " said so \n", "ExitCode": 0}] if probed else []
    it = parse(document(Health={"Status": status, "Log": log}))
    assert it.health == health
    assert it.probe_output == ("said so" if probed else "")


@pytest.mark.parametrize(
    ("raw", "argv", "interval", "timeout"),
    [
        ({"Test": ["CMD", "check", "-x"]}, ("check", "-x"), 30, 30),
        ({"Test": ["CMD-SHELL", "a && b"], "Interval": 10**9}, ("/bin/sh", "-c", "a && b"), 1, 30),
        ({"Test": ["CMD", "c"], "Interval": 5 * 10**8, "Timeout": 2 * 10**9}, ("c",), 0.5, 2),
    ],
)
def test_healthchecks(raw: dict[str, Any], argv: tuple[str, ...], interval: float, timeout: float) -> None:
    check = parse(document(healthcheck=raw)).healthcheck
    assert check is not None
    assert (check.argv, check.interval, check.timeout) == (argv, interval, timeout)


def test_a_healthcheck_runs_more_often_in_its_start_period() -> None:
    """Engines before 25 have no StartInterval, and probe every interval also then."""
    raw = {"Test": ["CMD", "c"], "Interval": 30 * 10**9, "StartPeriod": 60 * 10**9}
    old = parse(document(healthcheck=raw)).healthcheck
    new = parse(document(healthcheck={**raw, "StartInterval": 10**9})).healthcheck
    assert old and new
    assert [old.every(up) for up in (0, 59, 60)] == [30, 30, 30]
    assert [new.every(up) for up in (0, 59, 60)] == [1, 1, 30]


@pytest.mark.parametrize("raw", [None, {}, {"Test": []}, {"Test": ["NONE"]}, {"Test": ["CMD"]}])
def test_no_healthcheck(raw: dict[str, Any] | None) -> None:
    assert parse(document(healthcheck=raw)).healthcheck is None


@pytest.mark.parametrize(
    ("status", "running", "stopped"),
    [
        ("running", True, False),
        ("created", False, False),
        ("restarting", False, False),
        ("paused", False, False),
        ("exited", False, True),
        ("dead", False, True),
    ],
)
def test_what_counts_as_running(status: str, running: bool, stopped: bool) -> None:
    it = parse(document(Status=status))
    assert (it.running, it.stopped) == (running, stopped)
