"""A start that is interrupted, killed, or not alone."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from shapes import (
    PATIENCE,
    after,
    fingerprint,
    gated,
    needs_compose,
    open_gate,
    plain,
    processes_of,
    runs,
    server,
    states,
    until,
)
from support import IMAGE, Background, Project, Result

# It takes half a second, and on a busy machine more. What is interrupted would go on for two minutes and longer.
CLEAN_WITHIN = 30.0


def interrupt(project: Project, running: Background, number: signal.Signals) -> Result:
    """Send a signal and wait for the end; check that it came soon and left no process behind."""
    began = time.monotonic()
    running.signal(number)
    result = running.wait(PATIENCE)
    took = time.monotonic() - began
    left = processes_of(project)
    assert result.code == 130, result
    assert took <= CLEAN_WITHIN, f"it took {took:.2f} s to stop\n{result}"
    assert left == []
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    return result


def last_words(result: Result) -> str:
    """Return what was said from the interrupt on."""
    assert "error: interrupted" in result.stderr, result
    return result.stderr[result.stderr.rindex("error: interrupted") :]


@pytest.mark.mechanism
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_it_waits(project: Project, number: signal.Signals) -> None:
    project.services(db=server(), slow=gated(), api=plain(depends_on=after(db="healthy", slow="healthy")))
    running = project.start_inv("services.start")
    running.wait_for("db: healthy")
    until(lambda: runs(project, "slow"), "slow runs")
    result = interrupt(project, running, number)
    words = last_words(result)
    assert "db" in words
    assert "slow" in words
    assert "running" in words

    before = fingerprint(project)
    running = project.start_inv("services.start", "--json")
    open_gate(project, "slow")
    result = running.wait()
    assert result.code == 0, result
    assert states(result.json()) == {"db": "healthy", "slow": "healthy", "api": "running"}
    now = fingerprint(project)
    for name in (project.container("db")["Name"], project.container("slow")["Name"]):
        assert now[name] == before[name]


@pytest.mark.mechanism
def test_killed_while_a_hook_runs(project: Project) -> None:
    needs_compose(project, 2, 30)
    hook = [{"command": ["sh", "-c", "echo x >>/tmp/hooks; test $$(wc -l </tmp/hooks) -gt 1 || sleep 120"]}]
    project.services(web=plain(post_start=hook))
    running = project.start_inv("services.start")
    until(lambda: runs(project, "web"), "web runs")
    until(lambda: project.compose("exec", "web", "cat", "/tmp/hooks", check=False).split() == ["x"], "its hook runs")
    running.signal(signal.SIGKILL)
    running.wait()
    assert project.inv("services.status").code == 1, "not all of its start was done"
    assert project.inv("services.start", "--json").json()["ok"]
    assert project.compose("exec", "web", "cat", "/tmp/hooks").split() == ["x", "x"]
    before = fingerprint(project)
    assert project.inv("services.start").code == 0
    assert fingerprint(project) == before


def test_in_json_it_is_one_document(project: Project) -> None:
    project.services(slow=gated())
    running = project.start_inv("services.start", "--json")
    until(lambda: runs(project, "slow"), "slow runs")
    result = interrupt(project, running, signal.SIGTERM)
    document = json.loads(result.stdout)
    assert document["ok"] is False


@pytest.mark.mechanism
def test_while_it_builds(project: Project) -> None:
    (project.directory / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo building && sleep 120\n")
    project.write({"services": {"web": {"build": "."}}})
    running = project.start_inv("services.start")
    running.wait_for("building its image")
    until(lambda: any(" build" in each for each in processes_of(project)), "the build runs")
    interrupt(project, running, signal.SIGINT)
    assert project.containers() == []


@pytest.mark.mechanism
@pytest.mark.parametrize("when", ["creating", "starting", "waiting"])
def test_killed(project: Project, when: str) -> None:
    project.services(db=gated(), api=plain(depends_on=after(db="healthy")))
    running = project.start_inv("services.start")
    if when == "waiting":
        until(lambda: runs(project, "db"), "db runs")
    elif when == "starting":
        running.wait_for("db: starting")
    else:
        until(lambda: any(" create " in each for each in processes_of(project)), "compose creates")
    running.process.kill()
    running.wait()
    # What Compose was doing on its own goes on, or has ended.
    until(lambda: not processes_of(project), "compose has ended")

    running = project.start_inv("services.start", "--json")
    until(lambda: runs(project, "db"), "db runs")
    open_gate(project, "db")
    result = running.wait()
    assert result.code == 0, result
    assert states(result.json()) == {"db": "healthy", "api": "running"}
    assert len(project.containers()) == 2


def test_two_at_once(project: Project) -> None:
    project.services(db=gated(), api=plain(depends_on=after(db="healthy")))
    first = project.start_inv("services.start", "--json")
    until(lambda: runs(project, "db"), "db runs")
    for task in ("services.start", "services.stop", "up.db"):
        began = time.monotonic()
        second = project.inv(task, "--json")
        assert second.code == 1, second
        assert time.monotonic() - began < 60, "it does not wait for the lock"
        document: dict[str, Any] = second.json()
        assert document["ok"] is False
        line = next(line for line in second.stderr.splitlines() if line.startswith("error: "))
        assert "services.start" in line
        assert f"process {first.process.pid} " in line
    # Looking is no change.
    assert project.inv("services.status").code == 1
    open_gate(project, "db")
    result = first.wait()
    assert result.code == 0, result
    assert states(result.json()) == {"db": "healthy", "api": "running"}
