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
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.celery import facts
from stackhand.kinds.celery.application import StillImporting, answer_in
from stackhand.kinds.celery.facts import CeleryFacts, collect
from stackhand.kinds.celery.kind import Celery, evaluate_import, evaluate_pool, evaluate_queues

MB = 2**20


def said(**document: Any) -> ExecResult:
    """What the program that asks prints, after the noise of an application."""
    return ExecResult(0, "noise\n" + json.dumps({"stage": "import"}) + "\n" + json.dumps(document) + "\n")


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
    ("seconds", "ended", "status", "says"),
    [
        (1.2, True, "ok", "in 1.2 s"),
        (60.4, True, "warn", "it takes 60 s"),
        (80.0, False, "warn", "it takes more than 80 s"),
        (2.0, False, "warn", "more than 2 s"),
    ],
)
def test_a_slow_application(seconds: float, ended: bool, status: str, says: str) -> None:
    verdict = evaluate_import(seconds, ended=ended)
    assert verdict.status == status
    assert says in verdict.summary
    assert ("importtime" in verdict.remedy) is (status == "warn")


@pytest.mark.parametrize(
    ("answer", "error", "says", "late"),
    [
        (said(kind="broker", error="OperationalError: refused"), NoAnswer, "refused", False),
        (said(kind="broker", error="OperationalError: timed out"), NoAnswer, "timed out", True),
        (said(kind="app", error="ImportError: no"), CannotAsk, "could not be loaded to ask it: ImportError", False),
        (said(kind="control", error="no remote control"), CannotAsk, "no remote control", False),
        (replace(said(stage="import"), exit_code=None, seconds=20.0), StillImporting, "imported after 20 s", True),
        (replace(said(stage="ask"), exit_code=None, seconds=20.0), NoAnswer, "no answer within 20 s", True),
        (ExecResult(None, "", seconds=20.0), NoAnswer, "no answer within 20 s", True),
        (ExecResult(0, ""), NoAnswer, "printed no answer", False),
        (ExecResult(1, "", "python: error while loading"), NoAnswer, "error while loading", False),
    ],
)
def test_why_there_is_no_answer(answer: ExecResult, error: type[NoAnswer], says: str, late: bool) -> None:
    with pytest.raises(error, match=says) as caught:
        answer_in(answer, ["redis"])
    assert type(caught.value) is error
    assert caught.value.late is late
    assert caught.value.blames == (("redis",) if '"broker"' in answer.stdout else ())


class World:
    """An engine whose containers are Celery workers. What is wrong with one is in a set by its container's id.

    `asked` has the containers in which an application was imported, each with the workers that were asked from there.
    """

    def __init__(self, *workers: Any) -> None:
        self.workers = workers
        self.asked: list[tuple[str, list[str]]] = []
        self.users: list[str] = []
        self.restarted: list[str] = []
        self.hung: set[str] = set()
        self.deaf: set[str] = set()
        self.cut_off: set[str] = set()
        self.words = "celery\nworker\n-Qa"
        self.owner = ""
        self.imported = 0.5
        self.apps: dict[str, str] = {}

    def containers(self, project: str) -> list[Any]:
        return [*running("redis"), *self.workers]

    def memory(self, container: str) -> int:
        return 100 * MB

    def restart(self, container: str) -> None:
        self.restarted.append(container)

    def ask(self, container: str, argv: Any, *, user: str, environment: Any, timeout: float) -> ExecResult:
        self.users.append(user)
        if user != self.owner:
            return ExecResult(4, f"{self.owner}\n")
        if "STACKHAND_ASK" not in (environment or {}):
            memory = "\036memory 7 2048\n\036memory 8 1024\n\036memory 9 5\n"
            words = f"{self.words}\n-A{self.apps.get(container)}"
            return ExecResult(0, f"\036worker 7 {container}\n{words}\n{memory}")
        question = json.loads(environment["STACKHAND_ASK"])
        self.asked.append((container, sorted(question["workers"])))
        if container in self.cut_off:
            return said(kind="broker", error="OperationalError: refused")
        answers = {key: self._reply(key, each) for key, each in question["workers"].items()}
        return said(workers=answers, default=["celery"], imported=self.imported)

    def _reply(self, key: str, asked: dict[str, str]) -> dict[str, Any]:
        node = {"node": f"celery@{asked['host']}"}
        if key in self.hung | self.cut_off:
            return node
        return {**node, "queues": [] if key in self.deaf else ["a"], "concurrency": 2, "processes": [8], "active": 0}


def stage_of(tmp_path: Path, *workers: Any, **environments: dict[str, str]) -> tuple[CheckContext, World]:
    """Return a context with these workers and a redis, and the world that it asks. Environments are by service."""
    world = World(*workers)
    names = list(dict.fromkeys(each.service for each in workers))
    services = [service(name, environment=environments.get(name, {})) for name in names]
    return context(project(*services, service("redis")), world, tmp_path, celery=names), world


def test_facts(tmp_path: Path) -> None:
    stage, _ = stage_of(tmp_path, container("worker", cpus=2.0, memory_limit=512 * MB))
    assert collect(stage, "worker") == CeleryFacts(
        name="celery@id-worker-1",
        queues=frozenset("a"),
        wanted=frozenset("a"),
        concurrency=2,
        children=(MB,),
        main=2 * MB,
        cpus=2.0,
        memory_limit=512 * MB,
        memory_used=100 * MB,
        imported=0.5,
    )


def test_options_of_the_command_line(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, container("worker"))
    world.words = "python3\n/bin/celery\n-Ashop\nworker\n-X\nb,c\n--autoscale=4,2"
    facts = collect(stage, "worker")
    assert (facts.wanted, facts.autoscale) == (frozenset({"celery"}), "4,2")
    world.words = "celery\nworker\n-Q\na,b,c\n-X\nb"
    stage.invalidate()
    assert collect(stage, "worker").wanted == {"a", "c"}


def test_all_workers_of_an_application_are_asked_at_once(tmp_path: Path) -> None:
    workers = [container(f"worker{number}") for number in range(30)]
    stage, world = stage_of(tmp_path, *workers)
    names = {collect(stage, each.service).name for each in workers}
    assert names == {f"celery@{each.id}" for each in workers}
    assert [asked for _, asked in world.asked] == [sorted(each.id for each in workers)]


def test_of_one_service_too(tmp_path: Path) -> None:
    workers = [container("worker", number=number + 1) for number in range(3)]
    stage, world = stage_of(tmp_path, *workers)
    for each in workers:
        assert collect(stage.for_container(each), "worker").name == f"celery@{each.id}"
    assert len(world.asked) == 1


def test_another_application_is_asked_by_itself(tmp_path: Path) -> None:
    workers = [container("a"), container("b"), container("other"), container("old", image_id="sha256:old")]
    stage, world = stage_of(tmp_path, *workers, other={"CELERY_APP": "other"})
    for each in workers:
        collect(stage, each.service)
    assert sorted(asked for _, asked in world.asked) == [["id-a-1", "id-b-1"], ["id-old-1"], ["id-other-1"]]


def test_a_hung_one_is_named_and_asked_from_its_own_container(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, *(container(name) for name in "abc"))
    world.hung.add("id-b-1")
    assert collect(stage, "a").name == "celery@id-a-1"
    with pytest.raises(NoAnswer, match="celery@id-b-1 does not answer within 3 s, and its broker does") as caught:
        collect(stage, "b")
    assert caught.value.late
    assert collect(stage, "c").name == "celery@id-c-1"
    assert world.asked[1:] == [("id-b-1", ["id-b-1"])]


def test_with_more_time_all_limits_grow(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, container("a"))
    world.hung.add("id-a-1")
    with pytest.raises(NoAnswer, match="within 12 s"):
        collect(stage.with_more_time(4), "a")


def test_one_that_is_cut_off_from_the_broker_does_not_hide_the_others(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, *(container(name) for name in "abc"))
    world.cut_off.add("id-a-1")
    with pytest.raises(NoAnswer, match="refused"):
        collect(stage, "a")
    assert [collect(stage, each).name for each in "bc"] == ["celery@id-b-1", "celery@id-c-1"]


def test_a_broker_that_is_down_is_not_asked_from_everywhere(tmp_path: Path) -> None:
    workers = [container(f"worker{number}") for number in range(30)]
    stage, world = stage_of(tmp_path, *workers)
    world.cut_off.update(each.id for each in workers)
    for each in workers:
        with pytest.raises(NoAnswer, match="refused"):
            collect(stage, each.service)
    assert len(world.asked) == 2


def test_nobody_waits_for_a_slow_application_twice(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, *(container(name) for name in "abc"))
    world.hung.add("id-b-1")
    world.imported = 60.0
    assert collect(stage, "a").imported == 60
    with pytest.raises(NoAnswer, match="celery@id-b-1 does not answer"):
        collect(stage, "b")
    assert len(world.asked) == 1


def test_another_application_in_the_same_image(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, *(container(name) for name in "abc"))
    world.apps["id-c-1"] = "other"
    for name in "abc":
        collect(stage, name)
    assert sorted(asked for _, asked in world.asked) == [["id-a-1", "id-b-1"], ["id-c-1"]]


def test_a_solo_pool_answers_between_tasks(tmp_path: Path) -> None:
    stage, world = stage_of(tmp_path, container("a"))
    world.hung.add("id-a-1")
    world.words = "celery\nworker\n-P\nsolo"
    with pytest.raises(CannotAsk, match="solo"):
        collect(stage, "a")


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (ExecResult(None, "", seconds=5.0), NoAnswer, "no answer within 5 s"),
        (ExecResult(127, ""), CannotAsk, "no shell"),
        (ExecResult(3, "none of its processes can be seen"), CannotAsk, "none of its processes"),
        (ExecResult(4, "33:33"), CannotAsk, "cannot be looked at"),
        (ExecResult(1, "", "sh: error while loading"), NoAnswer, "error while loading"),
    ],
)
def test_the_script_does_not_get_far(tmp_path: Path, answer: ExecResult, error: type[Exception], says: str) -> None:
    stage, world = stage_of(tmp_path, container("worker"))
    world.ask = lambda *_, **__: answer  # type: ignore[assignment, method-assign]
    with pytest.raises(error, match=says):
        collect(stage, "worker")


def test_a_worker_is_asked_as_its_own_user(tmp_path: Path) -> None:
    """Its worker is another user's than the container's: an entrypoint has dropped root's rights."""
    stage, world = stage_of(tmp_path, container("worker"))
    world.owner = "33:34"
    assert collect(stage, "worker").name == "celery@id-worker-1"
    assert world.users == ["", "33:34", "33:34"]


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
    assert facts.brokers(context(made, World(), tmp_path), "worker") == brokers


@pytest.mark.parametrize(("workers", "restarted"), [(1, ["worker"]), (2, ["id-worker-2"])])
def test_only_the_deaf_one_is_restarted(tmp_path: Path, workers: int, restarted: list[str]) -> None:
    containers = [container("worker", number=each + 1) for each in range(workers)]
    stage, world = stage_of(tmp_path, *containers)
    world.deaf.update(each.id for each in containers)
    check = next(each for each in Celery().checks() if each.id == "celery.consumes")
    (verdict,) = check.run(stage.for_container(containers[-1]) if workers > 1 else stage, "worker")
    assert verdict.fix
    assert (verdict.fix.does, verdict.fix.strength) == ("restart", "restart")
    verdict.fix.act()
    assert world.restarted == restarted
