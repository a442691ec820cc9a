"""What the comparisons share: Compose projects of their own, measured processes, and one way to report.

A comparison is a function that takes Options and returns a Report; `main` does the rest.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import secrets
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import psutil
from graphs import Service, compose_file

TASKS = "from stackhand import ns\n"
CHECKOUT = Path(__file__).resolve().parent.parent
IMAGE = "stackhand-test/busybox:1"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
# Above this share of busy cores before a run, its time says little.
NOISY = 0.25
# How long one start may take before the comparison gives up.
LIMIT = 900

_warnings: list[str] = []

_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /var/run /root /etc && chmod 1777 /tmp && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
ENV PATH=/bin
CMD ["sleep", "infinity"]
"""


class InvalidRunError(Exception):
    """A run whose time means nothing: it failed, or it did something other than it should have done."""


@dataclass(frozen=True)
class Options:
    """What the command line chose. `stackhand` is the command line up to the task."""

    runs: int
    stackhand: tuple[str, ...]
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Bound:
    """A value that must not exceed its limit; without a limit it is only told."""

    what: str
    value: float
    limit: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is within the limit; None where there is none."""
        return None if self.limit is None else self.value <= self.limit


@dataclass
class Report:
    """What one comparison found. `rows` has the measured values, in seconds unless named otherwise."""

    title: str
    rows: dict[str, list[float]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, value: float) -> None:
        """Note one more measured value of a row."""
        self.rows.setdefault(row, []).append(value)

    def median(self, row: str) -> float:
        """Return the median of a row."""
        return statistics.median(self.rows[row])

    @property
    def ok(self) -> bool:
        """Whether every bound is met."""
        return all(bound.met is not False for bound in self.bounds)


@dataclass(frozen=True)
class StartHistory:
    """Peaks of memory, in MB: the process itself, its largest child, and the whole family at one moment.

    A process's own figure is its resident set. For the family, pages that several share count once (PSS).
    """

    process: float = 0.0
    largest_child: float = 0.0
    family: float = 0.0


@dataclass(frozen=True)
class Done:
    """A measured process."""

    seconds: float
    code: int
    stdout: str
    stderr: str
    memory: StartHistory = StartHistory()


def main(compare: Callable[[Options], Report], *, runs: int, flags: Mapping[str, str] | None = None) -> None:
    """Read the command line, compare, print, and exit.

    The code is 0 when all bounds are met, 1 when one is not, 2 without a valid run, 130 when interrupted.
    """
    module = sys.modules[compare.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=_positive, default=runs, help=f"runs of each side (default {runs})")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--stackhand",
        default=shlex.join((sys.executable, "-m", "stackhand")),
        help="command line up to the task, for example `inv` (default: this checkout's package)",
    )
    for flag, meaning in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    chosen = parser.parse_args()
    on = frozenset(flag for flag in flags or {} if getattr(chosen, flag.replace("-", "_")))
    signal.signal(signal.SIGTERM, _stop)
    # As pip and ./inv do. Invoke keeps Python from it, and nobody's stackhand compiles itself anew at every call.
    compileall.compile_dir(CHECKOUT / "tasks", quiet=2, workers=0)
    machine = describe_machine()
    try:
        report = compare(Options(chosen.runs, tuple(shlex.split(chosen.stackhand)), on))
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except InvalidRunError as error:
        say(f"error: {error}")
        if chosen.json:
            print(json.dumps({"machine": machine, "ok": False, "error": str(error)}, indent=2))
        sys.exit(2)
    report.notes += _warnings
    print(as_json(report, machine) if chosen.json else as_text(report, machine))
    sys.exit(0 if report.ok else 1)


def as_text(report: Report, machine: str) -> str:
    """Return the report as a short table."""
    width = max(len(text) for text in (*report.rows, *(bound.what for bound in report.bounds)))
    lines = [report.title, machine, "", f"{'':{width}}  {'median':>8} {'best':>8}  each run"]
    for name, values in report.rows.items():
        runs = " ".join(f"{value:.2f}" for value in values[:9]) + (" …" if len(values) > 9 else "")
        lines.append(f"{name:{width}}  {statistics.median(values):8.2f} {min(values):8.2f}  {runs}")
    lines.append("")
    for bound in report.bounds:
        limit = "" if bound.limit is None else f"  ≤ {bound.limit:g}{bound.unit}"
        verdict = {True: "met", False: "NOT met", None: "(for information)"}[bound.met]
        lines.append(f"{bound.what:{width}}  {bound.value:8.2f}{bound.unit}{limit}  {verdict}")
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def as_json(report: Report, machine: str) -> str:
    """Return the report as JSON."""
    document = {
        "title": report.title,
        "machine": machine,
        "ok": report.ok,
        "rows": [
            {
                "name": name,
                "median": round(statistics.median(values), 3),
                "runs": [round(v, 3) for v in values],
            }
            for name, values in report.rows.items()
        ],
        "bounds": [asdict(bound) | {"value": round(bound.value, 3), "met": bound.met} for bound in report.bounds],
        "notes": report.notes,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def say(text: str) -> None:
    """Tell on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def describe_machine() -> str:
    """Return one line about the machine; load is how busy it was before the comparison began."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.platform(terse=True)
    engine = _output("docker", "version", "--format", "{{.Server.Version}}")
    compose = _output("docker", "compose", "version", "--short")
    return (
        f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, {system}, engine {engine}, "
        f"compose {compose}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def environment(**extra: str) -> dict[str, str]:
    """Return an environment without the caller's settings; this checkout's package is found first."""
    settings = ("COMPOSE_", "INVOKE_", "STACKHAND_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    return kept | {"PYTHONPATH": str(CHECKOUT / "tasks")} | extra


def measure(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], *, memory: bool = False, quiet: bool = True
) -> Done:
    """Run a process to its end and return how long it took.

    With `memory`, its memory and that of its children is watched. With `quiet` the machine gets a while to
    become idle first. Output goes to files, which block nobody.
    """
    if quiet:
        _wait_until_idle()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        watch = _MemoryWatch(process.pid) if memory else None
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise InvalidRunError(f"`{shlex.join(argv)}` still ran after {LIMIT} s") from None
        finally:
            if process.poll() is None:  # a time limit, or Ctrl-C
                process.terminate()
                process.wait(30)
        seconds = time.monotonic() - began
        peaks = watch.stop() if watch else StartHistory()
        out.seek(0)
        err.seek(0)
        return Done(seconds, code, out.read(), err.read(), peaks)


class Project:
    """A Compose project that exists for one comparison."""

    def __init__(self, folder: Path, name: str, options: Options, **extra: str) -> None:
        self.folder, self.name = folder, name
        self._options = options
        self.env = environment(COMPOSE_PROJECT_NAME=name, **extra)
        # The engine that docker and stackhand use, too.
        chosen = docker.utils.kwargs_from_env()
        self.client = docker.APIClient(version="auto", timeout=120, num_pools=64, **chosen)

    def compose(self, *words: str) -> str:
        """Run docker compose, not measured; raises InvalidRunError with its last words when it fails."""
        argv = ["docker", "compose", *words]
        done = subprocess.run(argv, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InvalidRunError(f"`{shlex.join(argv)}` failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def compose_up(self, *, memory: bool = False) -> Done:
        """Measure `docker compose up -d --wait`."""
        done = measure(["docker", "compose", "up", "-d", "--wait"], self.folder, self.env, memory=memory)
        if done.code:
            raise InvalidRunError(f"`docker compose up -d --wait` failed: {done.stderr.strip()[-500:]}")
        say(f"  docker compose up -d --wait: {done.seconds:.2f} s")
        return done

    def services_start(self, *flags: str, memory: bool = False) -> tuple[Done, dict[str, Any]]:
        """Measure `services.start`, the whole process; return its JSON document as well."""
        argv = [*self._options.stackhand, "services.start", "--json", *flags]
        done = measure(argv, self.folder, self.env, memory=memory)
        try:
            document = json.loads(done.stdout)
        except ValueError:
            raise InvalidRunError(f"`{shlex.join(argv)}` printed no JSON: {done.stderr.strip()[-500:]}") from None
        if done.code or not document["ok"]:
            failed = [service for service in document["services"] if service["error"]]
            raise InvalidRunError(f"`{shlex.join(argv)}` ended with {done.code}: {failed or document}")
        say(f"  services.start: {done.seconds:.2f} s")
        return done, document

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine knows of each service's container."""
        found = self.client.containers(all=True, filters={"label": f"{PROJECT_LABEL}={self.name}"})
        details = [self.client.inspect_container(each["Id"]) for each in found]
        return {each["Config"]["Labels"][SERVICE_LABEL]: each for each in details}

    def identities(self) -> dict[str, tuple[str, str]]:
        """Return id and time of start of each container: what a start with nothing to do leaves alone."""
        return {name: (each["Id"], each["State"]["StartedAt"]) for name, each in self.containers().items()}

    def require_ready(self) -> None:
        """Run every healthcheck now; raises InvalidRunError where one fails or a container ended badly."""
        for name, each in self.containers().items():
            state = each["State"]
            test = (each["Config"].get("Healthcheck") or {}).get("Test") or []
            if not state["Running"]:
                if state["ExitCode"] or test:
                    raise InvalidRunError(f"{name} is {state['Status']} with exit code {state['ExitCode']}")
            elif test and self.probe(each["Id"], test):
                raise InvalidRunError(f"{name} was said to be ready, and its healthcheck fails")

    def probe(self, container: str, test: Sequence[str]) -> int:
        """Run a healthcheck through exec and return its exit code."""
        command = ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else list(test[1:])
        execution = self.client.exec_create(container, command)["Id"]
        self.client.exec_start(execution)
        return int(self.client.exec_inspect(execution)["ExitCode"])

    def require_order(self, services: Sequence[Service]) -> None:
        """Raise InvalidRunError where a service was started before one it waits for can have been ready."""
        started = {name: _when(each["State"]["StartedAt"]) for name, each in self.containers().items()}
        for service in services:
            for earlier in service.depends_on:
                took = next(other.ready_after for other in services if other.name == earlier)
                if started[service.name] < started[earlier] + took:
                    raise InvalidRunError(f"{service.name} was started before {earlier} was ready")

    def start_at_once(self) -> float:
        """Measure the engine's own limit: create, then start all containers at once, waiting for nothing."""
        _wait_until_idle()
        began = time.monotonic()
        self.compose("create")
        found = self.client.containers(all=True, filters={"label": f"{PROJECT_LABEL}={self.name}"})
        with ThreadPoolExecutor(len(found)) as pool:
            list(pool.map(self.client.start, [each["Id"] for each in found]))
        seconds = time.monotonic() - began
        say(f"  create, and all started at once: {seconds:.2f} s")
        return seconds

    def ready_alone(self, service: str) -> float:
        """Return how long a stopped service takes, started by the engine with nothing else going on.

        From the call that starts it until its healthcheck, run again and again without a pause, succeeds.
        """
        container = self.containers()[service]
        test = container["Config"]["Healthcheck"]["Test"]
        began = time.monotonic()
        self.client.start(container["Id"])
        while self.probe(container["Id"], test):
            if time.monotonic() - began > 60:
                raise InvalidRunError(f"{service} alone is not ready after 60 s")
        return time.monotonic() - began

    def remove(self, *, volumes: bool = True) -> None:
        """Remove what the engine has of this project."""
        words = ("down", "--timeout", "0", "--remove-orphans", *(["--volumes"] if volumes else []))
        try:
            self.compose(*words)
        except InvalidRunError:
            self.compose(*words)  # an engine that just removed many containers may still take their network for used
        # Compose only warns of a network that the engine still takes for used.
        for network in self.client.networks(filters={"label": f"{PROJECT_LABEL}={self.name}"}):
            say(f"  warning: the engine has kept the network {network['Name']}, remove it: docker network rm")


@contextlib.contextmanager
def project(options: Options, graph: str, services: Sequence[Service]) -> Iterator[Project]:
    """Write a compose file for these services into a new folder; afterwards all is removed."""
    name = unique(graph)
    with project_of(options, compose_file(name, services, IMAGE)) as made:
        yield made


@contextlib.contextmanager
def project_of(options: Options, document: Mapping[str, Any]) -> Iterator[Project]:
    """Write a compose file into a new folder; afterwards all that was made of it is removed."""
    build_image()
    with folder() as path:
        (path / "tasks.py").write_text(TASKS)
        (path / "compose.yaml").write_text(json.dumps(document, indent=1))
        with cleaned_up(Project(path, document["name"], options)) as made:
            yield made


@contextlib.contextmanager
def cleaned_up(made: Project) -> Iterator[Project]:
    """Remove the project at the end, also after Ctrl-C or SIGTERM, which then have to wait for it."""
    try:
        yield made
    except BaseException:
        with contextlib.suppress(InvalidRunError):  # what went wrong first is what to tell
            _clean_up(made)
        raise
    _clean_up(made)


def _clean_up(made: Project) -> None:
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        made.remove()
    finally:
        made.client.close()
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for the time of a comparison."""
    with tempfile.TemporaryDirectory(prefix="stackhand-bench-") as path:
        yield Path(path)


def unique(name: str) -> str:
    """Return a project name that nobody else has."""
    return f"bench-{name}-{secrets.token_hex(3)}"


def build_image() -> None:
    """Build the image that all made-up services use: a static busybox, which starts in 0.3 s."""
    if _output("docker", "images", "--quiet", IMAGE):
        return
    busybox = shutil.which("busybox")
    # ldd fails on a static program.
    if not busybox or subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0:
        raise InvalidRunError("a static busybox is needed for the image: install the package busybox-static")
    with folder() as path:
        shutil.copy(busybox, path / "busybox")
        (path / "Dockerfile").write_text(_DOCKERFILE)
        subprocess.run(["docker", "build", "--quiet", "--tag", IMAGE, path], check=True, capture_output=True)


class _MemoryWatch:
    """Looks at a process and its children every 50 ms."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._peaks = StartHistory()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> StartHistory:
        """Stop looking and return the peaks."""
        self._over.set()
        self._thread.join()
        return self._peaks

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            with contextlib.suppress(psutil.Error):
                children = self._process.children(recursive=True)
                own = _peak_resident(self._process.pid)
                largest = max((_peak_resident(child.pid) for child in children), default=0.0)
                family = sum(_proportional(process.pid) for process in (self._process, *children))
                self._peaks = StartHistory(
                    max(self._peaks.process, own),
                    max(self._peaks.largest_child, largest),
                    max(self._peaks.family, family),
                )


def _peak_resident(pid: int) -> float:
    return _from_proc(pid, "status", "VmHWM:")


def _proportional(pid: int) -> float:
    return _from_proc(pid, "smaps_rollup", "Pss:")


def _from_proc(pid: int, file: str, key: str) -> float:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    return 0.0


def _wait_until_idle(patience: float = 20.0) -> None:
    """Wait until the machine has little else to do, or tell that it has."""
    until = time.monotonic() + patience
    busy = psutil.cpu_percent(1.0) / 100
    while busy > NOISY and time.monotonic() < until:
        busy = psutil.cpu_percent(1.0) / 100
    if busy > NOISY:
        _warnings.append(f"before one run something else kept {busy:.0%} of the cores busy: its time says little")
        say(f"  warning: {_warnings[-1]}")


def _when(timestamp: str) -> float:
    # The engine writes nanoseconds, which fromisoformat does not read.
    seconds, _, fraction = timestamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}")


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
