"""Runs programs inside containers, each with a time limit, and reads their output."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackhand.engine.api.sdk import errors

# A shell's exit code for a program that is not there; engines before 23.0 say 126 where no shell was asked.
NOT_FOUND = (127, 126)
# Seconds: for the exit code after the output has ended, and for the children of a program that is killed.
_EXIT_CODE_TIMEOUT = 0.5
_KILL_TIMEOUT = 1.0


@dataclass(frozen=True)
class Probe:
    """One run of a healthcheck: exit code (None after a time-out), output, seconds."""

    exit_code: int | None
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the healthcheck succeeded."""
        return self.exit_code == 0


@dataclass(frozen=True)
class ExecResult:
    """The result of a program that ran inside a container; `exit_code` is None after a time-out."""

    exit_code: int | None
    stdout: str
    stderr: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0

    @property
    def not_found(self) -> bool:
        """Whether the container has no such program, or may not execute it."""
        return self.exit_code in NOT_FOUND

    @property
    def last_error(self) -> str:
        """Why it failed, in one line: the last one of its output, its exit code, or that it took too long."""
        if self.exit_code is None:
            return f"no answer within {self.seconds:.0f} s"
        return ((self.stderr or self.stdout).strip().splitlines() or [f"exit code {self.exit_code}"])[-1]


def execute(
    api: Any,
    container: str,
    argv: Sequence[str],
    timeout: float,
    limit: int,
    *,
    demux: bool,
    environment: Mapping[str, str] | None = None,
    user: str = "",
) -> tuple[int | None, tuple[str, str], float]:
    """Run a program; return its exit code (None after a time-out), its output, and the seconds it took.

    The output is a pair, stdout and stderr; without `demux` all is in the first. `limit` bytes of each are kept.
    Raises EngineUnreachable, ContainerGone.
    """
    began = time.monotonic()
    with errors():
        execution = api.exec_create(container, list(argv), environment=dict(environment or {}), user=user)
        sock = api.exec_start(execution["Id"], socket=True)
        streams, in_time = _read_output(sock, timeout, limit, demux=demux)
        state = _ended(api, execution["Id"]) if in_time else api.exec_inspect(execution["Id"])
    seconds = time.monotonic() - began
    if not in_time:
        _end_process(state.get("Pid"), container)
    code = None if not in_time or state.get("ExitCode") is None else int(state["ExitCode"])
    return code, streams, seconds


def _ended(api: Any, execution: str) -> Mapping[str, Any]:
    """Return an exec's state once it has an exit code, which it gets a little after its output has ended."""
    deadline = time.monotonic() + _EXIT_CODE_TIMEOUT
    while True:
        state: Mapping[str, Any] = api.exec_inspect(execution)
        if state.get("ExitCode") is not None or time.monotonic() > deadline:
            return state
        time.sleep(0.01)


def _read_output(sock: Any, timeout: float, limit: int, *, demux: bool) -> tuple[tuple[str, str], bool]:
    """Return the stdout and stderr of an exec, at most `limit` bytes of each, and whether it ended in time."""
    from docker.utils.socket import STDERR, frames_iter

    late = threading.Event()

    def give_up() -> None:
        late.set()
        _shut(sock)

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    output = [bytearray(), bytearray()]
    try:
        for stream, data in frames_iter(sock, tty=False):  # type: ignore[no-untyped-call]
            kept = output[1 if demux and stream == STDERR else 0]
            kept += data[: max(0, limit - len(kept))]
    except (OSError, ValueError):
        pass  # shut down while reading
    finally:
        timer.cancel()
        _shut(sock)
    stdout, stderr = (each.decode("utf-8", "replace") for each in output)
    return (stdout, stderr), not late.is_set()


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
    """Kill a program that took too long. The engine has no call for that: https://github.com/moby/moby/issues/35703.

    `pid` is a process of the engine's machine. If that is another machine, the same number may be any process here; so
    only a process in the control group of that container is killed.

    Children are killed first, and the program gets time to notice. An orphan becomes a child of the container's first
    process, and if that is Postgres, it takes the death of an unknown child for a crash and ends all sessions
    (CleanupBackend in https://github.com/postgres/postgres/blob/master/src/backend/postmaster/postmaster.c).
    """
    from pathlib import Path

    import psutil

    with contextlib.suppress(OSError, psutil.Error):
        if not pid or container not in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
            return
        program = psutil.Process(pid)
        deadline = time.monotonic() + _KILL_TIMEOUT
        while children := _leaves(program):
            for child in children:
                child.kill()
            # A shell goes on with its next command, which is a new child. That ends with the deadline.
            psutil.wait_procs(children, timeout=0.1)
            if time.monotonic() > deadline:
                break
        psutil.wait_procs([program], timeout=0.2)
        program.kill()


def _leaves(program: Any) -> list[Any]:
    """Return the processes below a program that have no children of their own."""
    descendants = program.children(recursive=True)
    parents = {process.ppid() for process in descendants}
    return [process for process in descendants if process.pid not in parents and process.status() != "zombie"]
