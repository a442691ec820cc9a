"""Permissions beside a running stack: services still read their secrets, data stays theirs, volumes get owners."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from shapes import until
from support import IMAGE, PROJECT_LABEL, Project

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


@pytest.mark.mechanism
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
    printable = project.inv("perms.check", *OWNER).stdout
    assert "other reads this secret as uid 10001" in printable


@pytest.mark.parametrize(("before", "status", "says"), [(0o644, "ok", ""), (0o600, "fail", "NOT ")])
def test_a_private_key_that_a_service_reads_is_not_taken_away_nor_opened(
    open_project: Project, before: int, status: str, says: str
) -> None:
    project = open_project
    key = project.directory / "app/tls.pem"
    key.parent.mkdir()
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    key.chmod(before)
    project.services(web={"user": "10001", "volumes": ["./app/tls.pem:/tls.pem:ro"]})
    for task in ("perms.check", "perms.fix", "perms.check"):
        (finding,) = project.inv(task, *OWNER, "--json").json()["findings"]
        assert (finding["status"], finding["service"]) == (status, "web")
        assert finding["evidence"].endswith(f"after: owner {UID}:{UID}, mode {before:03o}, can {says}be read")
    assert mode(key) == (UID, before)


def test_a_secret_is_known_however_its_path_is_spelt(open_project: Project) -> None:
    """Compose's paths are those of the shell's working folder; and a secret may itself be a link."""
    project = open_project
    for name in ("app/tok", "app/real.txt"):
        path = project.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("word")
        path.chmod(0o600)
    (project.directory / "secrets").mkdir()
    (project.directory / "secrets/s.txt").symlink_to("../app/real.txt")
    (project.directory / "docker/db").mkdir(parents=True)
    os.chown(project.directory / "docker/db", 999, 999)
    usual = {"image": IMAGE, "stop_grace_period": "0s", "user": "10001", "secrets": ["tok", "s"]}
    project.write(
        {
            "services": {"app": {**usual, "volumes": ["./docker/db:/var/lib/x"]}},
            "secrets": {"tok": {"file": "./app/tok"}, "s": {"file": "./secrets/s.txt"}},
        }
    )
    real = project.directory
    link = real.with_name(f"{real.name}-link")
    link.symlink_to(real)
    try:
        project.directory = link
        project.env["PWD"] = str(link)
        result = project.inv("perms.fix", *OWNER, "--json")
    finally:
        link.unlink()
        project.directory = real
    assert mode(real / "app/tok") == mode(real / "app/real.txt") == (UID, 0o600), result
    assert mode(real / "docker/db") == (999, 0o755)
    # Neither can be read, and that is what it says.
    found = {each["summary"].partition(":")[0]: each["status"] for each in result.json()["findings"]}
    assert found == {"app/tok": "fail", "app/real.txt": "fail", "docker/db": "ok"}
    assert result.code == 1


@pytest.mark.mechanism
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


def test_what_a_container_makes_in_a_mounted_data_folder_stays_its_own(open_project: Project) -> None:
    """Docker makes the folder itself, as root; only what is in it tells whose data it is."""
    project = open_project
    command = "sh -c 'mkdir -m 700 /var/lib/mq/mnesia; touch /var/lib/mq/mnesia/a; sleep infinity'"
    project.services(mq={"user": "10001", "command": command, "volumes": ["./docker/mq:/var/lib/mq"]})
    data = project.directory / "docker/mq"
    data.mkdir(parents=True)
    data.chmod(0o777)
    assert project.inv("up").code == 0
    result = project.inv("perms.fix", *OWNER, "--json")
    assert result.code == 0, result
    assert [each["path"] for each in result.json()["left_alone"]] == ["docker/mq/mnesia"]
    assert mode(data) == (UID, 0o755)
    assert (mode(data / "mnesia"), mode(data / "mnesia/a")) == ((10001, 0o700), (10001, 0o644))
    assert project.inv("perms.check", *OWNER).code == 0


def test_a_private_file_is_opened_to_its_reader_alone_and_strict_programs_files_stay_roots(
    open_project: Project,
) -> None:
    project = open_project
    modes = {"config/app.conf": 0o600, "config/token": 0o600, "docker/jobs": 0o644, "config/key": 0o400}
    for name, bits in modes.items():
        path = project.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("word")
        path.chmod(bits)
    os.chown(project.directory / "config/key", 10002, 10002)
    reads = {"user": "10001:10002", "volumes": ["./config/app.conf:/app.conf:ro"]}
    keeps = {"user": "10002", "volumes": ["./config/key:/key:ro", "./docker/jobs:/etc/cron.d/jobs:ro"]}
    project.services(app=reads, db=keeps)
    before = {name: (project.directory / name).stat() for name in modes}
    dry = project.inv("--dry", "perms.fix", *OWNER)
    result = project.inv("perms.fix", *OWNER, "--json")
    assert result.code == 0, result
    assert mode(project.directory / "config/app.conf") == (UID, 0o640)
    assert (project.directory / "config/app.conf").stat().st_gid == 10002
    assert mode(project.directory / "config/token") == (UID, 0o600)
    for name in ("config/key", "docker/jobs"):
        assert mode(project.directory / name) == (before[name].st_uid, modes[name]), name
        assert f"left alone: {name}" in dry.stdout
    assert "would fix config/app.conf: owner 0:0, not 4321:10002; mode 600, not 640" in dry.stdout
    assert project.inv("up").code == 0
    assert project.compose("exec", "-T", "app", "cat", "/app.conf") == "word"
    assert project.compose("exec", "-T", "db", "cat", "/key") == "word"
    assert project.inv("perms.fix", *OWNER, "--json").json()["changed"] == 0
    assert project.inv("perms.undo").code == 0
    assert {name: (project.directory / name).stat()[4:6] for name in modes} == {n: s[4:6] for n, s in before.items()}


def test_what_a_container_wrote_stays_its_own_whether_the_stack_is_up_or_down(open_project: Project) -> None:
    """Of an image that starts as root and goes on as the user that its environment names, or as one of its own."""
    project = open_project
    script = "cd /config; touch roots told; chown 1 told; mkdir own; chown 911 own; sleep infinity"
    command = ["sh", "-c", script]
    project.services(app={"environment": {"PUID": "1"}, "command": command, "volumes": ["./config/app:/config"]})
    folder = project.directory / "config/app"
    folder.mkdir(parents=True)
    assert project.inv("up").code == 0
    until(lambda: (folder / "own").exists() and mode(folder / "own")[0] == 911, "the container has written")
    for _ in ("up", "down"):
        result = project.inv("perms.fix", *OWNER, "--json")
        assert result.code == 0, result
        left = {each["path"]: each["reason"] for each in result.json()["left_alone"]}
        assert set(left) == {"config/app/told", "config/app/own"}
        assert left["config/app/told"] == "app runs as uid 1, which owns it"
        assert "no person of this machine" in left["config/app/own"]
        found = [mode(folder / name)[0] for name in ("told", "own", "roots")]
        assert found == [1, 911, UID]
        project.compose("down")
    assert project.inv("perms.check", *OWNER).code == 0


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


@pytest.mark.mechanism
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


def test_hard_links_closed_files_and_fifos_of_a_volume(open_project: Project, volume: str) -> None:
    """What is linked within a volume changes with all its names; modes stay, 000 too."""
    prepare = "ln /v/a /v/in/again; touch /v/closed; chmod 0 /v/closed; mkfifo /v/fifo; mkdir -m 0 /v/shut"
    open_project.compose("exec", "-T", "app", "sh", "-c", prepare)
    result = open_project.inv("perms.fix", "--volume", "data", "--owner", "10:20", "--yes", "--json")
    assert result.code == 0, result
    names = ["/v/a", "/v/in/again", "/v/closed", "/v/shut", "/v/fifo"]
    found = open_project.compose("exec", "-T", "app", "stat", "-c", "%u:%g %a", *names).split()
    assert " ".join(found) == "10:20 640 10:20 640 10:20 0 10:20 0 0:0 644"


def helpers(project: Project, volume: str) -> list[dict]:
    return project.client.containers(all=True, filters={"label": "stackhand.helper=perms", "volume": volume})


@pytest.fixture
def ordinary(open_project: Project) -> dict:
    """How `inv` is run as a user who reaches the engine, and not the engine's own folders."""
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={Path('/var/run/docker.sock').stat().st_gid}"]
    os.chown(open_project.directory, UID, UID)
    options = {"prefix": user, "env": {"HOME": str(open_project.directory)}}
    if open_project.inv("engine.check", **options).code:
        pytest.skip("an ordinary user can't run this Python, or not reach the engine")
    shutil.rmtree(open_project.directory / ".stackhand", ignore_errors=True)
    return options


@pytest.mark.mechanism
def test_where_this_machine_can_not_reach_it_a_helper_container_does_it(
    open_project: Project, volume: str, ordinary: dict
) -> None:
    # An engine at a TCP address is taken for another machine's; an ordinary user has no way in either.
    prepare = (
        "touch /v/set /v/theirs; chown 5 /v/theirs; chmod 6755 /v/set; chmod 4755 /v/theirs; mkfifo /v/fifo;"
        "touch \"$(printf '/v/a\\nb')\" /v/-rf"
    )
    open_project.compose("exec", "-T", "app", "sh", "-c", prepare)
    shutil.rmtree(open_project.directory / ".stackhand", ignore_errors=True)
    words = ("perms.fix", "--volume", "data", "--owner", "10:20", "--yes")
    dry = open_project.inv("--dry", *words, **ordinary)
    assert (dry.code, inside(open_project)) == (0, ["0:0 755", "0:0 640", "0:0 644"])
    assert "would fix 7 of 9 entries" in dry.stdout, dry
    first = open_project.inv(*words, **ordinary)
    assert first.code == 1, first
    assert "through a helper container" in first.stdout
    assert "1 setuid or setgid files of other users" in first.stdout
    assert "7 of 9 entries changed" in first.stdout
    assert inside(open_project) == ["10:20 755", "10:20 640", "10:20 644"]
    found = open_project.compose("exec", "-T", "app", "stat", "-c", "%u:%g %a", "/v/set", "/v/theirs", "/v/fifo")
    assert found.split() == ["10:20", "6755", "5:0", "4755", "0:0", "644"]
    open_project.compose("exec", "-T", "app", "rm", "/v/theirs")
    assert "0 of 8 entries changed" in open_project.inv(*words, **ordinary).stdout
    assert not helpers(open_project, volume)


@pytest.fixture
def hungry(open_project: Project) -> str:
    """An image that asks for a volume of its own; it goes with the project."""
    name = f"{open_project.name}-volume"
    dockerfile = io.BytesIO(f"FROM {IMAGE}\nVOLUME /own\n".encode())
    for line in open_project.client.build(fileobj=dockerfile, tag=name, rm=True, decode=True):
        assert "error" not in line, line
    return name


def test_a_helper_container_takes_the_volumes_of_its_image_with_it(
    open_project: Project, hungry: str, ordinary: dict
) -> None:
    usual = {"image": hungry, "command": "sleep infinity", "stop_grace_period": "0s"}
    open_project.write({"services": {"app": {**usual, "volumes": ["data:/v"]}}, "volumes": {"data": {}}})
    assert open_project.inv("up").code == 0
    shutil.rmtree(open_project.directory / ".stackhand", ignore_errors=True)
    before = open_project.client.df()["Volumes"] or []
    result = open_project.inv("perms.fix", "--volume", "data", "--owner", "10:20", "--yes", **ordinary)
    assert result.code == 0, result
    known = {each["Name"] for each in before}
    # Others may make some meanwhile, but use them.
    left = [each for each in open_project.client.df()["Volumes"] or [] if not each["UsageData"]["RefCount"]]
    assert [each["Name"] for each in left if each["Name"] not in known] == []
    assert not helpers(open_project, f"{open_project.name}_data")


def test_a_volume_that_lies_elsewhere_is_not_looked_for_in_the_engines_folder(open_project: Project) -> None:
    project = open_project
    elsewhere = project.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    options = {"type": "none", "o": "bind", "device": str(elsewhere)}
    usual = {"image": IMAGE, "command": "sleep infinity", "stop_grace_period": "0s"}
    project.write({"services": {"app": {**usual, "volumes": ["far:/v"]}}, "volumes": {"far": {"driver_opts": options}}})
    labels = {PROJECT_LABEL: project.name, "com.docker.compose.volume": "far"}
    project.client.create_volume(f"{project.name}_far", driver="local", driver_opts=options, labels=labels)
    words = ("perms.fix", "--volume", "far", "--owner", "10:20", "--yes", "--json")
    unused = project.inv(*words)
    assert unused.code == 3, unused
    assert "mounted only while a container uses it" in unused.stderr
    # A container that does not run: for the helper, the engine mounts it.
    project.compose("create")
    stopped = project.inv(*words)
    assert stopped.code == 0, stopped
    assert (stopped.json()["changed"], stopped.json()["journal"]) == (2, None)
    assert mode(elsewhere / "file")[0] == 10
    os.chown(elsewhere / "file", 0, 0)
    project.compose("up", "-d")
    running = project.inv(*words)
    assert (running.code, running.json()["changed"]) == (0, 1), running
    assert running.json()["journal"]
    assert mode(elsewhere / "file")[0] == 10


def test_a_volume_of_another_project_has_to_be_named_exactly(open_project: Project, volume: str) -> None:
    open_project.env["COMPOSE_PROJECT_NAME"] = f"{open_project.name}-not"
    words = ("perms.fix", "--owner", "10:20", "--yes", "--volume")
    wrong = open_project.inv(*words, "data")
    assert wrong.code == 2
    assert "unknown volume 'data'" in wrong.stderr
    assert open_project.inv(*words, volume).code == 0
    open_project.env["COMPOSE_PROJECT_NAME"] = open_project.name
    assert inside(open_project)[0] == "10:20 755"
