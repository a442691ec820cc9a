"""Services as tasks: `up.<service>`, and `service("name")` in other people's tasks.py, with both executors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shapes import FAST, fingerprint, moment, one_shot, plain, ready_since, runs, server
from support import Project, Result

EXECUTORS = {"graph": "tasks:\n  executor_class: stackhand.graph.GraphExecutor\n", "stock": "tasks: {}\n"}

TASKS = """\
from pathlib import Path
from invoke import task
from stackhand import ns, service

def note(text):
    with Path("ran.txt").open("a") as file:
        file.write(text + "\\n")

@task(pre=[service("db"), service("cache")])
def migrate(c):
    '''Use what is ready.'''
    note("migrate")
    c.run("docker compose exec -T db test -f /tmp/ready")
    print("migrated")

@task(pre=[service("db"), service("bad")])
def doomed(c):
    '''Never runs.'''
    note("doomed")

@task(pre=[migrate])
def after_migrate(c):
    '''Run after it.'''
    note("after")

@task(pre=[service("nosuch")])
def typo(c):
    '''Name a service that does not exist.'''
    note("typo")

@task
def plain(c):
    '''Need nothing.'''
    note("plain")

ns.add_task(migrate)
ns.add_task(doomed)
ns.add_task(after_migrate)
ns.add_task(typo)
ns.add_task(plain)
"""


@pytest.fixture(params=EXECUTORS)
def tasks(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project with a tasks.py of its own."""
    project.write(TASKS, "tasks.py")
    project.write(EXECUTORS[request.param], "invoke.yaml")
    project.services(
        db=server(after=1),
        cache=server(after=1, depends_on=["base"]),
        base=plain(),
        bad=one_shot(7, "echo out of paper"),
        unrelated=plain(),
    )
    return project


def ran(project: Project) -> list[str]:
    file = project.directory / "ran.txt"
    return file.read_text().split() if file.exists() else []


def test_a_body_runs_when_what_it_needs_is_ready(tasks: Project) -> None:
    result = tasks.inv("after-migrate", "plain")
    assert result.code == 0, result
    assert ran(tasks) == ["migrate", "after", "plain"]
    assert "migrated" in result.stdout
    assert tasks.containers("unrelated") == []
    before = fingerprint(tasks)
    assert tasks.inv("migrate").code == 0
    assert fingerprint(tasks) == before


def test_a_body_never_runs_when_what_it_needs_fails(tasks: Project) -> None:
    result = tasks.inv("doomed", "plain", env=FAST)
    assert result.code == 1, result
    assert ran(tasks) == []
    assert "bad: it exited with code 7" in result.stderr
    assert "out of paper" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_service_that_does_not_exist(tasks: Project) -> None:
    result = tasks.inv("typo")
    assert result.code == 2, result
    assert ran(tasks) == []
    assert "error: unknown service 'nosuch'" in result.stderr


def test_side_by_side_with_the_graph_executor(project: Project) -> None:
    """Two services that take a while: their starts overlap, their lines are told apart."""
    project.write(TASKS, "tasks.py")
    project.write(EXECUTORS["graph"], "invoke.yaml")
    project.services(db=server(after=5), cache=server(after=5), bad=plain(), nothing=plain())
    result = project.inv("migrate")
    assert result.code == 0, result
    db, cache = project.container("db"), project.container("cache")
    assert moment(cache) < ready_since(project, db)
    assert moment(db) < ready_since(project, cache)
    assert {line.split(": ")[0].split()[-1] for line in result.stderr.splitlines() if "ealthy after" in line} == {
        "db",
        "cache",
    }


def names_of(result: Result) -> set[str]:
    return {line.split()[0] for line in result.stdout.splitlines() if line.strip().startswith("up.")}


def test_names_that_invoke_can_not_take(project: Project) -> None:
    odd: dict[str, Any] = {"a-b": plain(), "a_b": plain(depends_on=["a-b"]), "my.db": plain(), "Big_One": plain()}
    usual = {"image": "stackhand-test/busybox:1", "stop_grace_period": "0s"}
    project.write({"services": {name: {**usual, **raw} for name, raw in odd.items()}})
    listed = project.inv("-l")
    assert listed.code == 0, listed
    assert {"up.a-b", "up.a-b-2", "up.my-db", "up.Big-One"} <= names_of(listed)

    result = project.inv("up.a-b-2", "up.my-db", "up.Big-One", "--json")
    assert result.code == 0, result
    assert {each["name"] for each in json.loads(result.stdout)["services"]} == set(odd)
    assert all(runs(project, name) for name in odd)

    again = project.inv("services.start", "--json", "-s", "a_b", "-s", "my.db")
    assert again.code == 0, again
    assert {each["name"] for each in again.json()["services"]} == {"a-b", "a_b", "my.db"}

    unknown = project.inv("up.a_b")
    assert unknown.code in (0, 2), unknown
    if unknown.code:
        assert "up.a-b-2" in unknown.stderr


def test_an_unknown_service_task(project: Project) -> None:
    project.services(postgres=plain(), redis=plain())
    result = project.inv("up.postgre", "--json")
    assert result.code == 2, result
    assert result.json()["ok"] is False
    assert "error: unknown service 'postgre'" in result.stderr
    assert "hint: did you mean 'postgres'?" in result.stderr
