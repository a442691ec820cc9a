"""Runs programs inside containers, each for a limited time, and reads what they say."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackhand.engine.api.sdk import errors

# A shell's exit code for a program that is not there. Engines before 23.0 say 126 of one that was to be run by itself.
NOT_FOUND = (127, 126)
_EXIT_CODE_TIMEOUT = 0.5
# What is left to the parts of a program that is ended.
_FAREWELL = 1.0


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
class ExecResult:
    """What a program said that was run inside a container; `exit_code` is None when it took too long."""

    exit_code: int | None
    stdout: str
    stderr: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.exit_code == 0

    @property
    def not_found(self) -> bool:
        """Whether there is no such program in the container."""
        return self.exit_code in NOT_FOUND

    @property
    def last_error(self) -> str:
        """The last line of its errors, else of its output; or that it did not end in time."""
        if self.exit_code is None:
            return f"no answer within {self.seconds:.0f} s"
        return ((self.stderr or self.stdout).strip().splitlines() or [f"exit code {self.exit_code}"])[-1]

    # The former names.
    missing = not_found
    complaint = last_error


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
    """Return exit code (None: not in time), stdout and stderr (all in one without `demux`), and seconds.

    Of each stream `limit` bytes are kept. Raises EngineUnreachable, ContainerGone.
    """
    began = time.monotonic()
    with errors():
        made = api.exec_create(container, list(argv), environment=dict(environment or {}), user=user)
        sock = api.exec_start(made["Id"], socket=True)
        streams, in_time = _read_output(sock, timeout, limit, demux=demux)
        state = _ended(api, made["Id"]) if in_time else api.exec_inspect(made["Id"])
    seconds = time.monotonic() - began
    if not in_time:
        _end_process(state.get("Pid"), container)
    code = None if not in_time or state.get("ExitCode") is None else int(state["ExitCode"])
    return code, streams, seconds


def _ended(api: Any, execution: str) -> Mapping[str, Any]:
    """Return an exec's state once it has its exit code, which comes a moment after its output has ended."""
    deadline = time.monotonic() + _EXIT_CODE_TIMEOUT
    while True:
        state: Mapping[str, Any] = api.exec_inspect(execution)
        if state.get("ExitCode") is not None or time.monotonic() > deadline:
            return state
        time.sleep(0.01)


def _read_output(sock: Any, timeout: float, limit: int, *, demux: bool) -> tuple[tuple[str, str], bool]:
    """Return what an exec prints on stdout and stderr, at most `limit` bytes of each, and whether it ended in time."""
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
    """End a program that took too long; the engine offers no way to do it.

    The process id is one of the engine's machine. Only where it is a process of that container here, too, is it the
    same one: a remote engine's number may belong to anything on this machine.

    Its children go first, and it is left time to notice: an orphan falls to the container's first process, and a
    Postgres there takes the death of a child that it does not know for a crash (postmaster.c, CleanupBackend).
    """
    from pathlib import Path

    import psutil

    with contextlib.suppress(OSError, psutil.Error):
        if not pid or container not in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
            return
        program = psutil.Process(pid)
        deadline = time.monotonic() + _FAREWELL
        while children := _leaves(program):
            for child in children:
                child.kill()
            # A shell goes on with its next command, which then is its child; not for ever.
            psutil.wait_procs(children, timeout=0.1)
            if time.monotonic() > deadline:
                break
        psutil.wait_procs([program], timeout=0.2)
        program.kill()


def _leaves(program: Any) -> list[Any]:
    """Return the processes below a program that have no children of their own."""
    below = program.children(recursive=True)
    parents = {each.ppid() for each in below}
    return [each for each in below if each.pid not in parents and each.status() != "zombie"]
