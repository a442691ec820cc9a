"""Runs stackhand in a copy of a process that has its modules loaded already, which saves 0.4 s of imports a run.

A copy (`fork`) has a pid, signals, an environment, a working folder and an end of its own, as a program that was
started has. What `/proc` says of its command line and environment is the original's, so runs that are looked at from
outside are real programs: see `Runner.start_inv`.

As a program (`python warm.py FD`) this is the process that is copied: it reads requests from a socket, one at a time.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What every run loads sooner or later.
_MODULES = (
    "stackhand.cli.program", "stackhand.cli.namespace", "docker", "rich.live", "rich.table",
    "stackhand.kinds.registry", "stackhand.services.start.run",
)  # fmt: skip


class Warm:
    """The client's side: one process that is copied, started when it is first used."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._socket = ours
        self._file = ours.makefile("r")

    def run(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], out: Path, err: Path, timeout: float
    ) -> int | None:
        """Run tasks to their end, their output into files; return the exit code, None where they take too long."""
        request = {"words": [*words], "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
        with self._lock:
            self._socket.sendall((json.dumps(request) + "\n").encode())
            pid = int(self._file.readline())
            timer = threading.Timer(timeout, os.killpg, (pid, 9))
            timer.start()
            code = int(self._file.readline())
            if timer.finished.is_set():
                return None
            timer.cancel()
            return code

    def close(self) -> None:
        """End the process that is copied."""
        self._process.kill()
        self._process.wait()
        self._file.close()
        self._socket.close()


def _serve(number: int) -> dict[str, Any] | None:
    """Copy this process for every request; return the request in the copy, and None at the end in the original."""
    with socket.socket(fileno=number) as connection, connection.makefile("r") as requests:
        for line in requests:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                request: dict[str, Any] = json.loads(line)
                return request
            connection.sendall(f"{pid}\n".encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            connection.sendall(f"{code}\n".encode())
    return None


def _become(request: dict[str, Any]) -> None:
    """Be what `python -m stackhand WORDS` is, or the program `stackhand` where the folder has no tasks of its own."""
    for name, target in ((request["out"], 1), (request["err"], 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = ""
    program, *words = request["words"]
    sys.argv = [program, *words]
    if program == "-m":
        runpy.run_module("stackhand", run_name="__main__", alter_sys=True)
    else:
        from stackhand.cli.program import main

        main()


if __name__ == "__main__":
    for module in _MODULES:
        __import__(module)
    gc.freeze()
    asked = _serve(int(sys.argv[1]))
    if asked:
        _become(asked)
