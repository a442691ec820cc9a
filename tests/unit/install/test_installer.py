"""Carrying out: what is run, what is written, and what is said when a step fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.api import endpoint
from stackhand.engine.host.programs import Completed, Programs
from stackhand.errors import CommandFailed, EngineUnreachable, InstallFailed
from stackhand.install import installer
from stackhand.install.check import Observation
from stackhand.install.installer import Installer
from stackhand.install.machine import Machine
from stackhand.model import Action

SOURCES = {"debian.list": "deb http://mirror.example/debian bookworm main\n"}


class FakeCommands(Programs):
    """Notes what would be run; `react` stands in for what the programs do."""

    def __init__(self, react: Callable[[list[str], Path | None], None] = lambda *_: None) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.react = react

    def run(self, argv: Sequence[str], *, cwd: Path | None = None, **_: Any) -> Completed:
        words = list(argv)
        self.ran.append(" ".join(word for word in words if word[0] != "-" and "=" not in word))
        self.react(words, cwd)
        return Completed(tuple(argv), 0, "", "")

    def detach(self, argv: Sequence[str], *, log: Path, env: Any = None) -> int:
        self.ran.append(f"detached {' '.join(argv)}")
        assert not [name for name in env if name.startswith("DOCKER_")]
        return 4242


def make(commands: Programs, **facts: Any) -> Installer:
    machine = Machine(Observation(), codename="bookworm", sources=SOURCES, **facts)
    return Installer(commands, {"PATH": "/bin", "DOCKER_TLS_VERIFY": "1"}, machine, lambda _: None)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
    """Make the engine refuse and answer in this order, the last one for ever."""
    left = list(answers)

    class Client:
        def close(self) -> None: ...

    def connect(*_: Any) -> Client:
        if not (left.pop(0) if len(left) > 1 else left[0]):
            raise EngineUnreachable("no engine answers")
        return Client()

    monkeypatch.setattr(endpoint, "connect", connect)
    monkeypatch.setattr(installer, "_POLL_SECONDS", 0.001)


def failing(program: str, stderr: str = "", times: int = 100) -> Callable[[list[str], Path | None], None]:
    left = [times]

    def react(argv: list[str], _: Path | None) -> None:
        if program in argv and left[0]:
            left[0] -= 1
            raise CommandFailed(argv, 100, stderr)

    return react


def test_old_lists_are_refreshed_when_an_install_fails() -> None:
    commands = FakeCommands(failing("install", times=1))

    make(commands).carry_out(Action("engine", "install", "none", ("docker.io",)))

    assert [line.split()[-1] for line in commands.ran] == ["docker.io", "update", "docker.io"]


def test_a_failed_step_names_itself_and_apt_s_own_words() -> None:
    commands = FakeCommands(failing("install", "Reading lists\nE: Unable to locate package docker.io\n"))

    with pytest.raises(InstallFailed, match=r"could not install docker\.io: E: Unable to locate") as caught:
        make(commands).carry_out(Action("engine", "install", "none", ("docker.io",)))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("init", "ran"),
    [
        ("systemd", ["systemctl enable docker"]),
        ("service", ["service docker start"]),
        ("none", ["detached dockerd"]),
    ],
)
def test_the_engine_is_started_as_the_machine_does_it(
    monkeypatch: pytest.MonkeyPatch, init: str, ran: list[str]
) -> None:
    answering(monkeypatch, False, True)
    monkeypatch.setattr(installer.os, "waitpid", lambda *_: (0, 0))
    commands = FakeCommands()

    make(commands).carry_out(Action("engine", "start", "it is not running", (init,)))

    assert commands.ran == ran


def test_where_service_does_not_help_dockerd_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, True)
    commands = FakeCommands(failing("service"))

    make(commands).carry_out(Action("engine", "start", "it is not running", ("service",)))

    assert commands.ran == ["service docker start", "detached dockerd"]


def test_a_dockerd_that_dies_is_seen_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "dockerd.log"
    log.write_text("level=info msg=starting\nfailed to start daemon: Devices cgroup isn't mounted\nbye\n")
    monkeypatch.setattr(installer, "LOG", log)
    monkeypatch.setattr(installer.os, "waitpid", lambda pid, _: (pid, 256))
    answering(monkeypatch, False)

    with pytest.raises(InstallFailed, match="dockerd ended at once: failed to start daemon: Devices") as caught:
        make(FakeCommands()).carry_out(Action("engine", "start", "it is not running", ("none",)))
    assert str(log) in (caught.value.hint or "")


def test_an_engine_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, False)
    monkeypatch.setattr(installer, "_START_SECONDS", 0.01)

    with pytest.raises(InstallFailed, match=r"does not answer after 0\.01 s"):
        make(FakeCommands()).carry_out(Action("engine", "wait", "it starts"))


def test_a_stale_pid_file_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pid_file = tmp_path / "docker.pid"
    pid_file.write_text("1")
    monkeypatch.setattr(installer, "PID_FILE", pid_file)

    make(FakeCommands()).carry_out(Action("engine", "unlock", "stale"))

    assert not pid_file.exists()


def packaging(
    content: bytes | None, sources: list[str], name: str = "docker-compose"
) -> Callable[[list[str], Path | None], None]:
    """Behave as apt-get and dpkg do with a package that holds `content` as its plugin."""

    def react(argv: list[str], cwd: Path | None) -> None:
        if "update" in argv:
            parts = next(word for word in argv if word.startswith("Dir::Etc::SourceParts=")).partition("=")[2]
            sources.extend(file.read_text() for file in Path(parts).iterdir())
        if "download" in argv and cwd:
            (cwd / f"{name}_2.26.1-4_amd64.deb").touch()
        if "-x" in argv and content is not None:
            plugin = Path(argv[-1]) / "usr/libexec/docker/cli-plugins" / name
            plugin.parent.mkdir(parents=True)
            plugin.write_bytes(content)

    return react


ADD = Action("compose", "add", "missing", ("docker-compose", "trixie"))


def test_the_plugin_of_the_next_release(tmp_path: Path) -> None:
    sources: list[str] = []
    commands = FakeCommands(packaging(b"plugin", sources))

    make(commands, plugins=tmp_path / "cli-plugins").carry_out(ADD)

    assert sources == ["deb http://mirror.example/debian trixie main\n"]
    plugin = tmp_path / "cli-plugins/docker-compose"
    assert plugin.read_bytes() == b"plugin"
    assert plugin.stat().st_mode & 0o777 == 0o755
    assert [file.name for file in plugin.parent.iterdir()] == ["docker-compose"]


def test_the_machine_s_own_release_needs_no_other_sources(tmp_path: Path) -> None:
    commands = FakeCommands(packaging(b"plugin", []))

    own = Action("compose", "add", "missing", ("docker-compose", "bookworm"))
    make(commands, plugins=tmp_path).carry_out(own)

    assert not [line for line in commands.ran if "update" in line]


def test_buildx_is_a_plugin_like_compose(tmp_path: Path) -> None:
    (tmp_path / "docker-compose").write_bytes(b"compose")
    commands = FakeCommands(packaging(b"buildx", [], "docker-buildx"))

    make(commands, plugins=tmp_path).carry_out(Action("buildx", "add", "missing", ("docker-buildx", "bookworm")))

    assert (tmp_path / "docker-buildx").read_bytes() == b"buildx"
    assert (tmp_path / "docker-compose").read_bytes() == b"compose"


def test_a_plugin_that_does_not_run_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "docker-compose").write_bytes(b"old")
    pack = packaging(b"too new for this libc", [])

    def react(argv: list[str], cwd: Path | None) -> None:
        pack(argv, cwd)
        if argv[-1] == "version":
            raise CommandFailed(argv, 1, "version `GLIBC_2.38' not found")

    with pytest.raises(InstallFailed, match="GLIBC"):
        make(FakeCommands(react), plugins=tmp_path).carry_out(ADD)
    assert (tmp_path / "docker-compose").read_bytes() == b"old"


def test_a_half_copied_plugin_of_an_earlier_run_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".docker-compose.new").write_bytes(b"half a plug")

    make(FakeCommands(packaging(b"plugin", [])), plugins=tmp_path).carry_out(ADD)

    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"plugin"]


def test_a_package_without_a_plugin(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="contains no docker-compose plugin"):
        make(FakeCommands(packaging(None, [])), plugins=tmp_path).carry_out(ADD)
