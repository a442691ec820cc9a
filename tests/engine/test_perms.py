"""Permissions beside a running stack: services still read their secrets, data stays theirs, volumes get owners."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import IMAGE, Project

UID = 4321
OWNER = ("--owner", f"{UID}:{UID}")


@pytest.fixture
def open_project(project: Project) -> Iterator[Project]:
    """The project, in a folder that ordinary users may enter."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("tests of permissions are required here, and need root", pytrace=False)
        pytest.skip("TESTS OF PERMISSIONS NEED ROOT")
    path = Path(tempfile.mkdtemp(prefix="stackhand-perms-"))
    path.chmod(0o755)
    project.directory = path
    yield project
    project.remove()
    shutil.rmtree(path)


def mode(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_uid, seen.st_mode & 0o7777


def can_read(project: Project, service: str) -> bool:
    return project.compose("exec", "-T", service, "cat", "/run/secrets/s", check=False) == "word"


def test_services_still_read_their_secrets_after_the_fix(open_project: Project) -> None:
    project = open_project
    secret = project.directory / "secrets/s.txt"
    own = project.directory / "secrets/own.txt"
    secret.parent.mkdir()
    for path, uid, bits in ((secret, 0, 0o644), (own, 10001, 0o600)):
        path.write_text("word")
        os.chown(path, uid, uid)
        path.chmod(bits)
    usual = {"image": IMAGE, "stop_grace_period": "0s"}
    project.write(
        {
            "services": {
                "root": {**usual, "secrets": ["s"]},
                "other": {**usual, "secrets": ["s"], "user": "10001"},
                "own": {**usual, "secrets": [{"source": "own", "target": "s"}], "user": "10001:10001"},
            },
            "secrets": {"s": {"file": "./secrets/s.txt"}, "own": {"file": "./secrets/own.txt"}},
        }
    )
    assert project.inv("up").code == 0
    readers = ("root", "other", "own")
    assert all(can_read(project, name) for name in readers)
    result = project.inv("perms.fix", *OWNER, "--json")
    assert result.code == 0, result
    assert mode(secret.parent) == (UID, 0o700)
    assert mode(secret) == (UID, 0o644)
    assert mode(own) == (10001, 0o600)
    assert all(can_read(project, name) for name in readers)
    project.compose("up", "-d", "--force-recreate")
    assert all(can_read(project, name) for name in readers)
    (finding,) = result.json()["findings"]
    assert finding["summary"] == "secrets/s.txt: other reads this secret as uid 10001"
    assert project.inv("perms.check", *OWNER).code == 0
    shown = project.inv("perms.check", *OWNER).stdout
    assert "other reads this secret as uid 10001" in shown


def test_a_data_folder_that_a_container_owns_is_left_to_it(open_project: Project) -> None:
    project = open_project
    data = project.directory / "docker/data"
    data.mkdir(parents=True)
    os.chown(data, 10001, 10001)
    project.services(
        db={"user": "10001", "command": "sh -c 'touch /x/file; sleep infinity'", "volumes": ["./docker/data:/x"]}
    )
    assert project.inv("up").code == 0
    before = mode(data), mode(data / "file")
    result = project.inv("perms.fix", *OWNER, "--json")
    assert result.code == 0, result
    (left,) = result.json()["left_alone"]
    assert left == {"path": "docker/data", "reason": "db keeps its data there as uid 10001"}
    assert (mode(data), mode(data / "file")) == before
    assert mode(data.parent) == (UID, 0o755)


@pytest.fixture
def volume(open_project: Project) -> str:
    """A volume with root's files, that a service mounts."""
    command = "sh -c 'mkdir -p /v/in; touch /v/a /v/in/b; chmod 640 /v/a; sleep infinity'"
    open_project.write(
        {
            "services": {
                "app": {"image": IMAGE, "command": command, "volumes": ["data:/v"], "stop_grace_period": "0s"}
            },
            "volumes": {"data": {}},
        }
    )
    assert open_project.inv("up").code == 0
    return f"{open_project.name}_data"


def inside(project: Project) -> list[str]:
    return project.compose("exec", "-T", "app", "stat", "-c", "%u:%g %a", "/v", "/v/a", "/v/in/b").split("\n")[:-1]


def test_a_volume_in_use_asks_first(open_project: Project, volume: str) -> None:
    before = inside(open_project)
    refused = open_project.inv("perms.fix", "--volume", "data", "--owner", "10:20")
    assert refused.code == 4
    assert f"volume {volume} is in use by app" in refused.stderr
    dry = open_project.inv("--dry", "perms.fix", "--volume", "data", "--owner", "10:20")
    assert (dry.code, inside(open_project)) == (0, before)
    assert "would fix 4 of 4" in dry.stdout


def test_a_volume_gets_its_owner_and_the_undo_takes_it_back(open_project: Project, volume: str) -> None:
    before = inside(open_project)
    words = ("perms.fix", "--volume", "data", "--owner", "10:20", "--yes", "--json")
    first = open_project.inv(*words)
    assert first.code == 0, first
    assert first.json()["changed"] == 4
    assert inside(open_project) == ["10:20 755", "10:20 640", "10:20 644"]
    assert open_project.inv(*words).json()["changed"] == 0
    assert open_project.inv("perms.undo").code == 0
    assert inside(open_project) == before


def test_where_this_machine_can_not_reach_it_a_helper_container_does_it(open_project: Project, volume: str) -> None:
    # An engine at a TCP address is taken for another machine's; an ordinary user has no way in either.
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={Path('/var/run/docker.sock').stat().st_gid}"]
    os.chown(open_project.directory, UID, UID)
    home = {"HOME": str(open_project.directory)}
    if open_project.inv("engine.check", prefix=user, env=home).code:
        pytest.skip("an ordinary user can't run this Python, or not reach the engine")
    shutil.rmtree(open_project.directory / ".stackhand", ignore_errors=True)
    words = ("perms.fix", "--volume", "data", "--owner", "10:20", "--yes")
    first = open_project.inv(*words, prefix=user, env=home)
    assert first.code == 0, first
    assert "through a helper container" in first.stdout
    assert inside(open_project) == ["10:20 755", "10:20 640", "10:20 644"]
    assert "0 of 4 entries changed" in open_project.inv(*words, prefix=user, env=home).stdout
    assert not open_project.client.containers(all=True, filters={"label": "stackhand.helper=perms", "volume": volume})


def test_a_volume_of_another_project_has_to_be_named_exactly(open_project: Project, volume: str) -> None:
    open_project.env["COMPOSE_PROJECT_NAME"] = f"{open_project.name}-not"
    words = ("perms.fix", "--owner", "10:20", "--yes", "--volume")
    wrong = open_project.inv(*words, "data")
    assert wrong.code == 2
    assert "unknown volume 'data'" in wrong.stderr
    assert open_project.inv(*words, volume).code == 0
    open_project.env["COMPOSE_PROJECT_NAME"] = open_project.name
    assert inside(open_project)[0] == "10:20 755"
