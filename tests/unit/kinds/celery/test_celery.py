"""The kind celery: what its script says, and what is made of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service
from shells import context, running

from stackhand.checks.check import CannotAsk, Fix, NoAnswer, Verdict
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.celery import facts
from stackhand.kinds.celery.facts import CeleryFacts, answer_in, collect
from stackhand.kinds.celery.kind import Celery, evaluate_pool, evaluate_queues

MB = 2**20
WELL = CeleryFacts(
    "worker@1", frozenset({"a"}), frozenset({"a"}), concurrency=2, children=(50 * MB, 40 * MB), main=60 * MB
)


@pytest.mark.parametrize(
    ("raw", "recognised"),
    [
        ({"command": ["celery", "-A", "app", "worker"]}, True),
        ({"command": ["celery", "--app=app", "worker", "--beat"]}, True),
        ({"command": ["python3", "-m", "celery", "-A", "app", "worker"]}, True),
        ({"command": ["sh", "-c", "migrate && exec celery -A app worker"]}, True),
        ({"entrypoint": ["/entrypoint.sh"], "command": ["celery", "-A", "app", "worker"]}, True),
        ({"command": ["celery", "-A", "app", "beat"]}, False),
        ({"command": ["celery", "-A", "app", "flower"]}, False),
        ({"command": ["celery", "-A", "worker", "beat"]}, False),
        ({"command": ["celery", "-A", "worker", "flower", "--port=5555"]}, False),
        ({"command": ["celery", "--app", "worker", "-b", "redis://redis", "events"]}, False),
        ({"command": ["celery", "-A", "worker", "-b", "redis://redis", "--workdir", "/worker", "worker"]}, True),
        ({"command": ["celery", "--app=worker", "beat", "--workdir", "worker"]}, False),
        ({"command": ["celery", "-A", "celery", "beat"]}, False),
        ({"command": ["sh", "-c", "celery -A app beat & celery -A app worker"]}, True),
        ({"command": ["sh", "-c", "celery -A app worker; true"]}, True),
        ({"command": ["celery", "-A"]}, False),
        ({"command": ["watchfiles", "celery -A app worker", "app"]}, True),
        ({"command": ["watchfiles", "--filter", "python", "celery -A worker beat"]}, False),
        (
            {"command": ["watchmedo", "auto-restart", "-d", "app", "-p", "*.py", "--", "celery", "-A", "a", "worker"]},
            True,
        ),
        ({"command": ["uv", "run", "--package", "shop", "celery", "-A", "app", "worker"]}, True),
        ({"command": ["celery", "worker"]}, True),
        ({"command": ["/start-celeryworker"]}, True),
        ({"command": ["bash", "/scripts/celery-worker.sh"]}, True),
        ({"command": ["/start-celerybeat"]}, False),
        ({"command": ["/start-flower"]}, False),
        ({"command": ["celery", "-A", "celery_worker", "beat"]}, False),
        ({"command": ["worker", "celery"]}, False),
        ({"healthcheck": {"test": "celery -A app inspect ping -d celery@$HOSTNAME"}}, True),
        ({"healthcheck": {"test": "celery -A app status"}}, True),
        ({"command": ["gunicorn"], "healthcheck": {"test": "celery -A app status"}}, False),
        ({}, False),
    ],
)
def test_recognition(raw: dict[str, Any], recognised: bool) -> None:
    assert Celery().matches(traits(service("it", image="celery-thing", raw=raw))) is recognised


def _queues(**changes: Any) -> Verdict:
    return evaluate_queues("worker", replace(WELL, **changes), Fix("restart", lambda: None))


@pytest.mark.parametrize(
    ("changes", "status", "fixable", "says"),
    [
        ({}, "ok", False, "it consumes a"),
        ({"queues": frozenset()}, "fail", True, "consumes nothing"),
        ({"queues": frozenset(), "active": 2}, "fail", False, "still works on 2 tasks"),
        ({"wanted": frozenset({"a", "b"})}, "warn", False, "does not consume b"),
        ({"queues": frozenset({"a", "added"})}, "ok", False, "it consumes a, added"),
    ],
)
def test_queues(changes: dict[str, Any], status: str, fixable: bool, says: str) -> None:
    finding = _queues(**changes)
    assert (finding.status, finding.fix is not None) == (status, fixable)
    assert says in finding.summary
    assert finding.remedy or status == "ok"


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, None),
        ({"cpus": 1.0}, None),
        ({"cpus": 1.0, "concurrency": 3}, "`--concurrency=2`"),
        ({"cpus": 0.25}, "`--concurrency=1`"),
        ({"cpus": 1.0, "concurrency": 8, "autoscale": "8,3"}, "`--autoscale=2,2`"),
        ({"memory_limit": 512 * MB, "memory_used": 160 * MB}, None),
        # 0.9 * 200 - 60 leaves room for two of 50 MB.
        ({"memory_limit": 200 * MB, "concurrency": 4, "memory_used": 100 * MB}, "`--concurrency=2`"),
        ({"memory_limit": 512 * MB, "memory_used": 500 * MB, "concurrency": 4}, "`--concurrency=3`"),
        ({"memory_limit": 100 * MB, "memory_used": 95 * MB, "concurrency": 1}, "a higher memory limit"),
    ],
)
def test_pool(changes: dict[str, Any], remedy: str | None) -> None:
    (finding,) = evaluate_pool(replace(WELL, **changes))
    assert finding.status == ("warn" if remedy else "ok")
    assert finding.remedy.startswith(remedy or "")
    assert not finding.fix


def test_a_pool_that_is_none_of_processes() -> None:
    assert list(evaluate_pool(replace(WELL, children=(), cpus=0.1, concurrency=500))) == []


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        ({"kind": "silent", "error": "worker@1 does not answer"}, NoAnswer, "does not answer"),
        ({"kind": "silent", "error": "x", "solo": True}, CannotAsk, "solo"),
        ({"kind": "broker", "error": "OperationalError: refused"}, NoAnswer, "refused"),
        ({"kind": "app", "error": "ImportError: no"}, CannotAsk, "could not be loaded to ask it: ImportError"),
        ({"kind": "control", "error": "no remote control"}, CannotAsk, "no remote control"),
    ],
)
def test_why_there_is_no_answer(said: dict[str, Any], error: type[NoAnswer], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        answer_in("noise of the application\n" + json.dumps(said) + "\n", ["redis"])
    assert type(caught.value) is error
    assert caught.value.blames == (("redis",) if said["kind"] == "broker" else ())


def test_no_answer_at_all() -> None:
    with pytest.raises(NoAnswer, match="printed no answer"):
        answer_in("")


class _Engine:
    """Gives the same answer to whatever is asked."""

    def __init__(self, answer: ExecResult) -> None:
        self.answer = answer
        self.restarted: list[str] = []

    def containers(self, project: str) -> list[Any]:
        return [container("worker", cpus=2.0, memory_limit=512 * MB)]

    def memory(self, container: str) -> int:
        return 100 * MB

    def ask(self, *_: Any, **__: Any) -> ExecResult:
        return self.answer


def test_facts(tmp_path: Path) -> None:
    said = {
        "name": "w@1",
        "queues": ["a"],
        "wanted": ["a"],
        "concurrency": 2,
        "autoscale": "",
        "children": [1],
        "main": 2,
    }
    stage = context(project(service("worker")), _Engine(ExecResult(0, f"noise\n{json.dumps(said)}\n")), tmp_path)
    found = collect(stage, "worker")
    assert found == CeleryFacts("w@1", frozenset("a"), frozenset("a"), 0, 2, "", (1,), 2, 2.0, 512 * MB, 100 * MB)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (ExecResult(None, "", seconds=12.0), NoAnswer, "no answer within 12 s"),
        (ExecResult(127, ""), CannotAsk, "no shell"),
        (ExecResult(3, "none of its processes can be seen"), CannotAsk, "none of its processes"),
        (ExecResult(4, "33:33"), CannotAsk, "cannot be looked at"),
        (ExecResult(1, "", "python: error while loading"), NoAnswer, "error while loading"),
    ],
)
def test_the_script_does_not_get_far(tmp_path: Path, answer: ExecResult, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        collect(context(project(service("worker")), _Engine(answer), tmp_path), "worker")


class _Dropped(_Engine):
    """Its worker is another user's than the container's: an entrypoint has dropped root's rights."""

    def __init__(self, answer: ExecResult) -> None:
        super().__init__(answer)
        self.users: list[str] = []

    def ask(self, *_: Any, user: str, **__: Any) -> ExecResult:
        self.users.append(user)
        return self.answer if user else ExecResult(4, "33:34\n")


def test_a_worker_is_asked_as_its_own_user(tmp_path: Path) -> None:
    said = {
        "name": "w@1",
        "queues": ["a"],
        "wanted": ["a"],
        "concurrency": 2,
        "autoscale": "",
        "children": [],
        "main": 0,
    }
    engine = _Dropped(ExecResult(0, json.dumps(said)))
    assert collect(context(project(service("worker")), engine, tmp_path), "worker").name == "w@1"
    assert engine.users == ["", "33:34"]


@pytest.mark.parametrize(
    ("environment", "brokers"),
    [
        ({"CELERY_BROKER_URL": "redis://redis:6379/0"}, ["redis"]),
        ({"AMQP_URL": "amqp://user:word@rabbit//"}, ["rabbit"]),
        ({"BROKER_HOST": "rabbit"}, ["rabbit"]),
        ({"DATABASE_URL": "postgresql://app@db/app"}, []),
        ({}, []),
    ],
)
def test_the_broker_of_a_worker(tmp_path: Path, environment: dict[str, str], brokers: list[str]) -> None:
    made = project(service("worker", environment=environment), service("redis"), service("rabbit"), service("db"))
    assert facts.brokers(context(made, _Engine(ExecResult(0, "")), tmp_path), "worker") == brokers


DEAF = {"name": "w@1", "queues": [], "wanted": ["a"], "concurrency": 1, "autoscale": "", "children": [], "main": 0}


class _Workers(_Engine):
    """Some workers of one service, all of them deaf."""

    def __init__(self, number: int) -> None:
        super().__init__(ExecResult(0, json.dumps(DEAF)))
        self.workers = [container("worker", number=each + 1) for each in range(number)]

    def containers(self, project: str) -> list[Any]:
        return [*running("redis"), *self.workers]

    def restart(self, container: str) -> None:
        self.restarted.append(container)


@pytest.mark.parametrize(("workers", "restarted"), [(1, ["worker"]), (2, ["id-worker-2"])])
def test_only_the_deaf_one_is_restarted(tmp_path: Path, workers: int, restarted: list[str]) -> None:
    engine = _Workers(workers)
    stage = context(project(service("worker"), service("redis")), engine, tmp_path)
    check = next(each for each in Celery().checks() if each.id == "celery.consumes")
    (verdict,) = check.run(stage.for_container(engine.workers[-1]) if workers > 1 else stage, "worker")
    assert verdict.fix
    assert (verdict.fix.does, verdict.fix.strength) == ("restart", "restart")
    verdict.fix.act()
    assert engine.restarted == restarted
