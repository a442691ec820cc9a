"""The kind celery: what its script says, and what is made of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service
from shells import Shell, context, running

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.celery.facts import CeleryFacts, look, said_by
from stackhand.kinds.celery.kind import Celery, judge_pool, judge_queues
from stackhand.model import Finding

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


def _queues(**changes: Any) -> Finding:
    (finding,) = judge_queues("worker", replace(WELL, **changes))
    return finding


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
    assert (finding.status, finding.fixable) == (status, fixable)
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
    (finding,) = judge_pool("worker", replace(WELL, **changes))
    assert finding.status == ("warn" if remedy else "ok")
    assert finding.remedy.startswith(remedy or "")
    assert not finding.fixable


def test_a_pool_that_is_none_of_processes() -> None:
    assert list(judge_pool("worker", replace(WELL, children=(), cpus=0.1, concurrency=500))) == []


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
def test_why_there_is_no_answer(said: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        said_by("noise of the application\n" + json.dumps(said) + "\n")
    assert type(caught.value) is error


def test_no_answer_at_all() -> None:
    with pytest.raises(NoAnswer, match="printed no answer"):
        said_by("")


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
    facts = look(stage, "worker")
    assert facts == CeleryFacts("w@1", frozenset("a"), frozenset("a"), 0, 2, "", (1,), 2, 2.0, 512 * MB, 100 * MB)


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
        look(context(project(service("worker")), _Engine(answer), tmp_path), "worker")


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
    assert look(context(project(service("worker")), engine, tmp_path), "worker").name == "w@1"
    assert engine.users == ["", "33:34"]


@pytest.mark.parametrize(("workers", "restarted"), [(1, ["worker"]), (2, ["id-worker-2"])])
def test_only_the_deaf_one_is_restarted(tmp_path: Path, workers: int, restarted: list[str]) -> None:
    all_of_them = [container("worker", number=number + 1) for number in range(workers)]
    shell = Shell(tmp_path / "bin", {}, [*running("redis"), *all_of_them])
    stage = context(project(service("worker"), service("redis")), shell, tmp_path)
    deaf = Finding("celery.consumes", "worker", "services", "fail", "deaf", fixable=True, subject=all_of_them[-1].name)
    Celery().fixes()["celery.consumes"].act(stage, deaf)
    assert shell.restarted == restarted
