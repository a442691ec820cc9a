"""status, wait, logs, stop, fixes and --dry against real containers."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from shapes import (
    FAST,
    FOREVER,
    after,
    check_finding,
    check_start_document,
    fingerprint,
    gated,
    one_shot,
    open_gate,
    plain,
    runs,
    server,
    sh,
    states,
    until,
)
from support import SERVICE_LABEL, Project

from stackhand.engine.api.containers import parse_time


def up(project: Project, *words: str) -> None:
    result = project.inv("services.start", "--no-fixes", *words)
    assert result.code == 0, result


@pytest.mark.mechanism
def test_status(project: Project) -> None:
    project.services(db=server(), web=plain(), job=one_shot(), last=plain(depends_on=after(job="completed")))
    missing = project.inv("services.status", "--json")
    assert missing.code == 1, missing
    assert {each["state"] for each in missing.json()["services"]} == {"missing"}
    assert missing.json()["ok"] is False

    up(project)
    well = project.inv("services.status", "--json")
    assert well.code == 0, well
    document = well.json()
    assert document["ok"] is True
    assert document["project"] == project.name
    assert {each["name"]: each["state"] for each in document["services"]} == {
        "db": "healthy", "web": "running", "job": "completed", "last": "running",
    }  # fmt: skip
    assert all(each["containers"] for each in document["services"])

    before = fingerprint(project)
    project.compose("kill", "web")
    broken = project.inv("services.status")
    assert broken.code == 1
    assert "error: not ready: web" in broken.stderr
    assert "137" in broken.stdout
    assert project.inv("services.status", "-s", "db", "-s", "job").code == 0
    assert fingerprint(project) == before


def test_wait(project: Project) -> None:
    project.services(web=gated(), other=plain())
    project.compose("up", "-d")
    late = project.inv("services.wait", "--timeout", "1", "--json")
    assert late.code == 1, late
    check_start_document(late.json())
    assert states(late.json()) == {"web": "failed", "other": "running"}

    running = project.start_inv("services.wait", "--json", "-s", "web")
    until(lambda: running.process.poll() is None, "it runs")
    open_gate(project, "web")
    result = running.wait()
    assert result.code == 0, result
    assert states(result.json()) == {"web": "healthy"}


def test_wait_starts_nothing(project: Project) -> None:
    project.services(web=plain())
    result = project.inv("services.wait", "--timeout", "2", "--json")
    assert result.code == 1, result
    assert states(result.json()) == {"web": "failed"}
    assert project.containers() == []


def test_wait_does_not_start_what_has_ended(project: Project) -> None:
    project.services(web=one_shot(3), other=plain())
    project.compose("up", "-d")
    until(lambda: not runs(project, "web"), "web has ended")
    before = fingerprint(project)
    result = project.inv("services.wait", "--timeout", "5", "--json", env=FAST)
    assert result.code == 1, result
    assert states(result.json()) == {"web": "failed", "other": "running"}
    assert fingerprint(project) == before


@pytest.mark.mechanism
def test_a_job_that_ended_is_told_from_a_server_that_was_stopped(project: Project) -> None:
    """Both have exited with 0, long after the start that they counted as ready for."""
    gate = "while [ ! -e /tmp/ready ]; do sleep 0.05; done"
    stop = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
    project.services(job=one_shot(0, gate), worker={"command": sh(stop), "stop_grace_period": "20s"}, web=plain())
    up(project)
    open_gate(project, "job")
    until(lambda: not runs(project, "job"), "the job has ended")
    project.docker("stop", project.container("worker")["Id"])
    before = fingerprint(project)
    result = project.inv("services.status", "--json")
    assert {each["name"]: each["state"] for each in result.json()["services"]} == {
        "job": "completed", "worker": "exited", "web": "running",
    }  # fmt: skip
    document = project.inv("services.start", "--json", "--no-fixes").json()
    assert states(document) == {"job": "completed", "worker": "running", "web": "running"}
    changed = {name for name, run in fingerprint(project).items() if before[name] != run}
    assert changed == {project.container("worker")["Name"]}


@pytest.mark.mechanism
def test_logs(project: Project) -> None:
    project.services(
        one={"command": sh(f"for i in 1 2 3 4 5; do echo one-$i; done; {FOREVER}")},
        two={"command": sh(f"echo two-a; {FOREVER}")},
    )
    up(project)
    result = project.inv("services.logs", "--tail", "2", "-s", "one")
    assert result.code == 0, result
    lines = result.stdout.splitlines()
    assert [line.split("| ")[1] for line in lines] == ["one-4", "one-5"]
    assert all(line.startswith("one-1 | ") for line in lines)
    document = project.inv("services.logs", "--json").json()
    assert {"container": "two-1", "text": "two-a"} in document["lines"]

    running = project.start_inv("services.logs", "--follow", "-s", "two")
    running.wait_for("two-a")
    running.process.terminate()
    assert running.wait().code == 130
    assert project.inv("services.logs", "--tail", "few").code == 2


@pytest.mark.mechanism
def test_stop(project: Project) -> None:
    project.services(db=plain(), api=plain(depends_on=["db"]), alone=plain())
    up(project)
    planned = project.inv("--dry", "services.stop", "-s", "db", "-s", "api")
    assert planned.code == 0, planned
    assert [line.split(":")[0] for line in planned.stdout.splitlines()] == ["would stop api", "would stop db"]
    assert runs(project, "db")

    result = project.inv("services.stop", "-s", "db", "-s", "api", "--json")
    assert result.code == 0, result
    assert result.json()["stopped"] == ["api", "db"]
    assert (runs(project, "db"), runs(project, "api"), runs(project, "alone")) == (False, False, True)
    assert project.container("db"), "containers stay"
    # It began when its journal says, by the clock that the containers' times are of.
    [noted] = json.loads((project.directory / ".stackhand/journal.json").read_text())["runs"]
    ended = parse_time(project.container("db")["State"]["FinishedAt"])
    assert ended is not None
    assert timedelta(0) < ended - datetime.fromisoformat(noted["facts"]["engine_time"]) < timedelta(minutes=5)
    everything = project.inv("services.stop")
    assert "stopped: alone" in everything.stdout
    nothing = project.inv("services.stop")
    assert (nothing.code, nothing.stdout.strip()) == (0, "nothing to do: nothing runs")


@pytest.mark.parametrize("task", ["services.start", "up", "up.web", "services.fixes", "services.stop", "services.wait"])
def test_dry_changes_nothing(project: Project, task: str) -> None:
    (project.directory / "Dockerfile").write_text("FROM scratch\nCOPY compose.yaml /\n")
    project.services(db=server(), web=plain(depends_on=["db"]), built={"build": ".", "image": f"{project.name}-b"})
    result = project.inv("--dry", task)
    assert result.code == 0, result
    assert project.containers() == []
    assert project.client.networks(filters={"label": f"com.docker.compose.project={project.name}"}) == []
    assert project.client.images(name=f"{project.name}-b") == []
    assert not (project.directory / ".stackhand/lock").exists()
    if task in ("services.start", "up"):
        assert [line for line in result.stdout.splitlines() if line.startswith("would ")] == [
            "would create db: it has no container",
            "would create web: it has no container",
            f"would build built: image {project.name}-b is not here",
            "would create built: it has no container",
        ] or sorted(line.split(":")[0] for line in result.stdout.splitlines()) == [
            "would build built", "would create built", "would create db", "would create web",
        ]  # fmt: skip


@pytest.mark.mechanism
def test_dry_says_what_a_real_run_does(project: Project) -> None:
    stack: dict[str, Any] = {"db": plain(), "web": plain()}
    project.services(**stack)
    up(project)
    idle = project.inv("--dry", "services.start")
    assert idle.stdout.strip() == "nothing to do: all is ready"
    stack["web"]["environment"] = {"A": "1"}
    project.services(**stack)
    project.compose("stop", "db")
    document = project.inv("--dry", "services.start", "--json").json()
    assert document["dry"] is True
    assert sorted((each["verb"], each["service"]) for each in document["plan"]) == [
        ("recreate", "web"),
        ("start", "db"),
    ]
    assert not runs(project, "db")


def fixes(project: Project, *words: str, code: int = 0) -> dict[str, Any]:
    result = project.inv("services.fixes", "--json", *words, env=FAST)
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    assert document["ok"] is (code == 0)
    for finding in document["findings"]:
        check_finding(finding)
    for entry in document["fixes"]:
        assert set(entry) >= {"id", "finding", "action", "applied", "ok", "error"}
    assert set(document["before"]) == set(document["after"]) == {"ok", "warn", "fail", "skip"}
    return document


def test_fixes_where_all_is_well(project: Project) -> None:
    project.services(db=server(), web=plain())
    up(project)
    before = fingerprint(project)
    document = fixes(project)
    assert document["fixes"] == []
    assert {each["status"] for each in document["findings"]} == {"ok"}
    assert fingerprint(project) == before


def test_fixes_start_what_was_killed(project: Project) -> None:
    project.services(db=server(), web=plain(), other=plain())
    up(project)
    other = project.container("other")["State"]["StartedAt"]
    project.compose("kill", "web")
    assert project.inv("--dry", "services.fixes").stdout.startswith("would start web")
    document = fixes(project)
    assert [(each["finding"], each["ok"]) for each in document["fixes"]] == [("services.ready", True)]
    assert document["before"]["fail"] == 1
    assert document["after"]["fail"] == 0
    assert runs(project, "web")
    assert project.container("other")["State"]["StartedAt"] == other
    assert fixes(project)["fixes"] == []


@pytest.mark.mechanism
def test_fixes_attach_what_lost_its_network(project: Project) -> None:
    alias = {"aliases": ["database"]}
    services = {"db": server(networks={"back": alias}), "web": plain(networks=["back", "front"])}
    project.services(**services)
    path = project.directory / "compose.yaml"
    path.write_text(path.read_text() + "networks: {back: {}, front: {}}\n")
    up(project)
    before = fingerprint(project)
    for service in ("db", "web"):
        project.docker("network", "disconnect", f"{project.name}_back", project.container(service)["Id"])
    document = fixes(project)
    assert sorted(each["finding"] for each in document["fixes"]) == ["network.attached"] * 2
    assert all(each["ok"] for each in document["fixes"])
    for name in ("db", "database"):
        project.compose("exec", "-T", "web", "ping", "-c", "1", "-w", "5", name)
    assert fingerprint(project) == before
    assert fixes(project)["fixes"] == []


def test_fixes_that_do_not_help_are_told(project: Project) -> None:
    project.services(web=plain())
    up(project)
    project.services(web=one_shot(3))
    project.compose("create")
    document = fixes(project, "-s", "web", code=1)
    assert [each["ok"] for each in document["fixes"]] == [False]
    assert document["fixes"][0]["error"]


def test_a_start_ends_with_the_fixes(project: Project) -> None:
    project.services(web=plain())
    with_them = project.inv("services.start", "--json").json()
    assert with_them["findings"]
    assert with_them["fixes"] == []
    assert project.inv("services.start", "--json", "--no-fixes").json()["findings"] == []


def test_from_a_folder_below_and_with_compose_file(project: Project) -> None:
    project.services(web=plain())
    below = project.directory / "a/b"
    below.mkdir(parents=True)
    assert project.inv("services.start", cwd=below).code == 0
    assert project.inv("services.status", cwd=below).code == 0
    elsewhere = project.directory.parent / "elsewhere"
    elsewhere.mkdir()
    env = {"COMPOSE_FILE": str(project.directory / "compose.yaml")}
    assert json.loads(project.inv("services.status", "--json", cwd=elsewhere, env=env).stdout)["ok"] is True


RENEW = """
from invoke import task
from stackhand import ns
from stackhand.context import Stack

@task
def renew(c):
    Stack.of(c).actions.recreate("web")

ns.add_task(renew)
"""


@pytest.mark.mechanism
def test_recreating_one_service_leaves_the_others_and_all_data(project: Project) -> None:
    web = plain(volumes=["/data"], environment={"A": "1"})
    project.services(db=server(), web={**web, "depends_on": after(db="healthy")}, user=plain())
    (project.directory / "tasks.py").write_text(RENEW)
    up(project)
    project.compose("exec", "-T", "web", "sh", "-c", "echo mine > /data/x")
    before = {each["Config"]["Labels"][SERVICE_LABEL]: each["Id"] for each in project.containers()}
    result = project.inv("renew")
    assert result.code == 0, result
    now = {each["Config"]["Labels"][SERVICE_LABEL]: each["Id"] for each in project.containers()}
    assert {name for name in now if now[name] != before[name]} == {"web"}
    assert project.compose("exec", "-T", "web", "cat", "/data/x").strip() == "mine"
    assert runs(project, "web")
    # And what was made is what a start would make.
    assert "web" not in project.inv("--dry", "services.start").stdout
