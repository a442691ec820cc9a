"""What tests use to run stackhand as a person does, and the Compose project that an engine test works on."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from docker.errors import APIError, NotFound
from warm import Warm

from stackhand.state.private import VARIABLE

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGE = "stackhand-test/busybox:1"
_STACKHAND = "from stackhand.cli.program import main; main()"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
# Seconds within which what must happen happens, on a machine that does ten other things. Only a failure waits so long.
PATIENCE = 240.0


def clean_environment(**extra: str | None) -> dict[str, str]:
    """Return an environment in which nothing of the caller's shell changes what stackhand does.

    A value of None takes a variable out.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == VARIABLE or not name.startswith(("COMPOSE_", "INVOKE_", "STACKHAND_", "GITHUB_"))
    }
    kept |= {"PYTHONPATH": str(CHECKOUT / "tasks"), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default"}
    # What a test has broken is a failure also on a busy machine.
    kept |= {"INVOKE_STACKHAND_FIXES_OVERLOAD": "0"}
    for name, value in extra.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


@functools.cache
def warm() -> Warm:
    """Return this test process's warm stackhand."""
    return Warm(clean_environment())


def _python_of(env: Mapping[str, str]) -> dict[str, str]:
    """Return what Python itself reads when it begins, which a warm process can't change any more."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON")}


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Keep test processes of this machine from doing the same thing side by side, as building one image."""
    with Path(tempfile.gettempdir(), f"stackhand-tests-{os.getuid()}-{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def state_elsewhere() -> Iterator[None]:
    """Keep what stackhand keeps outside of projects in a folder of the test's own, where every user may have his."""
    with tempfile.TemporaryDirectory(prefix="stackhand-state-") as folder:
        Path(folder).chmod(0o1777)
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            os.environ.pop(VARIABLE)
            if before is not None:
                os.environ[VARIABLE] = before


@dataclass(frozen=True)
class Result:
    """What one run left behind. `elapsed` is in seconds."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    elapsed: float

    def json(self) -> Any:
        """Return the one JSON document on stdout; fails where there is none or more than one."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"stdout is not one JSON document ({error}):\n{self}") from None

    def lines(self) -> list[Any]:
        """Return the JSON documents of a watcher, one from each line of stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def __str__(self) -> str:
        return (
            f"$ {' '.join(self.argv)}\nexit code {self.code} after {self.elapsed:.2f} s\n"
            f"--- stdout\n{self.stdout}--- stderr\n{self.stderr}---"
        )


class Background:
    """A run that goes on while the test looks, signals or kills.

    Its output goes to files, so that it never blocks on a full pipe and can be read at any time.
    """

    def __init__(self, argv: list[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.argv = argv
        self._began = time.monotonic()
        self._folder = Path(tempfile.mkdtemp(prefix="stackhand-run-"))
        self._out, self._err = self._folder / "stdout", self._folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self) -> str:
        """What it has reported so far."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone, not to what it started."""
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> Result:
        """Wait for its end and return what it left behind; a failed assertion when it takes too long."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"`{' '.join(self.argv)}` still runs after {timeout:g} s\n{self.stdout}\n{self.stderr}"
            ) from None
        return Result(tuple(self.argv), code, self.stdout, self.stderr, time.monotonic() - self._began)

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until it has printed `text`, on stdout or stderr."""
        deadline = time.monotonic() + timeout
        while text not in self.stdout + self.stderr:
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                how = f"ended with {self.process.returncode}" if ended else f"took over {timeout:g} s"
                raise AssertionError(f"{text!r} never came: it {how}\n{self.stdout}\n{self.stderr}")
            time.sleep(0.02)

    def close(self) -> None:
        """End it by force where it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass
class Runner:
    """Runs stackhand in a folder, as `inv` would be run there."""

    directory: Path
    env: dict[str, str] = field(default_factory=clean_environment)
    _background: list[Background] = field(default_factory=list)

    def inv(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> Result:
        """Run tasks to their end, without a terminal.

        `env` is added to the clean environment; `prefix` is a program that runs the tasks, such as `setpriv`.
        Where there is none it is a warm process, without the half second that a Python program takes to begin.
        """
        whole = {**self.env, **(env or {})}
        if prefix or _python_of(whole) != _python_of(clean_environment()):
            running = self.start_inv(*args, env=env, cwd=cwd, prefix=prefix)
            try:
                return running.wait(timeout)
            finally:
                running.close()
        argv = [*self._program(), *args]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="stackhand-run-") as folder:
            out, err = Path(folder, "stdout"), Path(folder, "stderr")
            code = warm().run([argv[0], *args], cwd or self.directory, whole, out, err, timeout)
            stdout, stderr = (file.read_text(encoding="utf-8", errors="replace") for file in (out, err))
        if code is None:
            raise AssertionError(f"`{' '.join(argv)}` still runs after {timeout:g} s\n{stdout}\n{stderr}")
        return Result(tuple(argv), code, stdout, stderr, time.monotonic() - began)

    def start_inv(
        self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, prefix: Sequence[str] = ()
    ) -> Background:
        """Start tasks and return at once; ended with the test if it doesn't end before.

        A folder with a `tasks.py` gets `inv` with those tasks, any other one the `stackhand` program.
        """
        argv = [*prefix, sys.executable, *self._program(), *args]
        running = Background(argv, cwd or self.directory, {**self.env, **(env or {})})
        self._background.append(running)
        return running

    def _program(self) -> list[str]:
        return ["-m", "stackhand"] if (self.directory / "tasks.py").exists() else ["-c", _STACKHAND]

    def close(self) -> None:
        """End by force whatever still runs."""
        while self._background:
            self._background.pop().close()


@dataclass
class Project(Runner):
    """A Compose project of its own: a folder, a unique name, and what the engine has of it."""

    name: str = ""
    client: Any = None

    def write(self, compose: str | Mapping[str, Any], file: str = "compose.yaml") -> Path:
        """Write a compose file, from YAML text or from a document."""
        text = compose if isinstance(compose, str) else yaml.safe_dump(dict(compose), sort_keys=False)
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def services(self, **services: Mapping[str, Any]) -> Path:
        """Write a compose file with these services; image and an immediate stop are added where missing."""
        usual = {"image": IMAGE, "stop_grace_period": "0s"}
        return self.write({"services": {name.replace("__", "-"): {**usual, **raw} for name, raw in services.items()}})

    def docker(self, *args: str, check: bool = True) -> str:
        """Run the docker CLI in the project's folder and return its stdout."""
        done = subprocess.run(
            ["docker", *args], cwd=self.directory, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"docker {' '.join(args)}: {done.stderr}"
        return done.stdout

    def compose(self, *args: str, check: bool = True) -> str:
        """Run `docker compose` on the project and return its stdout."""
        return self.docker("compose", *args, check=check)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """Return what the engine says of each container of the project, or of one service, running or not."""
        labels = [f"{PROJECT_LABEL}={self.name}"]
        labels += [f"{SERVICE_LABEL}={service}"] if service else []
        found = []
        for entry in self.client.containers(all=True, filters={"label": labels}):
            with contextlib.suppress(NotFound):
                found.append(self.client.inspect_container(entry["Id"]))
        return sorted(found, key=lambda container: str(container["Name"]))

    def container(self, service: str) -> dict[str, Any]:
        """Return what the engine says of a service's only container."""
        found = self.containers(service)
        assert len(found) == 1, f"{service} has {len(found)} containers"
        return found[0]

    def states(self) -> dict[str, str]:
        """Return each service's state: its health where it has a healthcheck, else `running`, `exited`, …"""
        return {
            container["Config"]["Labels"][SERVICE_LABEL]: container["State"]
            .get("Health", {})
            .get("Status", container["State"]["Status"])
            if container["State"]["Running"]
            else container["State"]["Status"]
            for container in self.containers()
        }

    def remove(self) -> None:
        """Remove all that the engine has of the project, by label: a broken compose file is no obstacle."""
        self.close()
        client, mine = self.client, {"label": f"{PROJECT_LABEL}={self.name}"}
        containers = [str(each["Id"]) for each in client.containers(all=True, filters=mine)]
        if containers:
            # At once: the engine takes its time for each.
            self.docker("rm", "--force", "--volumes", *containers, check=False)
        for network in client.networks(filters=mine):
            with contextlib.suppress(APIError):
                client.remove_network(network["Id"])
        for volume in client.volumes(filters=mine)["Volumes"] or []:
            with contextlib.suppress(APIError):
                client.remove_volume(volume["Name"], force=True)
        for image in client.images(filters={"reference": f"{self.name}-*"}):
            with contextlib.suppress(APIError):
                client.remove_image(image["Id"], force=True)


def fetched_package(name: str, folder: Path) -> Path:
    """Return the folder that a package of the distribution was unpacked into, without being installed."""
    folder = folder / name
    folder.mkdir()
    download = ["apt-get", "-q", "download", name]
    with one_at_a_time("apt"):
        done = subprocess.run(download, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=False)
            done = subprocess.run(download, cwd=folder, capture_output=True, text=True, check=False)
    packages = list(folder.glob("*.deb"))
    assert packages, f"could not download the package {name}:\n{done.stderr}"
    subprocess.run(["dpkg", "-x", packages[0], folder], check=True, capture_output=True)
    return folder
