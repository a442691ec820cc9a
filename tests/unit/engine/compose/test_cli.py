"""Compose: which folder, which files, and the exact command lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.compose.cli import Compose, Selection, development
from stackhand.engine.compose.files import chosen_files, env_file_pairs, find_directory
from stackhand.engine.compose.project import Service
from stackhand.engine.host.programs import Completed
from stackhand.errors import CommandFailed, ComposeMissing, DockerMissing, InvalidComposeFile, NoComposeFile


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("COMPOSE_FILE=x.yaml\n" if name.endswith(".env") else "services: {}\n")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"])
def test_the_folder_is_found_from_any_folder_below(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    below = tmp_path / "a/b"
    below.mkdir(parents=True)
    assert find_directory(tmp_path, {}) == tmp_path
    assert find_directory(below, {}) == tmp_path


def test_the_nearest_folder_counts(tmp_path: Path) -> None:
    write(tmp_path, "compose.yaml", "sub/docker-compose.yml")
    assert find_directory(tmp_path / "sub", {}) == tmp_path / "sub"


def test_a_folder_whose_env_file_names_the_files(tmp_path: Path) -> None:
    write(tmp_path, ".env", "x.yaml")
    (tmp_path / "below").mkdir()
    assert find_directory(tmp_path / "below", {}) == tmp_path
    assert chosen_files(tmp_path, {}) == ("x.yaml",)


@pytest.mark.parametrize("environ", [{}, {"COMPOSE_FILE": ""}, {"COMPOSE_FILE": "nope.yaml"}])
def test_no_compose_file(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(NoComposeFile) as caught:
        find_directory(tmp_path, environ)
    assert caught.value.exit_code == 2
    assert "nope.yaml" in caught.value.message or caught.value.hint


@pytest.mark.parametrize(
    ("value", "separator", "files"),
    [
        ("a.yaml", None, ("a.yaml",)),
        ("a.yaml:sub/b.yaml", None, ("a.yaml", "sub/b.yaml")),
        ("a.yaml;sub/b.yaml", ";", ("a.yaml", "sub/b.yaml")),
    ],
)
def test_compose_file_of_the_environment(
    tmp_path: Path, value: str, separator: str | None, files: tuple[str, ...]
) -> None:
    write(tmp_path, "a.yaml", "sub/b.yaml")
    environ = {"COMPOSE_FILE": value, **({"COMPOSE_PATH_SEPARATOR": separator} if separator else {})}
    assert chosen_files(tmp_path, environ) == files
    assert find_directory(tmp_path, environ) == tmp_path


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("COMPOSE_FILE=a.yaml\n", ("a.yaml",)),
        ("A=1\nexport COMPOSE_FILE = 'a.yaml:b.yaml' # both\n", ("a.yaml", "b.yaml")),
        ('COMPOSE_FILE="a.yaml"', ("a.yaml",)),
        ("# COMPOSE_FILE=a.yaml\nNOT_COMPOSE_FILE=b.yaml\n", ("compose.yaml",)),
        ("COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=a.yaml;b.yaml\n", ("a.yaml", "b.yaml")),
    ],
)
def test_compose_file_of_the_env_file(tmp_path: Path, text: str, files: tuple[str, ...]) -> None:
    write(tmp_path, "compose.yaml")
    (tmp_path / ".env").write_text(text)
    assert chosen_files(tmp_path, {}) == files


@pytest.mark.parametrize(
    ("there", "files"),
    [
        (["compose.yaml"], ("compose.yaml",)),
        (["compose.yaml", "docker-compose.yml"], ("compose.yaml",)),
        (["docker-compose.yml", "docker-compose.override.yml"], ("docker-compose.yml", "docker-compose.override.yml")),
        (["compose.yaml", "compose.override.yaml"], ("compose.yaml", "compose.override.yaml")),
        ([], ()),
    ],
)
def test_files_by_their_usual_names(tmp_path: Path, there: list[str], files: tuple[str, ...]) -> None:
    write(tmp_path, *there)
    assert chosen_files(tmp_path, {}) == files


@pytest.mark.parametrize(
    ("there", "environ", "selection"),
    [
        # Compose reads an override file by itself, unless files are named.
        (["compose.yaml", "compose.override.yaml"], {}, Selection((), ("dev",))),
        (["compose.yaml"], {}, Selection((), ("dev",))),
        (
            ["compose.yaml", "compose.override.yaml"],
            {"COMPOSE_FILE": "compose.yaml"},
            Selection(("compose.yaml", "compose.override.yaml"), ("dev",)),
        ),
        (
            ["compose.yaml", "compose.override.yaml"],
            {"COMPOSE_FILE": "compose.yaml:compose.override.yaml"},
            Selection((), ("dev",)),
        ),
    ],
)
def test_development(tmp_path: Path, there: list[str], environ: dict[str, str], selection: Selection) -> None:
    write(tmp_path, *there)
    assert development(tmp_path, environ) == selection


class FakeCommands:
    """Takes note of what would be run, and answers with a text or a failure."""

    def __init__(self, stdout: str = "", failure: CommandFailed | None = None) -> None:
        self.ran: list[list[str]] = []
        self.cwd: Path | None = None
        self._stdout = stdout
        self._failure = failure

    def run(self, argv: list[str], *, cwd: Path | None = None, **_: Any) -> Completed:
        self.ran.append(list(argv))
        self.cwd = cwd
        if self._failure:
            raise self._failure
        return Completed(tuple(argv), 0, self._stdout, "")


def compose(commands: FakeCommands, selection: Selection | None = None, **environ: str) -> Compose:
    return Compose(commands, Path("/shop"), environ, selection)  # type: ignore[arg-type]


NAMES = ["api", "db"]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda c: c.create(NAMES), "create --no-build --pull never api db"),
        (
            lambda c: c.create(["api"], dependencies=False),
            "up --no-start --no-deps --no-build --pull never api",
        ),
        (lambda c: c.start(NAMES), "up -d --no-deps --no-recreate --no-build api db"),
        (lambda c: c.restart(NAMES), "restart --no-deps api db"),
        (lambda c: c.build(NAMES), "--progress plain build api db"),
        (lambda c: c.pull(NAMES), "--progress plain pull api db"),
        (lambda c: c.stop(NAMES), "stop api db"),
        (lambda c: c.logs(["--tail", "5", "api"], print), "logs --tail 5 api"),
    ],
)
def test_command_lines(act: Callable[[Compose], object], words: str) -> None:
    commands = FakeCommands()
    act(compose(commands))
    assert commands.ran == [["docker", "compose", *words.split()]]
    assert commands.cwd == Path("/shop")


def test_a_selection_stands_before_the_verb() -> None:
    commands = FakeCommands()
    compose(commands, Selection(("a.yaml", "b.yaml"), ("dev", "x"))).stop(["api"])
    assert commands.ran == [
        ["docker", "compose", "-f", "a.yaml", "-f", "b.yaml", "--profile", "dev", "--profile", "x", "stop", "api"]
    ]


def test_profiles_of_the_environment_are_kept() -> None:
    """--profile replaces COMPOSE_PROFILES, it does not add to it."""
    commands = FakeCommands()
    more = compose(commands, Selection(profiles=("dev",)), COMPOSE_PROFILES="a,b").with_profiles(["b", "c"])
    more.stop(["api"])
    assert commands.ran[0][2:-2] == ["--profile", "dev", "--profile", "a", "--profile", "b", "--profile", "c"]


def test_hashes() -> None:
    assert compose(FakeCommands("api 123\ndb   456\n\n")).hashes() == {"api": "123", "db": "456"}


def test_config() -> None:
    document = {
        "name": "shop",
        "services": {
            "db": {"image": "postgres:16", "environment": {"A": None}},
            "api": {
                "build": {"context": "."},
                "depends_on": {"db": {"condition": "service_healthy", "required": False, "restart": True}},
                "deploy": {"replicas": 2, "restart_policy": {"condition": "any"}},
                "ports": [{"published": "8080", "target": 80, "protocol": "tcp"}, {"published": "1-5", "target": 1}],
                "secrets": [{"source": "key"}],
            },
        },
        "networks": {"default": {"name": "shop_default"}, "other": None},
        "secrets": {"key": {"file": "key.txt"}, "token": {"environment": "TOKEN"}},
    }
    read = compose(FakeCommands(json.dumps(document))).config()
    assert read.name == "shop"
    api, db = read.services["api"], read.services["db"]
    assert (db.image, db.replicas, db.restart, db.builds) == ("postgres:16", 1, "no", False)
    assert (api.image, api.replicas, api.restart, api.builds) == ("shop-api", 2, "always", True)
    (entry,) = api.depends_on
    assert (entry.service, entry.condition, entry.required, entry.restart) == ("db", "service_healthy", False, True)
    assert [port.published for port in api.ports] == [8080]
    assert read.networks == {"default": "shop_default", "other": "shop_other"}
    assert read.secret_files == {"key": Path("/shop/key.txt")}
    assert read.secret_variables == {"token": "TOKEN"}
    assert read.files_of("api") == [("secret", "key", Path("/shop/key.txt"))]


def test_dollar_signs_are_single_as_in_the_container() -> None:
    printed = {"name": "shop", "services": {"db": {"image": "x", "environment": {"PASSWORD": "a$$b$$$$c"}}}}
    read = compose(FakeCommands(json.dumps(printed))).config()
    assert read.services["db"].environment == {"PASSWORD": "a$b$$c"}


@pytest.mark.parametrize("text", ["oops", "a: [", ""])
def test_config_that_is_neither_json_nor_yaml(text: str) -> None:
    with pytest.raises(InvalidComposeFile):
        compose(FakeCommands(text)).config()


class YamlOnly(FakeCommands):
    """Compose, where it cannot print a setting as JSON."""

    def run(self, argv: list[str], **more: Any) -> Completed:
        if "json" in argv:
            text = "json: error calling MarshalJSON for type types.SSHKey: invalid character ':' after top-level value"
            raise CommandFailed(argv, 1, text)
        return super().run(argv, **more)


def test_what_compose_cannot_print_as_json_is_read_as_yaml() -> None:
    text = "name: shop\nservices:\n  db: {image: x, build: {ssh: ['a: /key']}, command: [echo, $$x]}\n"
    project = compose(YamlOnly(text)).config()
    assert project.services["db"].raw == {"image": "x", "build": {"ssh": ["a: /key"]}, "command": ["echo", "$x"]}


def test_another_failure_is_not_asked_again() -> None:
    commands = FakeCommands(failure=CommandFailed(["docker", "compose", "config"], 1, "yaml: line 3"))
    with pytest.raises(InvalidComposeFile):
        compose(commands).config()
    assert len(commands.ran) <= 1


@pytest.mark.parametrize(
    ("environ", "env_file", "given"),
    [
        ({}, "", "1"),
        ({"BUILDX_NO_DEFAULT_ATTESTATIONS": "0"}, "", "0"),
        ({}, "BUILDX_NO_DEFAULT_ATTESTATIONS=0\n", None),
    ],
)
def test_builds_have_no_attestations_that_nobody_asked_for(
    tmp_path: Path, environ: dict[str, str], env_file: str, given: str | None
) -> None:
    (tmp_path / ".env").write_text(env_file)
    seen: list[str | None] = []

    class Commands(FakeCommands):
        def run(self, argv: list[str], *, env: Any = None, **more: Any) -> Completed:
            seen.append(env.get("BUILDX_NO_DEFAULT_ATTESTATIONS"))
            return super().run(argv, **more)

    Compose(Commands(), tmp_path, environ).build(NAMES)  # type: ignore[arg-type]
    assert seen == [given]


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        ("daily", 86400),
        ("weekly", 604800),
        ("every_12h", 43200),
        ("every_1d30m", 88200),
        ("every_", None),
        ("always", None),
        ("", None),
    ],
)
def test_how_often_an_image_is_pulled(policy: str, seconds: float | None) -> None:
    assert Service("db", "db", pull_policy=policy).pull_interval == seconds


@pytest.mark.parametrize(
    ("code", "stderr", "error"),
    [
        (127, "docker: No such file or directory", DockerMissing),
        (1, "docker: 'compose' is not a docker command.\nSee 'docker --help'", ComposeMissing),
        (125, "unknown shorthand flag: 'f' in -f", ComposeMissing),
        (1, "docker: unknown command: docker compose", ComposeMissing),
    ],
)
def test_what_is_missing(code: int, stderr: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        compose(FakeCommands(failure=CommandFailed(["docker", "compose"], code, stderr))).hashes()
    assert caught.value.exit_code == 3  # type: ignore[attr-defined]
    assert "engine.install" in caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("version", "fine"), [("2.26.1", True), ("v2.20.0", True), ("5.5.0", True), ("2.19.9", False), ("1.29.2", False)]
)
def test_old_versions(version: str, fine: bool) -> None:
    one = compose(FakeCommands(f"{version}\n"))
    if fine:
        assert one.version() == version.lstrip("v")
        return
    with pytest.raises(ComposeMissing, match="too old"):
        one.version()


def test_an_env_file_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    assert env_file_pairs(tmp_path) == {}
