"""Ready, waiting or dead: decided from one snapshot."""

from __future__ import annotations

import pytest
from builders import CHECK, container, ended, healthy

from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import Probe
from stackhand.services.start.readiness import Expectation, Verdict, after_probe, crashed_at_start, evaluate, pause

SERVER = Expectation()
ONE_SHOT = Expectation(one_shot=True)
ALWAYS = Expectation()


def judged(
    it: Container, expected: Expectation = SERVER, *, up: float = 0, looping: float | None = None, oom: bool = False
):
    return evaluate(it, expected, up=up, looping=looping, oom=oom)


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (judged(healthy()), "healthy"),
        (judged(healthy(), up=0.0), "healthy"),
        (judged(container(), up=1.0), "running"),
        (judged(container(), Expectation(settle=0), up=0.0), "running"),
        (judged(container(), up=1.5, looping=3.0), "running"),
        (judged(ended(), ONE_SHOT), "completed"),
        (judged(ended(healthcheck=CHECK), ONE_SHOT), "completed"),
        (judged(ended()), "completed"),
    ],
)
def test_ready(verdict: Verdict, state: str) -> None:
    assert (verdict.kind, verdict.state, verdict.failure) == ("ready", state, None)


@pytest.mark.parametrize(
    "verdict",
    [
        judged(container(status="created")),
        judged(container(status="created"), ONE_SHOT),
        judged(container(), up=0.99),
        judged(container(), Expectation(settle=5), up=4.9),
        # A short settle time must not call a crash loop ready between two crashes.
        judged(container(), Expectation(settle=0), up=0.5, looping=2.0),
        judged(healthy(health="starting")),
        # Some services are unhealthy first and healthy later; the time limit is for those that never are.
        judged(healthy(health="unhealthy")),
        judged(healthy(health="starting"), up=1000),
        # A one-shot is ready when it has completed, whatever its healthcheck says.
        judged(container(), ONE_SHOT, up=1000),
        judged(healthy(), ONE_SHOT, up=1000),
        judged(container(status="restarting", restart_count=1), ALWAYS, looping=0.1),
        judged(container(status="restarting", restart_count=2), ALWAYS, looping=100),
        judged(container(status="restarting", restart_count=50), ALWAYS, looping=14),
        judged(container(status="restarting", restart_count=4), Expectation(retries=5), looping=100),
    ],
)
def test_wait(verdict: Verdict) -> None:
    assert verdict.kind == "wait"


@pytest.mark.parametrize(
    ("verdict", "kind", "says", "code", "retry"),
    [
        (judged(ended(code=1)), "exited", "code 1", 1, True),
        (judged(ended(code=3), ONE_SHOT), "exited", "code 3", 3, True),
        (judged(ended(healthcheck=CHECK)), "exited", "code 0 before it was ready", 0, True),
        (judged(ended(code=137)), "exited", "signal 9", 137, True),
        (judged(ended(code=143)), "exited", "signal 15", 143, True),
        (judged(ended(code=137, oom_killed=True)), "out_of_memory", "out of memory", 137, True),
        (judged(ended(code=137), oom=True), "out_of_memory", "out of memory", 137, True),
        (judged(ended(code=127)), "exited", "was not found", 127, False),
        (judged(ended(code=126)), "exited", "can't be executed", 126, False),
        (judged(ended(code=0, error="no such device")), "exited", "no such device", 0, True),
        (judged(ended(code=0, error="no such device"), ONE_SHOT), "exited", "no such device", 0, True),
        (judged(container(status="dead", exit_code=1)), "exited", "code 1", 1, True),
        (judged(container(status="paused")), "paused", "paused", None, False),
        (judged(container(status="paused"), ONE_SHOT), "paused", "paused", None, False),
        (
            judged(container(status="restarting", restart_count=3, exit_code=4), ALWAYS, looping=15),
            "restart_loop",
            "3 restarts, it last exited with code 4",
            4,
            False,
        ),
        (
            judged(container(status="restarting", restart_count=9, exit_code=137), ALWAYS, looping=99, oom=True),
            "restart_loop",
            "ran out of memory",
            137,
            False,
        ),
    ],
)
def test_dead(verdict: Verdict, kind: str, says: str, code: int | None, retry: bool) -> None:
    assert verdict.kind == "dead"
    assert verdict.failure is not None
    assert verdict.failure.kind == kind
    assert says in verdict.failure.reason
    assert verdict.failure.exit_code == code
    assert verdict.failure.retry is retry
    assert verdict.failure.hint


@pytest.mark.parametrize(
    ("it", "code", "kind"),
    [
        (healthy(health="starting"), 0, "ready"),
        (healthy(health="unhealthy"), 0, "ready"),
        (healthy(health="starting"), 1, "wait"),
        (healthy(health="starting"), None, "wait"),
        # The probe's word is no good once the container has ended.
        (ended(healthcheck=CHECK), 0, "wait"),
    ],
)
def test_after_a_probe(it: Container, code: int | None, kind: str) -> None:
    assert after_probe(it, Probe(code, "", 0.1)).kind == kind


def test_probes_start_fast_and_slow_down() -> None:
    pauses = [pause(age, 0.05, 30) for age in (0, 1, 5, 20, 60, 600)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.1
    assert pauses[-1] <= 2.0


@pytest.mark.parametrize(
    ("age", "cost", "interval", "least", "most"),
    [
        (0, 1.0, 30, 1.0, 2.0),  # an expensive probe is not run all the time
        (0, 60, 30, 2.0, 2.0),
        (100, 0.05, 1, 0.9, 1.0),  # never more slowly than the engine itself
        (100, 0.05, 0.01, 0.0, 0.01),
        (0, 0.0, 30, 0.01, 0.1),  # never without any pause
    ],
)
def test_pause(age: float, cost: float, interval: float, least: float, most: float) -> None:
    assert least <= pause(age, cost, interval) <= most


@pytest.mark.parametrize(
    ("code", "oom", "seconds"),
    [(1, False, 2.0), (0, False, None), (137, False, None), (143, False, None), (137, True, 2.0), (139, False, 2.0)],
)
def test_a_crash_at_its_start(code: int, oom: bool, seconds: float | None) -> None:
    assert crashed_at_start(ended(code=code, oom_killed=oom)) == seconds
