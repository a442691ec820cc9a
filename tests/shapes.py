"""The services that engine tests are made of, and what to look at afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psutil
import pytest
from support import PATIENCE, Project

# Retries without the waiting.
FAST = {"INVOKE_STACKHAND_START_RETRY_DELAY": "0.1", "INVOKE_STACKHAND_FIXES_PATIENCE": "2"}
FOREVER = "exec sleep 100000"
# The engine's own first probe comes after one interval. Whoever waits for that here waits for ever.
NEVER_BY_ITSELF = "300s"


def compose_version(project: Project) -> tuple[int, ...]:
    """Return the first two numbers of the version of Compose."""
    return tuple(int(part) for part in project.compose("version", "--short").strip().lstrip("v").split(".")[:2])


def needs_compose(project: Project, *version: int) -> None:
    """Skip a test of what an older Compose does not have."""
    if compose_version(project) < version:
        pytest.skip(f"Compose {'.'.join(map(str, version))} has it")


def sh(script: str) -> list[str]:
    """Return a command that runs a shell script; Compose leaves its dollars alone."""
    return ["sh", "-c", script.replace("$", "$$")]


def check(script: str = "test -f /tmp/ready", interval: str = NEVER_BY_ITSELF, **more: Any) -> dict[str, Any]:
    """Return a healthcheck that is content when the script is."""
    return {"test": ["CMD-SHELL", script.replace("$", "$$")], "interval": interval, "timeout": "5s", **more}


def server(after: float = 0, **more: Any) -> dict[str, Any]:
    """Return a service with a healthcheck that is healthy some seconds after its start."""
    wait = f"sleep {after}; " if after else ""
    return {"command": sh(f"{wait}touch /tmp/ready; {FOREVER}"), "healthcheck": check(), **more}


def gated(**more: Any) -> dict[str, Any]:
    """Return a service that becomes healthy when `open_gate` is called, and not before."""
    return {"command": sh(FOREVER), "healthcheck": check(), **more}


def open_gate(project: Project, service: str) -> None:
    """Make a gated service healthy."""
    project.docker("exec", project.container(service)["Id"], "touch", "/tmp/ready")


def plain(**more: Any) -> dict[str, Any]:
    """Return a service without a healthcheck that stays up."""
    return {"command": sh(FOREVER), **more}


def one_shot(code: int = 0, script: str = "echo done its work", **more: Any) -> dict[str, Any]:
    """Return a service that does something and ends."""
    return {"command": sh(f"{script}; exit {code}"), **more}


def after(**conditions: str) -> dict[str, dict[str, str]]:
    """Return `depends_on` from short words: `after(db="healthy", cache="started")`."""
    words = {"started": "service_started", "healthy": "service_healthy", "completed": "service_completed_successfully"}
    return {name.replace("__", "-"): {"condition": words[word]} for name, word in conditions.items()}


def until(happened: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.02)


def runs(project: Project, service: str) -> bool:
    """Return whether a service has a running container."""
    return any(each["State"]["Running"] for each in project.containers(service))


def moment(container: dict[str, Any], key: str = "StartedAt") -> datetime:
    """Return one of the engine's times about a container."""
    text = container["State"][key]
    return datetime.fromisoformat(text[:26].rstrip("Z").ljust(26, "0") + "+00:00")


def ready_since(project: Project, container: dict[str, Any]) -> datetime:
    """Return when a container made itself ready, by the engine's clock: when it wrote /tmp/ready.

    How long that is after its start says little: the engine notes a start when it gets to it.
    """
    text = project.docker("exec", container["Id"], "stat", "-c", "%y", "/tmp/ready")
    return datetime.fromisoformat(text[:26] + "+00:00")


def fingerprint(project: Project) -> dict[str, tuple[str, str]]:
    """Return what must stay the same where nothing may change: every container's id and the time of its start."""
    return {each["Name"]: (each["Id"], each["State"]["StartedAt"]) for each in project.containers()}


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the services of a start's document by their names."""
    return {each["name"]: each for each in document["services"]}


def states(document: dict[str, Any]) -> dict[str, str]:
    """Return the state of each service in a start's document."""
    return {each["name"]: each["state"] for each in document["services"]}


def check_start_document(document: dict[str, Any]) -> None:
    """Check that a start's document has all that contract.md says, and of the right types."""
    assert set(document) >= {"project", "ok", "elapsed", "critical_path", "services", "findings", "fixes"}
    assert isinstance(document["project"], str)
    assert isinstance(document["ok"], bool)
    assert document["elapsed"] >= 0
    assert all(isinstance(name, str) for name in document["critical_path"])
    for service in document["services"]:
        assert set(service) >= {
            "name", "state", "attempts", "started_at", "ready_after", "waited_for", "error",
        }  # fmt: skip
        assert service["state"] in ("healthy", "running", "completed", "failed", "skipped")
        assert isinstance(service["attempts"], int)
        assert isinstance(service["waited_for"], list)
        if service["started_at"] is not None:
            assert service["started_at"].endswith("Z")
            datetime.fromisoformat(service["started_at"].replace("Z", "+00:00"))
        error = service["error"]
        if service["state"] in ("failed", "skipped"):
            assert set(error) >= {"reason", "exit_code", "probe_output", "log_tail"}
            assert error["reason"]
            assert isinstance(error["log_tail"], list)
            assert error["exit_code"] is None or isinstance(error["exit_code"], int)
        else:
            assert error is None
            assert service["started_at"] is not None
            assert service["ready_after"] >= 0
    for finding in document["findings"]:
        check_finding(finding)
    for outcome in document["fixes"]:
        check_outcome(outcome)


def check_finding(finding: dict[str, Any]) -> None:
    """Check that a finding is as contract.md says."""
    keys = {"id", "service", "phase", "status", "summary", "evidence", "remedy", "fixable"}
    assert set(finding) >= keys
    assert finding["status"] in ("ok", "warn", "fail", "skip")
    assert isinstance(finding["fixable"], bool)


def check_outcome(outcome: dict[str, Any]) -> None:
    """Check that what a fix did is as contract.md says."""
    assert set(outcome) >= {"id", "finding", "action", "applied", "ok", "error"}
    assert isinstance(outcome["ok"], bool)


def processes_of(project: Project) -> list[str]:
    """Return the processes on this machine that were started for the project, however far down the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("COMPOSE_PROJECT_NAME") == project.name and process.status() != "zombie":
                found.append(f"{process.pid}: {' '.join(process.cmdline())}")
        except psutil.Error:
            continue
    return found
