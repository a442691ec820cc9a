"""The engine restarted in the middle of a start: with an engine of the test's own, never the machine's."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import shutil
import signal
import socket
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from docker import APIClient
from shapes import PATIENCE, after, by_name, check, gated, open_gate, plain, runs, server, states, until
from support import Project, clean_environment

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="needs root and dockerd"),
    pytest.mark.xdist_group("private-engine"),
]


class PrivateEngine:
    """A dockerd with data, sockets and containers of its own; no networks, so it can't disturb the machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    # In a network namespace of its own: an engine without a bridge removes `docker0`, wherever it is.
                    # (unshare execs, so the process is dockerd itself.)
                    "unshare",
                    "--net",
                    "dockerd",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/pid",
                    f"--host={self.url}",
                    # Where the machine has one containerd for all, the two engines must not see each other there.
                    f"--containerd-namespace={self.folder.name}",
                    f"--containerd-plugins-namespace={self.folder.name}-plugins",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    f"--config-file={self.folder}/daemon.json",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(self.answers, "the private engine answers")
        except AssertionError as error:
            raise AssertionError("\n".join((self.folder / "log").read_text().splitlines()[-20:])) from error

    def answers(self) -> bool:
        """Return whether it answers."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as plain_socket:
            plain_socket.settimeout(5)
            plain_socket.connect(self.url.removeprefix("unix://"))
            plain_socket.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in plain_socket.recv(100)
        return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it is gone."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None
            # One that starts while the old one's containerd is still dying, or dead with nobody to reap it, takes it
            # for alive and waits for it in vain.
            until(lambda: not self._containerd(), "its containerd has ended")
            (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def _containerd(self) -> list[int]:
        file = f"{self.folder}/exec/containerd/containerd.toml"
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if file in process.cmdline():
                    found.append(process.pid)
        return found


@pytest.fixture(scope="module")
def private_engine(image: str) -> Iterator[PrivateEngine]:
    # The path of a socket may be 107 characters long; pytest's own folders are longer.
    folder = Path(f"/tmp/sh-engine-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o700)
    (folder / "daemon.json").write_text("{}\n")
    engine = PrivateEngine(folder)
    try:
        engine.start()
        load = f"docker save {image} | docker --host {engine.url} load"
        subprocess.run(["sh", "-c", load], check=True, capture_output=True)
        yield engine
    finally:
        engine.end()
        _sweep(folder)


def _sweep(folder: Path) -> None:
    """End what the private engine left running, which an engine that is killed does, and remove its folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(str(folder))]):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def remote(private_engine: PrivateEngine, tmp_path: Path) -> Iterator[Project]:
    """A project on the private engine."""
    name = f"sh-restart-{secrets.token_hex(3)}"
    folder = tmp_path / "project"
    folder.mkdir()
    env = clean_environment(COMPOSE_PROJECT_NAME=name, DOCKER_HOST=private_engine.url)
    project = Project(folder, env, name=name, client=APIClient(private_engine.url))
    try:
        yield project
    finally:
        project.remove()
        project.client.close()
        with warnings.catch_warnings():
            # Connections that broke with the engine are left to the garbage collector by the SDK.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.mark.mechanism
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_start_goes_on(remote: Project, private_engine: PrivateEngine, number: signal.Signals) -> None:
    # An engine that comes up ends what it finds running, and waits ten seconds for what does not listen to it.
    off = {"network_mode": "none", "stop_signal": "SIGKILL"}
    remote.services(
        db=server(**off),
        slow=gated(**off),
        api=plain(depends_on=after(db="healthy", slow="healthy"), **off),
    )
    running = remote.start_inv("services.start", "--json", env={"INVOKE_STACKHAND_START_RETRY_DELAY": "1"})
    running.wait_for("db: healthy")
    until(lambda: runs(remote, "slow"), "slow runs")

    private_engine.end(number)
    running.wait_for("the engine does not answer")
    private_engine.start()

    # The engine stopped its containers, or killed them: they are started again.
    until(lambda: runs(remote, "slow"), "slow runs again")
    open_gate(remote, "slow")
    result = running.wait()
    assert result.code == 0, str(result)
    assert states(result.json()) == {"db": "healthy", "slow": "healthy", "api": "running"}
    assert all(runs(remote, name) for name in ("db", "slow", "api"))
    assert by_name(result.json())["slow"]["attempts"] >= 2


def test_an_engine_that_stays_away(remote: Project, private_engine: PrivateEngine) -> None:
    remote.services(slow={**gated(network_mode="none"), "healthcheck": check()})
    running = remote.start_inv("services.start", "--json", "--timeout", "5")
    until(lambda: runs(remote, "slow"), "slow runs")
    private_engine.end()
    try:
        result = running.wait()
    finally:
        private_engine.start()
    assert result.code in (1, 3), result
    assert result.json()["ok"] is False
    assert "engine does not answer" in result.stderr
    assert "Traceback" not in result.stderr
