"""`services.restart`: what changed is rebuilt and restarted, everything else keeps running."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from reference_stack import eventually
from shapes import (
    FAST,
    FOREVER,
    after,
    by_name,
    fingerprint,
    moment,
    one_shot,
    plain,
    ready_since,
    runs,
    server,
    sh,
    states,
    until,
)
from support import IMAGE, Project


def start(project: Project) -> None:
    result = project.inv("services.start", "--no-fixes", env=FAST)
    assert result.code == 0, result


def restart(project: Project, *words: str, code: int = 0) -> dict[str, Any]:
    """Restart and return the document."""
    result = project.inv("services.restart", "--json", "--no-fixes", *words, env=FAST)
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    assert set(document) >= {"project", "ok", "elapsed", "critical_path", "services", "findings", "fixes", "changed"}
    assert document["ok"] is (code == 0)
    return document


def changed(document: dict[str, Any]) -> list[str]:
    assert all(each["cause"] for each in document["changed"])
    return sorted(each["service"] for each in document["changed"])


def touched(document: dict[str, Any]) -> list[str]:
    return sorted(each["name"] for each in document["services"] if each["attempts"])


def context(project: Project, name: str = "app", **files: str) -> dict[str, Any]:
    """Write a build context whose image has the file `version`; return the service's `build:`."""
    folder = project.directory / name
    folder.mkdir(exist_ok=True)
    dockerfile = f"FROM {IMAGE}\nARG LEVEL=low\nRUN echo $LEVEL > /level\nCOPY version /version\n"
    for file, text in {"Dockerfile": dockerfile, "version": "1\n", **files}.items():
        (folder / file.replace("__", ".")).write_text(text)
    return {"context": f"./{name}"}


def said(project: Project, service: str, file: str = "/version") -> str:
    return project.compose("exec", "-T", service, "cat", file).strip()


def slow(seconds: float, **more: Any) -> dict[str, Any]:
    """Return a service that needs this long to be healthy, after a restart too."""
    return server(**{"command": sh(f"rm -f /tmp/ready; sleep {seconds}; touch /tmp/ready; {FOREVER}"), **more})


def left_alone(before: dict[str, tuple[str, str]], project: Project, *renewed: str) -> None:
    """Check that every container but those of the renewed services is the same, and runs since the same moment."""
    names = {each["Name"] for service in renewed for each in project.containers(service)}
    now = fingerprint(project)
    assert {name: now[name] for name in now if name not in names} == {
        name: before[name] for name in before if name not in names
    }


@pytest.mark.mechanism
def test_a_changed_context_is_rebuilt_and_nothing_else(project: Project) -> None:
    project.services(
        db=server(),
        api=server(build=context(project), image=f"{project.name}-api", depends_on=after(db="healthy")),
        proxy=server(depends_on=after(api="healthy")),
        other=plain(build=context(project, "other"), image=f"{project.name}-other"),
    )
    start(project)
    before = fingerprint(project)
    idle = restart(project)
    assert (changed(idle), touched(idle)) == ([], [])
    assert fingerprint(project) == before

    (project.directory / "app/version").write_text("2\n")
    planned = project.inv("--dry", "services.restart")
    assert "would build api: its build context changed, last written: version" in planned.stdout, planned
    assert "would recreate api" in planned.stdout
    assert "other" not in planned.stdout
    assert fingerprint(project) == before

    document = restart(project)
    assert changed(document) == touched(document) == ["api"]
    assert "version" in document["changed"][0]["cause"]
    assert states(document) == {"db": "healthy", "api": "healthy", "proxy": "healthy", "other": "running"}
    assert said(project, "api") == "2"
    left_alone(before, project, "api")
    now = fingerprint(project)
    assert touched(restart(project)) == []
    assert fingerprint(project) == now


def test_what_the_builder_does_not_see_is_no_change(project: Project) -> None:
    build = context(project, __dockerignore="*.md\ncache\n")
    project.services(api=plain(build=build, image=f"{project.name}-api"))
    start(project)
    before = fingerprint(project)
    folder = project.directory / "app"
    (folder / "README.md").write_text("read me")
    (folder / "cache").mkdir()
    (folder / "cache/x").write_text("x")
    assert changed(restart(project)) == []
    # Touched, not changed: read once, then known again.
    os.utime(folder / "version")
    assert changed(restart(project)) == []
    assert fingerprint(project) == before
    (folder / "more").write_text("seen by the builder, used by no step")
    document = restart(project)
    assert (changed(document), touched(document)) == ([], [])
    assert fingerprint(project) == before
    assert "would" not in project.inv("--dry", "services.restart").stdout


@pytest.mark.mechanism
def test_built_by_compose_and_nothing_remembered(project: Project) -> None:
    stack: dict[str, Any] = {"api": plain(build=context(project), image=f"{project.name}-api")}
    project.services(**stack)
    project.compose("up", "-d")
    before = fingerprint(project)
    assert changed(restart(project)) == []
    assert fingerprint(project) == before
    (project.directory / "app/version").write_text("2\n")
    assert changed(restart(project)) == ["api"]
    assert said(project, "api") == "2"

    # Behind our back again; then what is built is what is here.
    (project.directory / "app/version").write_text("3\n")
    project.compose("build")
    document = restart(project)
    assert changed(document) == ["api"]
    assert "image" in document["changed"][0]["cause"]
    assert said(project, "api") == "3"


def test_build_settings(project: Project) -> None:
    build = context(project)
    api = plain(build=build, image=f"{project.name}-api")
    project.services(api=api)
    start(project)
    build["args"] = {"LEVEL": "high"}
    project.services(api=api)
    assert changed(restart(project)) == ["api"]
    assert said(project, "api", "/level") == "high"
    # Outside of the context.
    (project.directory / "Other").write_text(f"FROM {IMAGE}\nCOPY version /version\nRUN echo other > /level\n")
    build["dockerfile"] = "../Other"
    project.services(api=api)
    assert changed(restart(project)) == ["api"]
    (project.directory / "Other").write_text(f"FROM {IMAGE}\nCOPY version /version\nRUN echo again > /level\n")
    assert changed(restart(project)) == ["api"]
    assert said(project, "api", "/level") == "again"
    assert changed(restart(project)) == []


@pytest.mark.mechanism
def test_a_shared_image_and_a_one_shot(project: Project) -> None:
    shared = {"build": context(project), "image": f"{project.name}-app"}
    project.services(
        db=server(),
        migrate=one_shot(script="cat /version", depends_on=after(db="healthy"), **shared),
        api=server(depends_on=after(migrate="completed"), **shared),
        worker=plain(depends_on=after(migrate="completed"), **shared),
        proxy=plain(depends_on=after(api="healthy")),
    )
    start(project)
    before = fingerprint(project)
    (project.directory / "app/version").write_text("2\n")
    document = restart(project)
    assert changed(document) == touched(document) == ["api", "migrate", "worker"]
    assert states(document)["migrate"] == "completed"
    assert "2" in project.compose("logs", "migrate")
    assert moment(project.container("api")) >= moment(project.container("migrate"), "FinishedAt")
    left_alone(before, project, "api", "migrate", "worker")


@pytest.mark.mechanism
def test_configuration_and_env_file(project: Project) -> None:
    (project.directory / "app.env").write_text("LEVEL=low\n")
    stack: dict[str, Any] = {"db": plain(), "api": plain(env_file=["app.env"]), "other": plain()}
    project.services(**stack)
    start(project)
    before = fingerprint(project)
    assert changed(restart(project)) == []
    stack["db"]["environment"] = {"SIZE": "big"}
    project.services(**stack)
    document = restart(project)
    assert changed(document) == touched(document) == ["db"]
    left_alone(before, project, "db")
    now = fingerprint(project)
    (project.directory / "app.env").write_text("LEVEL=high\n")
    document = restart(project)
    assert changed(document) == touched(document) == ["api"]
    assert "LEVEL=high" in project.container("api")["Config"]["Env"]
    left_alone(now, project, "api")
    assert changed(restart(project)) == []


@pytest.mark.mechanism
def test_secret_config_and_mounted_file(project: Project) -> None:
    for name in ("secret", "conf", "mounted"):
        (project.directory / name).write_text("old\n")
    usual = {"image": IMAGE, "command": sh(FOREVER), "stop_grace_period": "0s"}
    (project.directory / "folder").mkdir()
    document: dict[str, Any] = {
        "services": {
            "api": {**usual, "secrets": ["secret"]},
            "web": {**usual, "configs": [{"source": "conf", "target": "/conf"}]},
            "db": {**usual, "volumes": ["./mounted:/mounted", "./folder:/folder"]},
        },
        "secrets": {"secret": {"file": "./secret"}},
        "configs": {"conf": {"file": "./conf"}},
    }
    project.write(document)
    project.compose("up", "-d")
    assert changed(restart(project)) == []
    for file, service, inside, cause in (
        ("secret", "api", "/run/secrets/secret", "secret secret"),
        ("conf", "web", "/conf", "config conf"),
        ("mounted", "db", "/mounted", "file mounted"),
    ):
        before = fingerprint(project)
        # As editors and deployments do it: a new file in the old one's place.
        (project.directory / "new").write_text("new\n")
        (project.directory / "new").replace(project.directory / file)
        result = restart(project)
        assert changed(result) == touched(result) == [service]
        assert cause in result["changed"][0]["cause"]
        assert said(project, service, inside) == "new"
        left_alone(before, project, service)
        assert project.container(service)["Id"] == before[project.container(service)["Name"]][0], "only restarted"
        assert changed(restart(project)) == []
    (project.directory / "folder/file").write_text("its containers see this")
    assert changed(restart(project)) == []

    # An older copy is put back, with its time.
    (project.directory / "secret").write_text("older\n")
    os.utime(project.directory / "secret", (1_700_000_000, 1_700_000_000))
    assert changed(restart(project)) == ["api"]
    remembered = "".join(each.read_text() for each in (project.directory / ".stackhand").glob("*.json"))
    assert "older" not in remembered

    (project.directory / "secret").unlink()
    gone = project.inv("services.restart")
    assert gone.code == 2, gone
    assert "secret secret" in gone.stderr
    assert runs(project, "api")


@pytest.mark.mechanism
def test_secrets_and_configs_that_are_no_files(project: Project) -> None:
    usual = {"image": IMAGE, "command": sh(FOREVER), "stop_grace_period": "0s"}
    document: dict[str, Any] = {
        "services": {
            "api": {**usual, "secrets": ["token"], "configs": [{"source": "level", "target": "/level"}]},
            "web": {**usual, "configs": ["page"]},
            "db": usual,
        },
        "secrets": {"token": {"environment": "WORD"}},
        "configs": {"page": {"content": "price: 5$$\n"}, "level": {"environment": "LEVEL"}},
    }
    project.write(document)
    (project.directory / ".env").write_text("LEVEL=low\n")
    project.env["WORD"] = "old-w0rd"
    project.compose("up", "-d")
    assert changed(restart(project)) == []
    before = fingerprint(project)
    project.env["WORD"] = "new-w0rd"
    result = restart(project)
    assert changed(result) == touched(result) == ["api"]
    assert result["changed"][0]["cause"] == "secret token changed since its start"
    assert "w0rd" not in json.dumps(result)
    assert said(project, "api", "/run/secrets/token") == "new-w0rd"
    left_alone(before, project, "api")
    (project.directory / ".env").write_text("LEVEL=high\n")
    assert changed(restart(project)) == ["api"]
    assert said(project, "api", "/level") == "high"
    document["configs"]["page"]["content"] = "price: 6$$\n"
    project.write(document)
    assert changed(restart(project)) == ["web"]
    assert said(project, "web", "/page") == "price: 6$"
    assert changed(restart(project)) == []


@pytest.mark.mechanism
def test_dependants_that_ask_to_follow(project: Project) -> None:
    follow = {"condition": "service_healthy", "restart": True}
    stack: dict[str, Any] = {
        "db": slow(1),
        "api": server(depends_on={"db": follow}),
        "web": plain(depends_on={"api": follow}),
        "other": plain(depends_on=after(db="healthy")),
        "beside": plain(network_mode="service:db"),
    }
    project.services(**stack)
    start(project)
    before = {name: project.container(name) for name in stack}
    document = restart(project, "-s", "db")
    assert changed(document) == ["db"]
    now = {name: project.container(name) for name in stack}
    assert {name for name in stack if now[name]["Id"] != before[name]["Id"]} == set()
    assert now["other"]["State"]["StartedAt"] == before["other"]["State"]["StartedAt"]
    assert moment(now["api"]) >= ready_since(project, now["db"]), "only when db is healthy"
    assert moment(now["web"]) > moment(now["api"])
    assert moment(now["beside"]) > moment(now["db"])

    stack["db"]["environment"] = {"SIZE": "big"}
    project.services(**stack)
    document = restart(project)
    assert changed(document) == ["db"]
    last = {name: project.container(name) for name in stack}
    assert {name for name in stack if last[name]["Id"] != before[name]["Id"]} == {"db", "beside"}
    assert last["other"]["State"]["StartedAt"] == before["other"]["State"]["StartedAt"]
    assert moment(last["api"]) >= ready_since(project, last["db"])
    assert moment(last["web"]) > moment(last["api"])
    assert touched(restart(project)) == []


@pytest.mark.mechanism
def test_a_failed_build_leaves_what_runs(project: Project) -> None:
    project.services(
        api=plain(build=context(project), image=f"{project.name}-api"),
        web=plain(build=context(project, "web"), image=f"{project.name}-web"),
    )
    start(project)
    before = fingerprint(project)
    (project.directory / "app/Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo no such module >&2 && exit 3\n")
    (project.directory / "web/version").write_text("2\n")
    result = project.inv("services.restart", env=FAST)
    assert result.code == 1, result
    assert "api: its image could not be built" in result.stderr
    assert "what ran before runs on" in result.stderr
    assert "no such module" in result.stderr
    left_alone(before, project, "web")
    assert said(project, "web") == "2"

    document = restart(project, code=1)
    assert states(document) == {"api": "failed", "web": "running"}
    assert changed(document) == ["api"]
    context(project)
    (project.directory / "app/version").write_text("2\n")
    assert changed(restart(project)) == ["api"]
    assert said(project, "api") == "2"


@pytest.mark.mechanism
def test_killed_while_it_renews(project: Project) -> None:
    follow = {"condition": "service_healthy", "restart": True}
    # The time between its start and its health is when the signal comes.
    project.services(db=slow(3), api=plain(depends_on={"db": follow}), other=plain())
    start(project)
    before = {name: project.container(name) for name in ("db", "api", "other")}
    running = project.start_inv("services.restart", "-s", "db", "--no-fixes")
    until(lambda: moment(project.container("db")) > moment(before["db"]), "db restarts")
    running.signal(signal.SIGKILL)
    running.wait()
    assert project.container("api")["State"]["StartedAt"] == before["api"]["State"]["StartedAt"]

    document = restart(project)
    assert "interrupted" in json.dumps(document["changed"])
    assert states(document) == {"db": "healthy", "api": "running", "other": "running"}
    assert moment(project.container("api")) > moment(project.container("db"))
    assert project.container("other")["State"]["StartedAt"] == before["other"]["State"]["StartedAt"]
    assert touched(restart(project)) == []


@pytest.mark.mechanism
def test_killed_while_it_builds(project: Project) -> None:
    project.services(api=plain(build=context(project), image=f"{project.name}-api"))
    start(project)
    before = fingerprint(project)
    slow = f"FROM {IMAGE}\nRUN sleep 5\nCOPY version /version\n"
    (project.directory / "app/Dockerfile").write_text(slow)
    running = project.start_inv("services.restart", "--no-fixes")
    running.wait_for("building its image")
    running.signal(signal.SIGKILL)
    running.wait()
    assert fingerprint(project) == before
    assert changed(restart(project)) == ["api"]
    assert project.container("api")["Id"] not in str(before)


def test_dry_changes_nothing_anywhere(project: Project) -> None:
    project.services(api=plain(build=context(project), image=f"{project.name}-api"), db=plain())
    project.compose("up", "-d")
    before = fingerprint(project)
    (project.directory / "app/version").write_text("2\n")
    document = project.inv("--dry", "services.restart", "-s", "api", "-s", "db", "--json").json()
    assert [(each["verb"], each["service"]) for each in document["plan"]] == [
        ("build", "api"), ("recreate", "api"), ("restart", "db"),
    ]  # fmt: skip
    assert fingerprint(project) == before
    # The names of services are read, and remembered, to know which tasks there are.
    assert {each.name for each in (project.directory / ".stackhand").glob("*")} <= {"catalogue.json", ".gitignore"}


def test_the_fixes_follow_only_a_change(project: Project) -> None:
    project.services(web=plain())
    start(project)
    assert project.inv("services.restart", "--json").json()["findings"] == []
    document = project.inv("services.restart", "-s", "web", "--json").json()
    assert by_name(document)["web"]["attempts"] == 1
    assert document["findings"]


def test_nothing_changed_is_said_at_once(project: Project) -> None:
    project.services(web=plain(), built=plain(build=context(project), image=f"{project.name}-built"))
    start(project)
    result = project.inv("services.restart")
    assert result.code == 0, result
    assert "nothing changed" in result.stdout
    assert result.elapsed < 20, "it takes a second, on a busy machine more: nothing is built, nothing waited for"


@pytest.mark.mechanism
def test_a_recreate_that_was_interrupted_is_completed(project: Project) -> None:
    slow = {"command": "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'", "stop_grace_period": "6s"}
    project.services(web={**slow, "environment": {"A": "1"}}, other=plain())
    start(project)
    other = project.container("other")["State"]["StartedAt"]
    project.services(web={**slow, "environment": {"A": "2"}}, other=plain())
    running = project.start_inv("services.restart", env=FAST)
    eventually(lambda: len(project.containers("web")) == 2)
    running.signal(signal.SIGINT)
    assert running.wait().code == 130
    result = project.inv("services.restart", env=FAST)
    assert result.code == 0, result
    assert project.container("web")["Name"] == f"/{project.name}-web-1"
    assert "A=2" in project.container("web")["Config"]["Env"]
    assert project.container("other")["State"]["StartedAt"] == other
