"""`services.start` on what works: conditions, order, replicas, one-shots, drift, images, profiles."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import (
    FAST,
    FOREVER,
    after,
    by_name,
    check,
    check_start_document,
    fingerprint,
    gated,
    moment,
    one_shot,
    open_gate,
    plain,
    ready_since,
    runs,
    server,
    sh,
    states,
    until,
)
from support import IMAGE, Project


def start(project: Project, *words: str, code: int = 0, fixes: bool = False, **env: str) -> dict[str, Any]:
    """Start, and return the checked document. The post-startup fixes are left out, unless a test is about them."""
    words = words if fixes else ("--no-fixes", *words)
    result = project.inv("services.start", "--json", *words, env={**FAST, **env})
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    check_start_document(document)
    assert document["project"] == project.name
    assert document["ok"] is (code == 0)
    return document


@pytest.mark.mechanism
def test_first_second_and_changed(project: Project) -> None:
    stack: dict[str, Any] = {
        "db": server(after=1),
        "cache": plain(),
        "migrate": one_shot(depends_on=after(db="healthy")),
        "api": server(depends_on=after(db="healthy", cache="started", migrate="completed")),
    }
    project.services(**stack)

    document = start(project, fixes=True)
    assert states(document) == {"db": "healthy", "cache": "running", "migrate": "completed", "api": "healthy"}
    services = by_name(document)
    assert all(each["attempts"] == 1 for each in services.values())
    assert services["db"]["waited_for"] == []
    assert services["migrate"]["waited_for"] == ["db"]
    assert services["api"]["waited_for"][0] == "migrate"
    assert set(services["api"]["waited_for"]) == {"migrate", "db", "cache"}
    assert document["critical_path"] == ["db", "migrate", "api"]
    db = project.container("db")
    # It counts from when we heard of the start, which no time of the engine's tells: on today's engine StartedAt is
    # early, by seconds where the machine is busy. The simulation has the exact figures.
    assert 0 < services["db"]["ready_after"] <= document["elapsed"]
    # The engine's own probe would have come after five minutes.
    assert document["elapsed"] < 60
    # `ready` was true when what waits for it started.
    assert moment(project.container("migrate")) >= ready_since(project, db)
    assert moment(project.container("api")) >= moment(project.container("migrate"), "FinishedAt")
    assert document["findings"]
    assert document["fixes"] == []

    before = fingerprint(project)
    again = start(project)
    assert states(again) == states(document)
    assert fingerprint(project) == before
    assert [each["attempts"] for each in again["services"]] == [0, 0, 0, 0]

    stack["cache"]["environment"] = {"SIZE": "big"}
    project.services(**stack)
    changed = start(project)
    assert states(changed) == states(document)
    now = fingerprint(project)
    name = project.container("cache")["Name"]
    assert now.pop(name)[0] != before.pop(name)[0]
    assert now == before


@pytest.mark.mechanism
def test_restart_true_follows_a_recreated_dependency(project: Project) -> None:
    stack: dict[str, Any] = {
        "db": server(),
        "api": plain(depends_on={"db": {"condition": "service_healthy", "restart": True}}),
        "other": plain(depends_on={"db": {"condition": "service_healthy"}}),
    }
    project.services(**stack)
    start(project)
    before = {name: project.container(name) for name in stack}
    stack["db"]["environment"] = {"CHANGED": "1"}
    project.services(**stack)
    document = start(project)
    assert set(states(document).values()) == {"healthy", "running"}
    now = {name: project.container(name) for name in stack}
    assert now["db"]["Id"] != before["db"]["Id"]
    assert now["api"]["Id"] == before["api"]["Id"]
    assert moment(now["api"]) > moment(now["db"])
    assert now["other"]["State"]["StartedAt"] == before["other"]["State"]["StartedAt"]


def test_profiles(project: Project) -> None:
    project.services(web=plain(), debug=plain(profiles=["tools"]), trace=plain(profiles=["tools", "more"]))
    assert states(start(project)) == {"web": "running"}
    assert states(start(project, "-s", "debug")) == {"debug": "running"}
    assert project.containers("trace") == []
    assert set(states(start(project, COMPOSE_PROFILES="more"))) == {"web", "trace"}


@pytest.mark.mechanism
def test_replicas_are_ready_when_all_are(project: Project) -> None:
    # The one that comes second makes its own readiness last.
    script = f"mkdir /data/first && touch /tmp/ready || {{ sleep 2; touch /tmp/ready; }}; {FOREVER}"
    project.write(
        {
            "services": {
                "web": {
                    "image": IMAGE,
                    "command": sh(script),
                    "healthcheck": check(),
                    "volumes": ["data:/data"],
                    "deploy": {"replicas": 2},
                    "stop_grace_period": "0s",
                },
                "proxy": {"image": IMAGE, "depends_on": after(web="healthy"), "stop_grace_period": "0s"},
            },
            "volumes": {"data": {}},
        }
    )
    document = start(project)
    assert states(document) == {"web": "healthy", "proxy": "running"}
    pair = project.containers("web")
    assert len(pair) == 2
    assert moment(project.container("proxy")) >= max(ready_since(project, each) for each in pair)
    before = fingerprint(project)
    start(project)
    assert fingerprint(project) == before


@pytest.mark.mechanism
def test_what_must_be_built_is_built_first(project: Project) -> None:
    folder = project.directory / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo one > /version\n")
    build = {"context": "image"}
    project.write({"services": {"web": {"build": build, "command": sh(FOREVER), "stop_grace_period": "0s"}}})
    result = project.inv("services.start")
    assert result.code == 0, result
    assert "web: building its image" in result.stderr
    version = project.compose("exec", "-T", "web", "cat", "/version").strip()
    assert version == "one"

    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo two > /version\n")
    before = fingerprint(project)
    start(project)
    assert fingerprint(project) == before, "a start does not rebuild by itself"
    start(project, "--dev")
    assert project.compose("exec", "-T", "web", "cat", "/version").strip() == "two"


@pytest.mark.mechanism
def test_a_long_build_shows_how_far_it_is(project: Project) -> None:
    # The name keeps the step out of BuildKit's cache.
    steps = f"for n in 1 2 3 4 5 6 7 8 9 10; do echo step-$n; sleep 0.5; done; echo {project.name}"
    (project.directory / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN {steps}\n")
    project.write({"services": {"web": {"build": ".", "stop_grace_period": "0s"}}})
    result = project.inv("services.start")
    assert result.code == 0, result
    assert "web: building its image" in result.stderr
    shown = [line for line in result.stderr.splitlines() if "step-" in line and "echo" not in line]
    assert 1 <= len(shown) <= result.elapsed, "one line a second at most"


def test_development_overrides(project: Project) -> None:
    project.services(web=plain(), debug=plain(profiles=["dev"]))
    override = {"services": {"web": {"environment": {"MODE": "dev"}}}}
    project.write(override, "compose.override.yaml")
    env = {"COMPOSE_FILE": "compose.yaml"}
    assert set(states(start(project, **env))) == {"web"}
    assert "MODE=dev" not in project.container("web")["Config"]["Env"]
    document = start(project, "--dev", **env)
    assert set(states(document)) == {"web", "debug"}
    assert "MODE=dev" in project.container("web")["Config"]["Env"]


@pytest.mark.mechanism
def test_readiness_is_probed_early_and_never_twice_at_once(project: Project) -> None:
    script = "mkdir /tmp/busy || echo overlap >> /tmp/overlaps; echo . >> /tmp/probes; sleep 0.3; rmdir /tmp/busy; "
    project.services(
        slow={
            "command": sh(f"sleep 3; touch /tmp/ready; {FOREVER}"),
            "healthcheck": check(script + "test -f /tmp/ready"),
        }
    )
    ready_after = by_name(start(project))["slow"]["ready_after"]
    # The engine's own probe would have come after five minutes.
    assert 2.9 <= ready_after < 150
    container = project.container("slow")["Id"]
    assert project.docker("exec", container, "cat", "/tmp/overlaps", check=False) == ""
    # Each takes 0.3 s.
    assert 2 <= len(project.docker("exec", container, "cat", "/tmp/probes").splitlines()) <= ready_after / 0.3 + 1


@pytest.mark.mechanism
def test_a_stopped_and_a_paused_service(project: Project) -> None:
    project.services(one=server(), two=plain())
    start(project)
    project.compose("stop", "one")
    kept = project.container("two")["State"]["StartedAt"]
    document = start(project)
    assert states(document) == {"one": "healthy", "two": "running"}
    assert project.container("two")["State"]["StartedAt"] == kept

    project.compose("pause", "two")
    document = start(project, code=1)
    assert "paused" in by_name(document)["two"]["error"]["reason"]


@pytest.mark.mechanism
def test_a_container_that_is_removed_meanwhile_is_made_again(project: Project) -> None:
    project.services(db=gated())
    running = project.start_inv("services.start", "--json", env=FAST)
    until(lambda: runs(project, "db"), "db runs")
    first = project.container("db")["Id"]
    project.docker("rm", "-f", first)
    until(lambda: runs(project, "db"), "db runs again")
    open_gate(project, "db")
    result = running.wait()
    assert result.code == 0, result
    assert project.container("db")["Id"] != first


def test_dependencies_that_compose_sees_by_itself(project: Project) -> None:
    project.services(db=server(), sidecar=plain(network_mode="service:db"))
    document = start(project)
    assert states(document) == {"db": "healthy", "sidecar": "running"}
    assert moment(project.container("sidecar")) >= moment(project.container("db"))


def test_an_optional_dependency_of_an_inactive_profile_is_left_alone(project: Project) -> None:
    optional = {"extra": {"condition": "service_healthy", "required": False}}
    project.services(web=plain(depends_on=optional), extra=server(profiles=["more"]))
    assert states(start(project)) == {"web": "running"}
    result = project.inv("up.web")
    assert result.code == 0, result
    assert project.containers("extra") == []
    assert set(states(start(project, COMPOSE_PROFILES="more"))) == {"web", "extra"}


def test_drift_of_a_profiled_service_is_seen_beside_another(project: Project) -> None:
    debug = plain(profiles=["tools"])
    project.services(web=plain(), debug=debug)
    assert project.inv("up.web", "up.debug").code == 0
    before = fingerprint(project)
    assert project.inv("up.web", "up.debug").code == 0
    assert fingerprint(project) == before
    project.services(web=plain(), debug={**debug, "environment": {"A": "1"}})
    assert project.inv("up.web", "up.debug").code == 0
    assert "A=1" in project.container("debug")["Config"]["Env"]


@pytest.mark.mechanism
def test_a_run_of_compose_is_not_one_of_the_replicas(project: Project) -> None:
    """`docker compose run` leaves containers with the service's label; they don't count."""
    project.services(web=plain())
    start(project)
    project.compose("run", "-d", "web", "sleep", "1000")
    before = fingerprint(project)
    start(project)
    assert fingerprint(project) == before
    status = project.inv("services.status", "--json").json()
    assert [len(each["containers"]) for each in status["services"]] == [1]
