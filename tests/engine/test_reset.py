"""`services.reset`: what goes, what stays, and that nothing of anybody else's is touched."""

from __future__ import annotations

import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from docker.errors import APIError
from shapes import FAST, FOREVER, fingerprint, plain, runs, sh, states, until
from support import IMAGE, PROJECT_LABEL, Project

KEEPS = {"stackhand.kind": "postgres"}
USUAL = {"image": IMAGE, "command": sh(FOREVER), "stop_grace_period": "0s"}


def stack(**more: Any) -> dict[str, Any]:
    """Return a compose document: a service with data, one without, a volume that says it is to be kept."""
    return {
        "services": {
            "db": {**USUAL, "labels": KEEPS, "volumes": ["data:/data"]},
            "web": {**USUAL, "volumes": ["cache:/cache", "kept:/kept", "./folder:/folder", "/nameless"]},
            "both": {**USUAL, "volumes": ["shared:/shared"]},
            "second": {**USUAL, "labels": KEEPS, "volumes": ["shared:/shared"]},
        },
        "volumes": {"data": {}, "cache": {}, "shared": {}, "kept": {"labels": {"stackhand.keep": "true"}}},
        **more,
    }


@pytest.fixture
def neighbour(project: Project) -> Iterator[Project]:
    """A project whose name begins as ours does."""
    folder = project.directory.parent / "neighbour"
    folder.mkdir()
    name = f"{project.name}-2"
    other = replace(
        project, directory=folder, name=name, env={**project.env, "COMPOSE_PROJECT_NAME": name}, _background=[]
    )
    yield other
    other.remove()


def volumes(project: Project) -> list[str]:
    found = project.client.volumes(filters={"label": f"{PROJECT_LABEL}={project.name}"})["Volumes"] or []
    return sorted(each["Name"].removeprefix(f"{project.name}_") for each in found)


def networks(project: Project) -> list[str]:
    return [each["Name"] for each in project.client.networks(filters={"label": f"{PROJECT_LABEL}={project.name}"})]


def write(project: Project, service: str, path: str, text: str = "mine") -> None:
    project.compose("exec", "-T", service, "sh", "-c", f"echo {text} > {path}")


def content(project: Project, service: str, path: str) -> str:
    return project.compose("exec", "-T", service, "sh", "-c", f"cat {path} 2>/dev/null || echo nothing").strip()


def nameless(project: Project, service: str) -> list[str]:
    found = project.container(service)["Mounts"]
    return [each["Name"] for each in found if each["Type"] == "volume" and len(each["Name"]) == 64]


def there(project: Project, volume: str) -> bool:
    try:
        project.client.inspect_volume(volume)
    except APIError:
        return False
    return True


def reset(project: Project, *words: str, code: int = 0) -> dict[str, Any]:
    result = project.inv("services.reset", *words, "--yes", "--no-fixes", "--json", env=FAST)
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    assert document["ok"] is (code == 0)
    return document


def named(document: dict[str, Any], key: str, what: str, project: Project) -> dict[str, str]:
    """Return what was removed or kept of one sort, with the reasons."""
    return {
        each["name"].removeprefix(f"{project.name}_"): each["reason"]
        for each in document[key]
        if each["what"] == what and "without a name" not in each["name"]
    }


@pytest.mark.mechanism
def test_soft_keeps_what_holds_data(project: Project) -> None:
    (project.directory / "folder").mkdir()
    project.write(stack())
    project.compose("up", "-d")
    before = {each["Id"] for each in project.containers()}
    for service, path in (
        ("db", "/data/x"), ("web", "/cache/x"), ("web", "/kept/x"), ("both", "/shared/x"), ("web", "/folder/x"),
    ):  # fmt: skip
        write(project, service, path)
    (old,) = nameless(project, "web")

    planned = project.inv("--dry", "services.reset", "--soft")
    assert planned.code == 0, planned
    assert f"would keep volume {project.name}_data: holds postgres data of db" in planned.stdout
    assert f"would remove volume {project.name}_cache" in planned.stdout
    assert {each["Id"] for each in project.containers()} == before

    document = reset(project, "--soft")
    assert states(document) == dict.fromkeys(("db", "web", "both", "second"), "running")
    assert named(document, "kept", "volume", project) == {
        "data": "holds postgres data of db",
        "kept": "label stackhand.keep=true",
        "shared": "holds postgres data of second",
    }
    assert set(named(document, "removed", "volume", project)) == {"cache"}
    assert [each["name"] for each in document["kept"] if each["what"] == "bind mount"] == [
        str(project.directory / "folder")
    ]
    assert len(named(document, "removed", "container", project)) == 4
    assert not before & {each["Id"] for each in project.containers()}
    assert not there(project, old)
    assert content(project, "db", "/data/x") == "mine"
    assert content(project, "web", "/kept/x") == "mine"
    assert content(project, "second", "/shared/x") == "mine"
    assert content(project, "web", "/folder/x") == "mine"
    assert content(project, "web", "/cache/x") == "nothing"


@pytest.mark.mechanism
def test_full_removes_all_of_this_project_and_nothing_else(project: Project, neighbour: Project) -> None:
    document = stack()
    document["services"]["debug"] = {**USUAL, "profiles": ["tools"], "volumes": ["cache:/cache"]}
    document["services"]["left"] = USUAL
    external = f"{project.name}-external"
    project.client.create_volume(external)
    document["services"]["web"]["volumes"].append("outside:/outside")
    document["volumes"]["outside"] = {"external": True, "name": external}
    try:
        for each in (project, neighbour):
            (each.directory / "folder").mkdir()
            each.write(document)
            each.compose("--profile", "tools", "up", "-d")
        neighbours = fingerprint(neighbour)
        write(project, "db", "/data/x")
        write(project, "web", "/outside/x")
        write(neighbour, "db", "/data/x")
        project.compose("run", "-d", "--no-deps", "web", "sleep", "1000")
        orphan = project.container("left")["Id"]
        del document["services"]["left"]
        project.write(document)
        before = {each["Id"] for each in project.containers()}
        hidden = nameless(project, "db") + [
            name
            for each in project.containers()
            for mount in each["Mounts"]
            if len(name := mount.get("Name", "")) == 64
        ]

        done = reset(project, "--full")
        now = {each["Id"] for each in project.containers()}
        assert not before & now
        assert orphan not in now
        assert not any(there(project, name) for name in hidden)
        removed = named(done, "removed", "container", project)
        assert any("docker compose run" in reason for reason in removed.values())
        assert any("no service left" in reason for reason in removed.values())
        assert set(named(done, "removed", "volume", project)) == {"cache", "data", "kept", "shared"}
        assert named(done, "kept", "volume", project) == {external: "external"}
        # What ran of a profile that is not active now runs again.
        assert set(states(done)) == {"db", "web", "both", "second", "debug"}
        assert content(project, "db", "/data/x") == "nothing"
        assert content(project, "web", "/outside/x") == "mine"

        assert fingerprint(neighbour) == neighbours
        assert content(neighbour, "db", "/data/x") == "mine"
        assert volumes(neighbour) == ["cache", "data", "kept", "shared"]
        assert networks(neighbour) == [f"{neighbour.name}_default"]
    finally:
        project.remove()
        neighbour.remove()
        project.client.remove_volume(external, force=True)


def test_a_volume_that_somebody_else_uses_is_refused(project: Project, neighbour: Project) -> None:
    project.services(web=plain(volumes=["cache:/cache"]))
    path = project.directory / "compose.yaml"
    path.write_text(path.read_text() + "volumes: {cache: {}}\n")
    project.compose("up", "-d")
    name = f"{project.name}_cache"
    neighbour.write(
        {
            "services": {"reader": {**USUAL, "volumes": ["theirs:/x"]}},
            "volumes": {"theirs": {"external": True, "name": name}},
        }
    )
    neighbour.compose("create")
    before = fingerprint(project)
    for words in (("--soft",), ("--full",)):
        for dry in ((), ("--dry",)):
            result = project.inv(*dry, "services.reset", *words, "--yes")
            assert result.code == 1, result
            assert f"volume {name} is used by container {neighbour.name}-reader-1" in result.stderr
            assert f"project {neighbour.name}:" in result.stderr
    assert fingerprint(project) == before
    neighbour.compose("down")
    assert project.inv("services.reset", "--full", "--yes").code == 0
    # And from the other side: what is external stays.
    neighbour.compose("up", "-d")
    kept = reset(neighbour, "--full")["kept"]
    assert [(each["what"], each["reason"]) for each in kept] == [("volume", "external")]
    assert there(project, name)


def test_in_doubt_it_stays(project: Project, neighbour: Project) -> None:
    """Volumes of unknown content, of unknown owners, and of others, however they are declared."""
    neighbour.write({"services": {"web": {**USUAL, "volumes": ["vol:/v"]}}, "volumes": {"vol": {}}})
    neighbour.compose("up", "-d")
    neighbour.compose("rm", "-sf")
    hand = f"{project.name}-by-hand"
    project.client.create_volume(hand)
    try:
        document: dict[str, Any] = {
            "services": {
                "web": {**USUAL, "volumes": ["theirs:/theirs", "hand:/hand"]},
                "gone": {**USUAL, "volumes": ["old:/old"]},
            },
            "volumes": {
                "theirs": {"name": f"{neighbour.name}_vol"},
                "hand": {"name": hand},
                "old": {},
            },
        }
        project.write(document)
        project.compose("up", "-d")
        del document["services"]["gone"]
        project.write(document)
        kept = named(reset(project, "--soft"), "kept", "volume", project)
        assert kept == {
            f"{neighbour.name}_vol": f"belongs to project {neighbour.name}",
            hand: "not made by Compose, whose it is is not known",
            "old": "gone mounts it and is not in the compose file: what it holds is not known",
        }
        full = reset(project, "--full")
        assert set(named(full, "removed", "volume", project)) == {"old"}
        assert there(project, hand)
        assert there(project, f"{neighbour.name}_vol")
    finally:
        project.remove()
        project.client.remove_volume(hand, force=True)


@pytest.mark.mechanism
def test_data_in_a_volume_without_a_name(project: Project) -> None:
    project.services(db=plain(labels=KEEPS, volumes=["/data"]), web=plain(volumes=["/scratch"]))
    project.compose("up", "-d")
    write(project, "db", "/data/x")
    before = {service: (project.container(service)["Id"], nameless(project, service)) for service in ("db", "web")}
    document = reset(project, "--soft")
    kept = {each["what"]: each["reason"] for each in document["kept"]}
    assert "holds postgres data" in kept["container"]
    assert "holds postgres data" in kept["volume"]
    assert content(project, "db", "/data/x") == "mine"
    assert runs(project, "web")
    assert project.container("web")["Id"] != before["web"][0]
    assert not there(project, before["web"][1][0])
    project.compose("exec", "-T", "web", "ping", "-c", "1", "-w", "5", "db")

    reset(project, "--full")
    assert not there(project, before["db"][1][0])
    assert content(project, "db", "/data/x") == "nothing"


@pytest.mark.parametrize("words", [(), ("--soft", "--full")], ids=["neither", "both"])
def test_exactly_one_of_soft_and_full(project: Project, words: tuple[str, ...]) -> None:
    project.services(web=plain())
    result = project.inv("services.reset", *words, "--yes")
    assert (result.code, "either --soft or --full" in result.stderr) == (2, True), result


def test_nobody_can_be_asked(project: Project) -> None:
    project.write(stack())
    (project.directory / "folder").mkdir()
    project.compose("up", "-d")
    before = fingerprint(project)
    result = project.inv("services.reset", "--full")
    assert result.code == 4, result
    assert "--yes" in result.stderr
    assert f"volume {project.name}_data: holds postgres data of db" in result.stdout
    assert fingerprint(project) == before
    document = project.inv("services.reset", "--full", "--json")
    assert document.code == 4
    assert document.json()["error"]["exit_code"] == 4
    assert fingerprint(project) == before


@pytest.mark.mechanism
def test_a_person_is_asked(project: Project) -> None:
    project.services(web=plain())
    project.compose("up", "-d")
    before = fingerprint(project)
    program = "from stackhand.cli.program import main; main()"
    for answer, code in (("n", 4), ("y", 0)):
        line = shlex.join([sys.executable, "-c", program, "services.reset", "--soft", "--no-fixes"])
        # `script` gives it a terminal.
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"],
            cwd=project.directory,
            env=project.env,
            input=f"{answer}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert "[y/N]" in done.stdout
        assert (fingerprint(project) == before) is (answer == "n")
    assert runs(project, "web")


@pytest.mark.mechanism
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_half_way(project: Project, number: signal.Signals) -> None:
    project.write(stack())
    (project.directory / "folder").mkdir()
    project.compose("up", "-d")
    write(project, "db", "/data/x")
    write(project, "web", "/cache/x")
    running = project.start_inv("services.reset", "--soft", "--yes", "--no-fixes")
    until(lambda: len([each for each in project.containers() if each["State"]["Running"]]) < 4, "it has begun")
    running.signal(number)
    result = running.wait()
    assert result.code in (-signal.SIGKILL, 130), result
    result = project.inv("services.reset", "--soft", "--yes", "--no-fixes")
    assert result.code == 0, result
    assert content(project, "db", "/data/x") == "mine"
    assert content(project, "web", "/cache/x") == "nothing"
    assert all(runs(project, service) for service in ("db", "web", "both", "second"))


def test_a_start_tells_of_a_reset_that_was_killed(project: Project) -> None:
    slow = {**USUAL, "command": sh("trap '' TERM; while true; do sleep 1; done"), "stop_grace_period": "20s"}
    project.write({"services": {"web": slow}})
    project.compose("up", "-d")
    running = project.start_inv("services.reset", "--full", "--yes")
    running.wait_for("stopping")
    running.signal(signal.SIGKILL)
    running.wait()
    result = project.inv("services.start", "--no-fixes", env=FAST)
    assert "a reset --full was interrupted" in result.stderr, result
    project.compose("kill")
    result = project.inv("services.reset", "--full", "--yes", "--no-fixes")
    assert result.code == 0, result
    assert "goes on from there" in result.stderr
    assert "interrupted" not in project.inv("services.start", "--no-fixes").stderr


def test_dry_changes_nothing_and_asks_nobody(project: Project) -> None:
    project.write(stack())
    (project.directory / "folder").mkdir()
    project.compose("up", "-d")
    before, kept = fingerprint(project), volumes(project)
    document = project.inv("--dry", "services.reset", "--full", "--json")
    assert document.code == 0, document
    plan = document.json()["plan"]
    assert {each["verb"] for each in plan} == {
        "remove container", "remove network", "remove volume", "keep bind mount", "start",
    }  # fmt: skip
    assert (fingerprint(project), volumes(project)) == (before, kept)
    assert not (project.directory / ".stackhand/journal.json").exists()


def test_nothing_there_is_no_question(project: Project) -> None:
    project.services(web=plain())
    result = project.inv("services.reset", "--full", "--no-fixes")
    assert result.code == 0, result
    assert "goes: nothing" in result.stdout
    assert runs(project, "web")


def test_a_name_of_chance_is_not_ours(project: Project) -> None:
    """A container that is only named like one of the project's."""
    name = f"{project.name}-web-9-{secrets.token_hex(2)}"
    project.services(web=plain())
    project.compose("up", "-d")
    other = project.client.create_container(IMAGE, ["sleep", "1000"], name=name)["Id"]
    try:
        reset(project, "--full")
        assert project.client.inspect_container(other)["Name"] == f"/{name}"
    finally:
        project.client.remove_container(other, force=True)
