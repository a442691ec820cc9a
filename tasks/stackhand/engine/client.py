"""The engine over its API: inspect, probe, read logs, listen. Every answer is a snapshot or a plain value."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stackhand.engine import facts
from stackhand.engine import project as model
from stackhand.engine.complaints import engine_error
from stackhand.errors import EngineUnreachable, StackError

# The engine itself keeps this much of a probe's output.
_PROBE_OUTPUT = 4096
_EXIT_CODE_PATIENCE = 0.5
# Without a filter, every probe of every container would come as three events.
_EVENTS = ("start", "die", "oom", "health_status", "destroy", "stop", "kill", "restart")


class ContainerGone(StackError):
    """A container was removed while it was looked at."""


@dataclass(frozen=True)
class Probe:
    """One run of a healthcheck: exit code (None when it took too long), output, seconds."""

    exit_code: int | None
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the healthcheck was content."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Event:
    """One container event. `action` is without the detail that may follow a colon."""

    container: str
    service: str
    action: str


class Engine:
    """One engine, at the endpoint that the docker CLI would use.

    Every method raises EngineUnreachable when the engine does not answer, and ContainerGone when the container
    it is about no longer exists.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._connecting = threading.Lock()
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The SDK's low-level client, connected once. Raises EngineUnreachable, SocketPermission."""
        from stackhand.engine import endpoint

        with self._connecting:
            if self._api is None:
                self._api = endpoint.connect(endpoint.resolve(self._environ), self._environ)
            return self._api

    def answers(self) -> bool:
        """Return whether the engine answers now."""
        try:
            with _errors():
                return bool(self.api.ping())
        except StackError:
            return False

    def containers(self, project: str, service: str | None = None, *, brief: bool = False) -> list[facts.Container]:
        """Return the containers of a Compose project, or of one service; those of `compose run` are left out.

        With `brief`, of those that run only what the list of containers has (`facts.parse_listed`): one call for all.
        """
        labels = [f"{model.PROJECT_LABEL}={project}", f"{model.ONEOFF_LABEL}=False"]
        if service:
            labels.append(f"{model.SERVICE_LABEL}={service}")
        with _errors():
            listed = self.api.containers(all=True, filters={"label": labels})
        found = []
        for entry in listed:
            with contextlib.suppress(ContainerGone):
                listed_only = facts.parse_listed(entry) if brief else None
                found.append(listed_only or self.inspect(entry["Id"]))
        return sorted(found, key=lambda container: (container.service, container.number))

    def inspect(self, container: str) -> facts.Container:
        """Return a snapshot of one container."""
        with _errors():
            return facts.parse(self.api.inspect_container(container))

    def image_id(self, name: str) -> str | None:
        """Return the id of a local image, or None."""
        from docker.errors import ImageNotFound, NotFound

        try:
            with _errors(keep=NotFound):
                return str(self.api.inspect_image(name)["Id"])
        except (ImageNotFound, NotFound):
            return None

    def logs(self, container: str, lines: int, since: datetime | None = None) -> list[str]:
        """Return a container's last log lines since a moment; none when its logging driver can't be read."""
        try:
            with _errors():
                raw: bytes = self.api.logs(container, tail=lines, since=since.timestamp() if since else None)
        except EngineUnreachable:
            raise
        except StackError:
            return []
        return raw.decode("utf-8", "replace").splitlines()[-lines:]

    def probe(self, container: str, argv: Sequence[str], timeout: float) -> Probe:
        """Run a healthcheck's command inside a container, as the engine would, for `timeout` seconds at most."""
        began = time.monotonic()
        with _errors():
            execution = self.api.exec_create(container, list(argv))["Id"]
            sock = self.api.exec_start(execution, socket=True)
            output, in_time = _read_output(sock, timeout)
            state = self._ended(execution) if in_time else self.api.exec_inspect(execution)
        seconds = time.monotonic() - began
        if not in_time:
            _end_process(state.get("Pid"), container)
        code = None if not in_time or state.get("ExitCode") is None else int(state["ExitCode"])
        return Probe(code, output, seconds)

    def _ended(self, execution: str) -> Mapping[str, Any]:
        """Return an exec's state once it has its exit code, which comes a moment after its output has ended."""
        deadline = time.monotonic() + _EXIT_CODE_PATIENCE
        while True:
            state: Mapping[str, Any] = self.api.exec_inspect(execution)
            if state.get("ExitCode") is not None or time.monotonic() > deadline:
                return state
            time.sleep(0.01)

    def start(self, container: str) -> None:
        """Start a container. That is all of a start only where Compose adds nothing (`Project.starts_plainly`)."""
        with _errors():
            self.api.start(container)

    def connect(self, container: str, network: str, options: Mapping[str, Any], aliases: Sequence[str]) -> None:
        """Attach a container to a network under these names; `options` is the service's entry for that network."""
        with _errors():
            self.api.connect_container_to_network(
                container,
                network,
                aliases=list(aliases),
                ipv4_address=options.get("ipv4_address"),
                ipv6_address=options.get("ipv6_address"),
            )

    def holder_of_port(self, port: int) -> str | None:
        """Return the name of the running container that publishes a port, or None."""
        with _errors():
            for entry in self.api.containers():
                if any(published.get("PublicPort") == port for published in entry.get("Ports") or ()):
                    return str(entry["Names"][0]).lstrip("/")
        return None

    def listen(self, project: str, handle: Callable[[Event], None], lost: Callable[[], None]) -> Listener:
        """Call `handle` with every container event of a project from now on, and `lost` when events were missed.

        Both are called from a thread of the listener's own, and must return at once.
        """
        return Listener(self, project, handle, lost)


class Listener:
    """Reads the engine's events until closed; connects again when the engine was away."""

    def __init__(self, engine: Engine, project: str, handle: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self._engine = engine
        self._project = project
        self._handle = handle
        self._lost = lost
        self._closed = threading.Event()
        self._stream: Any = None
        self._stream = self._open()
        threading.Thread(target=self._read, name="events", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        with contextlib.suppress(Exception):
            self._stream.close()

    def _open(self) -> Any:
        with _errors():
            return self._engine.api.events(
                decode=True,
                filters={
                    "type": "container",
                    "event": list(_EVENTS),
                    "label": f"{model.PROJECT_LABEL}={self._project}",
                },
            )

    def _read(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(Exception):
                for raw in self._stream:
                    self._handle(_event(raw))
            # The stream ended: the engine went away, or the connection did. What came meanwhile is lost.
            while not self._closed.wait(0.25):
                try:
                    self._stream = self._open()
                except StackError:
                    continue
                self._lost()
                break


def _event(raw: Mapping[str, Any]) -> Event:
    actor = raw.get("Actor") or {}
    service = (actor.get("Attributes") or {}).get(model.SERVICE_LABEL, "")
    return Event(actor.get("ID", ""), service, str(raw.get("Action", "")).partition(":")[0])


def _read_output(sock: Any, timeout: float) -> tuple[str, bool]:
    """Return what an exec prints, and whether it ended in time."""
    from docker.utils.socket import frames_iter

    late = threading.Event()

    def give_up() -> None:
        late.set()
        _shut(sock)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    output = b""
    try:
        for _, data in frames_iter(sock, tty=False):  # type: ignore[no-untyped-call]
            output += data[: max(0, _PROBE_OUTPUT - len(output))]
    except (OSError, ValueError):
        pass  # shut down while reading
    finally:
        timer.cancel()
        _shut(sock)
    return output.decode("utf-8", "replace").strip(), not late.is_set()


def _shut(sock: Any) -> None:
    import socket

    raw = getattr(sock, "_sock", sock)
    with contextlib.suppress(Exception):
        raw.shutdown(socket.SHUT_RDWR)
    parts: tuple[Any, ...] = (sock, getattr(sock, "_response", None), raw)
    for part in parts:
        with contextlib.suppress(Exception):
            part.close()


def _end_process(pid: int | None, container: str) -> None:
    """End a probe that took too long; the engine offers no way to do it.

    The process id is one of the engine's machine. Only where it is a process of that container here, too, is it the
    same one: a remote engine's number may belong to anything on this machine.
    """
    import os
    import signal
    from pathlib import Path

    with contextlib.suppress(OSError):
        if pid and container in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _errors(keep: type[Exception] | None = None) -> Iterator[None]:
    """Turn the SDK's exceptions into ours; `keep` passes as it is."""
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    try:
        yield
    except docker.errors.NotFound as error:
        if keep and isinstance(error, keep):
            raise
        raise ContainerGone(str(error.explanation or error)) from error
    except docker.errors.APIError as error:
        text = str(error.explanation or error)
        if "is not running" in text or "cannot exec in a stopped" in text:
            raise ContainerGone(text) from error
        raise engine_error(text) or StackError(f"the engine refused: {text}") from error
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        docker.errors.DockerException,
        OSError,
    ) as error:
        raise EngineUnreachable(f"the engine does not answer: {_short(error)}", "see `inv engine.check`") from error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
