"""`services.start` on what fails: what the person sees, what is tried again and what is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from shapes import (
    FAST,
    FOREVER,
    after,
    by_name,
    check,
    check_start_document,
    needs_compose,
    one_shot,
    plain,
    server,
    sh,
    states,
    until,
)
from support import IMAGE, Project


def fail(project: Project, *words: str, code: int = 1, **env: str) -> dict[str, Any]:
    """Start what can't be started, and return the checked document."""
    result = project.inv("services.start", "--json", *words, env={**FAST, **env})
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    check_start_document(document)
    assert document["ok"] is False
    assert "Traceback" not in result.stderr
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    return document


def error_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    error: dict[str, Any] = by_name(document)[name]["error"]
    return error


@pytest.fixture
def port() -> int:
    """A port of this machine that nobody holds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port of this machine that this very process holds, for TCP and UDP."""
    with socket.socket() as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = int(server.getsockname()[1])
        datagrams.bind(("127.0.0.1", port))
        yield port


def test_what_the_person_sees(project: Project) -> None:
    project.services(
        db=one_shot(5, "echo FATAL: no such data directory", healthcheck=check()),
        api=plain(depends_on=after(db="healthy")),
        web=plain(),
    )
    result = project.inv("services.start", env=FAST)
    assert result.code == 1
    text = result.stderr
    assert "db failed at step `ready`: it exited with code 5" in text
    assert "FATAL: no such data directory" in text
    assert "waited:" in text
    assert "3 attempts, with pauses of 0.1 s, 0.2 s" in text
    assert "next:" in text
    assert "skip api: db failed" in text
    last = [line for line in text.splitlines() if line.startswith(("error: ", "hint: "))]
    assert last[0].startswith("error: 1 of 3 services failed: db: it exited with code 5; skipped: api")
    assert "1 of 3 services ready" in result.stdout
    assert "Traceback" not in text


@pytest.mark.mechanism
def test_an_image_that_is_nowhere_is_not_tried_again(project: Project) -> None:
    project.services(web={"image": "127.0.0.1:1/nowhere:1"}, here=plain(), api=plain(depends_on=["web"]), other=plain())
    document = fail(project)
    assert states(document) == {"web": "failed", "here": "running", "api": "skipped", "other": "running"}
    web = by_name(document)["web"]
    assert web["attempts"] <= 1
    assert web["error"]["step"] == "image"
    assert web["error"]["hint"]


@pytest.mark.mechanism
def test_an_image_that_must_not_be_pulled(project: Project) -> None:
    project.services(web={"image": f"{project.name}/none:1", "pull_policy": "never"}, here=plain())
    document = fail(project)
    assert states(document) == {"web": "failed", "here": "running"}
    assert by_name(document)["web"]["attempts"] <= 1
    assert "no such image" in error_of(document, "web")["reason"].lower()


@pytest.mark.mechanism
def test_a_build_that_fails(project: Project) -> None:
    (project.directory / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo compiling && exit 7\n")
    project.write({"services": {"web": {"build": "."}, "here": {"image": IMAGE, "stop_grace_period": "0s"}}})
    document = fail(project)
    assert states(document) == {"web": "failed", "here": "running"}
    web = by_name(document)["web"]
    assert web["attempts"] <= 1
    assert web["error"]["step"] == "image"
    assert any("exit 7" in line or "exit code: 7" in line for line in web["error"]["log_tail"])


@pytest.mark.mechanism
def test_a_port_that_a_process_holds(project: Project, held_port: int) -> None:
    published = f"127.0.0.1:{held_port}:80"
    project.services(web=plain(ports=[published]), names=plain(ports=[f"{published}/udp"]), other=plain())
    document = fail(project)
    assert states(document) == {"web": "failed", "names": "failed", "other": "running"}
    for name in ("web", "names"):
        failed = by_name(document)[name]
        assert failed["attempts"] == 1
        assert f"port {held_port} is held by" in failed["error"]["reason"]
        assert f"pid {os.getpid()}" in failed["error"]["reason"]


@pytest.mark.mechanism
def test_a_port_that_another_container_holds(project: Project, port: int) -> None:
    holder = f"{project.name}-holder"
    label = f"com.docker.compose.project={project.name}"
    project.docker("run", "-d", "--name", holder, "--label", label, "-p", f"127.0.0.1:{port}:80", IMAGE)
    project.services(web=plain(ports=[f"127.0.0.1:{port}:80"]))
    document = fail(project)
    web = by_name(document)["web"]
    assert web["attempts"] == 1
    assert f"port {port}" in web["error"]["reason"]
    assert holder in web["error"]["reason"]


@pytest.mark.mechanism
def test_a_name_that_another_container_has(project: Project) -> None:
    taken = f"{project.name}-taken"
    label = f"com.docker.compose.project={project.name}"
    project.docker("run", "-d", "--name", taken, "--label", label, "--label", "com.docker.compose.service=old", IMAGE)
    project.services(web=plain(container_name=taken), other=plain())
    document = fail(project)
    assert states(document) == {"web": "failed", "other": "running"}
    error = error_of(document, "web")
    assert (error["kind"], error["step"]) == ("name_in_use", "create")
    assert f"{taken} is taken by a container of this project, of the service old" in error["reason"]
    assert f"docker rm -f {taken}" in error["hint"]


@pytest.mark.mechanism
def test_killed_by_its_memory_limit(project: Project) -> None:
    project.services(hungry={"command": ["tail", "/dev/zero"], "mem_limit": "16m", "memswap_limit": "16m"})
    # A busy machine may need more than a second to use up its memory.
    document = fail(project, "--retries", "2", INVOKE_STACKHAND_START_SETTLE="60")
    hungry = by_name(document)["hungry"]
    assert hungry["attempts"] == 2
    assert "memory" in hungry["error"]["reason"]
    assert hungry["error"]["exit_code"] == 137
    assert "limit" in hungry["error"]["hint"]


def test_healthy_only_after_being_unhealthy(project: Project) -> None:
    project.services(
        web={"command": sh(FOREVER), "healthcheck": check(interval="0.5s", retries=1)},
        next=plain(depends_on=after(web="healthy")),
    )
    running = project.start_inv("services.start", "--json", env=FAST)
    until(lambda: project.states().get("web") == "unhealthy", "web is unhealthy")
    # Long enough for somebody who gives up on `unhealthy` to do so.
    project.compose("exec", "-T", "web", "sleep", "1")
    assert running.process.poll() is None
    project.compose("exec", "-T", "web", "touch", "/tmp/ready")
    result = running.wait()
    assert result.code == 0, result
    assert states(result.json()) == {"web": "healthy", "next": "running"}
    assert by_name(result.json())["web"]["attempts"] == 1


@pytest.mark.mechanism
def test_a_restart_loop(project: Project) -> None:
    project.services(
        web=one_shot(4, "echo oh no", restart="always", healthcheck=check()),
        slow=server(after=2),
        next=plain(depends_on=after(web="healthy")),
    )
    document = fail(project)
    assert states(document) == {"web": "failed", "slow": "healthy", "next": "skipped"}
    error = error_of(document, "web")
    assert "restart loop" in error["reason"]
    assert error["exit_code"] == 4
    assert "oh no" in error["log_tail"]


@pytest.mark.mechanism
def test_what_crashes_after_it_was_ready_has_to_run_longer_than_it_did(project: Project) -> None:
    crashes = one_shot(1, "sleep 1.5; echo no database")
    policy = {**crashes, "restart": "always"}
    project.services(ours=crashes, engines=policy, slow=server(after=4))
    document = fail(project)
    assert states(document) == {"ours": "failed", "engines": "failed", "slow": "healthy"}
    for name in ("ours", "engines"):
        assert "no database" in error_of(document, name)["log_tail"]


@pytest.mark.mechanism
def test_a_post_start_hook_that_fails(project: Project) -> None:
    needs_compose(project, 2, 30)
    hook = [{"command": ["sh", "-c", "test -e /tmp/ready"]}]
    project.services(web=plain(post_start=hook), next=plain(depends_on=after(web="started")))
    document = fail(project)
    assert states(document) == {"web": "failed", "next": "skipped"}
    assert error_of(document, "web")["kind"] == "hook_failed"
    assert by_name(document)["web"]["attempts"] == 3
    assert project.inv("services.status").code == 1
    assert fail(project)["ok"] is False, "nor is it ready for the next start"


@pytest.mark.mechanism
def test_a_healthcheck_that_hangs(project: Project) -> None:
    project.services(
        web=plain(healthcheck=check("echo hanging; exec sleep 777", timeout="1s")),
        other=server(),
    )
    # On a busy machine `other` takes its time, too.
    document = fail(project, "--timeout", "8")
    assert states(document) == {"web": "failed", "other": "healthy"}
    error = error_of(document, "web")
    assert "not ready after 8 s" in error["reason"]
    assert "within 1 s" in error["reason"]
    assert document["elapsed"] < 120, "the probe itself would take 777 s"
    left = project.docker("top", project.container("web")["Id"]).count("sleep 777")
    assert left <= 1, "hanging probes pile up in the container"


def test_a_healthcheck_that_stays_bad(project: Project) -> None:
    project.services(web=plain(healthcheck=check("echo role does not exist; exit 2")))
    document = fail(project, "--timeout", "2")
    error = error_of(document, "web")
    assert "healthcheck still fails" in error["reason"]
    assert error["probe_output"] == "role does not exist"
    assert "2 s" in error["reason"]


@pytest.mark.mechanism
def test_a_healthcheck_that_can_not_run(project: Project) -> None:
    project.services(web=plain(healthcheck={"test": ["CMD", "nosuchprogram"], "interval": "300s", "timeout": "5s"}))
    document = fail(project, "--timeout", "2")
    assert "nosuchprogram" in (error_of(document, "web")["probe_output"] or "")


@pytest.mark.mechanism
@pytest.mark.parametrize(
    ("service", "says"),
    [
        ({"command": ["nosuchcommand"]}, "nosuchcommand"),
        ({"command": ["sh", "-c", "nosuchcommand"]}, "not found"),
        ({"command": ["/etc/passwd"]}, "permission denied"),
    ],
    ids=["argv", "shell", "not-executable"],
)
def test_a_command_that_can_not_run_is_not_tried_again(project: Project, service: dict[str, Any], says: str) -> None:
    project.services(web=service)
    document = fail(project)
    assert by_name(document)["web"]["attempts"] == 1
    assert says in error_of(document, "web")["reason"]
