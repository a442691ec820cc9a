"""Facts about a machine in, plans out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.api.endpoint import Endpoint
from stackhand.engine.host.programs import Programs
from stackhand.errors import (
    ComposeMissing,
    ConfigError,
    EngineUnreachable,
    InstallFailed,
    PrerequisiteMissing,
    SocketPermission,
)
from stackhand.install import decide as install
from stackhand.install.check import Observation
from stackhand.install.decide import decide, ensure, needs_root
from stackhand.install.machine import Machine
from stackhand.model import Action

HERE = Endpoint("unix:///var/run/docker.sock", "default")
NO_ENGINE = EngineUnreachable("no engine answers", "install one")
NO_PLUGIN = ComposeMissing("the docker CLI has no Compose v2 plugin")
SOURCES = {"sources.list": "deb http://mirror.example/debian bookworm main\n"}

NOTHING = Observation(endpoint=HERE, engine_error=NO_ENGINE)
ONLY_CLI = Observation(cli="/usr/local/bin/docker", endpoint=HERE, engine_error=NO_ENGINE, compose_error=NO_PLUGIN)
ALL = Observation(cli="/usr/bin/docker", endpoint=HERE, version="28", api="1.48", compose="2.30.0")
# Compose 2.40 builds with buildx, which is missing here.
NO_BUILDX = replace(ALL, compose="2.40.3")
NO_COMPOSE = replace(ALL, compose=None, compose_error=NO_PLUGIN)

BOOKWORM = Machine(
    NOTHING,
    distribution="debian",
    codename="bookworm",
    root=True,
    iptables=False,
    certificates=False,
    available={"docker.io": "20.10.24", "docker-compose": "1.29.2-3", "iptables": "1.8.9"},
    sources=SOURCES,
)
TRIXIE = replace(
    BOOKWORM,
    codename="trixie",
    available={"docker.io": "26.1.5", "docker-cli": "26.1.5", "docker-compose": "2.26.1-4"},
)
NOBLE = replace(
    BOOKWORM,
    distribution="ubuntu",
    like=("debian",),
    codename="noble",
    init="systemd",
    iptables=True,
    certificates=True,
    apparmor=True,
    available={"docker.io": "26.1.3-0ubuntu1", "docker-compose-v2": "2.27.1+ds1", "docker-compose": "1.29.2"},
)
INSTALLED = replace(BOOKWORM, dockerd="/usr/sbin/dockerd", iptables=True)


def plan(machine: Machine) -> list[tuple[str, ...]]:
    return [(a.service, a.verb, *a.arguments) for a in decide(machine).actions]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        pytest.param(replace(BOOKWORM, seen=ALL), [], id="all-there"),
        pytest.param(
            BOOKWORM,
            [
                ("engine", "install", "docker.io", "ca-certificates", "iptables"),
                ("engine", "start", "none"),
                ("compose", "add", "docker-compose", "trixie"),
            ],
            id="debian-12",
        ),
        pytest.param(
            TRIXIE,
            [
                ("engine", "install", "docker.io", "ca-certificates", "docker-cli", "iptables"),
                ("engine", "start", "none"),
                ("compose", "install", "docker-compose"),
            ],
            id="debian-13-has-the-command-in-a-package-of-its-own",
        ),
        pytest.param(
            replace(TRIXIE, seen=ONLY_CLI),
            [
                ("engine", "install", "docker.io", "ca-certificates", "iptables"),
                ("engine", "start", "none"),
                ("compose", "install", "docker-compose"),
            ],
            id="a-docker-command-without-an-engine",
        ),
        pytest.param(
            NOBLE,
            [
                ("engine", "install", "docker.io", "apparmor"),
                ("engine", "start", "systemd"),
                ("compose", "install", "docker-compose-v2"),
            ],
            id="ubuntu",
        ),
        pytest.param(
            replace(NOBLE, apparmor=False, available={"docker-ce": "5:29.0", "docker-compose-plugin": "5.0.1-1"}),
            [
                ("engine", "install", "docker-ce", "docker-ce-cli", "containerd.io"),
                ("engine", "start", "systemd"),
                ("compose", "install", "docker-compose-plugin"),
            ],
            id="docker's-own-repository",
        ),
        pytest.param(
            replace(BOOKWORM, available=None),
            [("packages", "update")],
            id="no-lists-yet-so-nothing-more-is-known",
        ),
        pytest.param(
            replace(BOOKWORM, available=None, broken_packages=True),
            [("packages", "repair"), ("packages", "update")],
            id="interrupted-before",
        ),
        pytest.param(
            replace(INSTALLED, seen=replace(ONLY_CLI, compose="2.26", compose_error=None)),
            [("engine", "start", "none")],
            id="only-not-running",
        ),
        pytest.param(
            replace(INSTALLED, available=None, seen=replace(ONLY_CLI, compose="2.26", compose_error=None)),
            [("engine", "start", "none")],
            id="a-start-needs-no-lists",
        ),
        pytest.param(
            replace(INSTALLED, iptables=False, seen=replace(ONLY_CLI, compose="2.26", compose_error=None)),
            [("engine", "install", "iptables"), ("engine", "start", "none")],
            id="dockerd-without-iptables",
        ),
        pytest.param(
            replace(INSTALLED, stale_pid=True, seen=replace(ONLY_CLI, compose="2.26", compose_error=None)),
            [("engine", "unlock"), ("engine", "start", "none")],
            id="pid-file-of-a-dead-dockerd",
        ),
        pytest.param(
            replace(INSTALLED, daemon=7, seen=replace(ONLY_CLI, compose="2.26", compose_error=None)),
            [("engine", "wait")],
            id="dockerd-is-just-starting",
        ),
        pytest.param(
            replace(INSTALLED, seen=NO_COMPOSE),
            [("compose", "add", "docker-compose", "trixie")],
            id="no-plugin",
        ),
        pytest.param(
            replace(TRIXIE, seen=NO_COMPOSE),
            [("compose", "install", "docker-compose")],
            id="no-plugin-debian-13",
        ),
        pytest.param(
            replace(TRIXIE, seen=NO_COMPOSE, root=False),
            [("compose", "add", "docker-compose", "trixie")],
            id="no-plugin-no-root-goes-to-the-home-folder",
        ),
        pytest.param(
            replace(
                TRIXIE,
                seen=replace(ALL, cli=None, compose=None, endpoint=Endpoint("ssh://far", "DOCKER_HOST")),
            ),
            [("engine", "install", "docker-cli"), ("compose", "install", "docker-compose")],
            id="engine-elsewhere-no-command",
        ),
        pytest.param(
            replace(NOBLE, seen=NO_BUILDX, available={"docker-buildx": "0.21.3-0ubuntu1"}),
            [("buildx", "install", "docker-buildx")],
            id="buildx",
        ),
        pytest.param(
            replace(NOBLE, seen=NO_BUILDX, root=False, available={"docker-buildx": "0.21.3-0ubuntu1"}),
            [("buildx", "add", "docker-buildx", "noble")],
            id="buildx-without-root-goes-to-the-home-folder",
        ),
        pytest.param(
            replace(
                NOBLE, seen=NO_BUILDX, available={"docker-buildx-plugin": "0.30.1-1~ubuntu", "docker-buildx": "0.21"}
            ),
            [("buildx", "install", "docker-buildx-plugin")],
            id="buildx-of-docker's-own-repository",
        ),
        pytest.param(
            replace(NOBLE, seen=replace(NO_BUILDX, buildx="0.12.1"), available={"docker-buildx": "0.21.3"}),
            [("buildx", "install", "docker-buildx")],
            id="a-buildx-that-compose-refuses",
        ),
        pytest.param(
            replace(TRIXIE, seen=NO_BUILDX, available={"docker-buildx": "0.13.1"}),
            [],
            id="an-older-buildx-would-only-break-builds",
        ),
        pytest.param(replace(NOBLE, seen=NO_BUILDX, available=None), [("packages", "update")], id="buildx-no-lists"),
        pytest.param(replace(NOBLE, seen=NO_BUILDX, available=None, root=False), [], id="buildx-no-lists-no-root"),
        pytest.param(Machine(NO_BUILDX, distribution="fedora"), [], id="no-buildx-where-nothing-can-be-installed"),
        pytest.param(replace(NOBLE, seen=replace(NO_BUILDX, buildx="0.21.3")), [], id="compose-and-buildx"),
    ],
)
def test_plans(machine: Machine, expected: list[tuple[str, ...]]) -> None:
    assert plan(machine) == expected
    assert all(action.cause for action in decide(machine).actions)


@pytest.mark.parametrize(
    ("machine", "error", "hint"),
    [
        (replace(BOOKWORM, distribution="fedora"), PrerequisiteMissing, "dnf install"),
        (replace(BOOKWORM, distribution="alpine"), PrerequisiteMissing, "apk add"),
        (replace(BOOKWORM, distribution="manjaro", like=("arch",)), PrerequisiteMissing, "pacman -S"),
        (
            replace(BOOKWORM, distribution="opensuse-leap", like=("suse",)),
            PrerequisiteMissing,
            "zypper install",
        ),
        (replace(BOOKWORM, distribution="plan9", name="Plan 9"), PrerequisiteMissing, "for Plan 9"),
        (replace(BOOKWORM, system="Darwin", distribution=""), PrerequisiteMissing, "Docker Desktop"),
        (replace(BOOKWORM, available={"bash": "5"}), PrerequisiteMissing, "docs.docker.com"),
        (replace(BOOKWORM, codename="bullseye"), PrerequisiteMissing, "install-the-plugin-manually"),
        (
            replace(BOOKWORM, seen=replace(NOTHING, engine_error=SocketPermission("no", "join"))),
            SocketPermission,
            "join",
        ),
        (
            replace(BOOKWORM, seen=replace(NOTHING, endpoint=None, engine_error=ConfigError("no", "ls"))),
            ConfigError,
            "ls",
        ),
        (
            replace(BOOKWORM, seen=replace(NOTHING, endpoint=Endpoint("tcp://far:2375", "DOCKER_HOST"))),
            EngineUnreachable,
            "install one",
        ),
    ],
)
def test_what_cannot_be_done_from_here(machine: Machine, error: type[PrerequisiteMissing], hint: str) -> None:
    with pytest.raises(error) as caught:
        decide(machine)
    assert hint in (caught.value.hint or "")


class FakeMachine:
    """A machine whose facts change as actions are carried out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: Sequence[Machine]) -> None:
        self.looks = list(looks)
        self.done: list[str] = []
        monkeypatch.setattr(
            install, "read_machine", lambda *_: self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        )
        monkeypatch.setattr(install, "Installer", lambda *_: self)

    def carry_out(self, action: Action) -> None:
        self.done.append(f"{action.verb} {action.service}")

    def ensure(self, **options: Any) -> install.Result:
        usual: dict[str, Any] = {
            "become_root": lambda _: False,
            "on_action": lambda _: None,
            "on_line": lambda _: None,
        }
        return ensure(Programs(), {}, **{**usual, **options})


def test_looks_again_after_the_lists_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMachine(monkeypatch, [replace(TRIXIE, available=None), TRIXIE, replace(TRIXIE, seen=ALL)])

    result = fake.ensure()

    assert fake.done == ["update packages", "install engine", "start engine", "install compose"]
    assert result.seen == ALL
    assert result.to_json()["changed"] is True


def test_the_buildx_that_the_new_compose_wants_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = replace(NOBLE, available={**(NOBLE.available or {}), "docker-buildx": "0.21.3"})
    looks = [replace(machine, available=None), machine, replace(machine, seen=NO_BUILDX), replace(machine, seen=ALL)]
    fake = FakeMachine(monkeypatch, looks)

    assert fake.ensure().seen == ALL
    assert fake.done == ["update packages", "install engine", "start engine", "install compose", "install buildx"]


def test_nothing_to_do_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMachine(monkeypatch, [replace(TRIXIE, seen=ALL)])

    assert fake.ensure().actions == ()
    assert fake.done == []


def test_dry_does_nothing_and_tells_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMachine(monkeypatch, [BOOKWORM])

    document = fake.ensure(dry=True).to_json()

    assert fake.done == []
    assert document["changed"] is False
    assert [entry["action"] for entry in document["actions"]] == ["install", "start", "add"]


def test_what_still_fails_after_all_was_done_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMachine(monkeypatch, [TRIXIE])

    with pytest.raises(
        InstallFailed, match="everything is installed, but: the docker command is not installed"
    ) as caught:
        fake.ensure()
    assert caught.value.exit_code == 1
    assert fake.done == ["install engine", "start engine", "install compose"]


@pytest.mark.parametrize("sudo", [True, False])
def test_without_root_and_without_a_yes_the_command_is_told(monkeypatch: pytest.MonkeyPatch, sudo: bool) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/pytest"])
    fake = FakeMachine(monkeypatch, [replace(TRIXIE, root=False, sudo=sudo)])

    with pytest.raises(PrerequisiteMissing, match="root is needed") as caught:
        fake.ensure()
    assert caught.value.exit_code == 3
    assert (caught.value.hint or "").endswith("pytest engine.install")
    assert ("sudo" in (caught.value.hint or "")) is sudo
    assert fake.done == []


def test_with_a_yes_all_is_done_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(TRIXIE, root=False, sudo=True)
    fake = FakeMachine(monkeypatch, [mine, replace(mine, seen=ALL)])

    result = fake.ensure(become_root=lambda _: True)

    assert fake.done == []
    assert result.seen == ALL
    assert len(result.actions) == 3


def test_a_plugin_in_the_home_folder_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = replace(TRIXIE, root=False, seen=NO_COMPOSE, plugins=Path("/home/me/.docker/cli-plugins"))
    fake = FakeMachine(monkeypatch, [mine, replace(mine, seen=ALL)])

    fake.ensure()

    assert fake.done == ["add compose"]
    assert not needs_root(decide(mine))
