"""Runs other programs. Other modules build the argv; this one starts the processes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stackhand.errors import CommandFailed, Interrupted

_KEPT_LINES = 400
_KILL_AFTER = 1.0


@dataclass(frozen=True)
class Completed:
    """A program that has ended: its exit code and output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Programs:
    """Starts programs, and can end all running ones at once.

    Each program gets its own process group, so that Ctrl-C in the terminal reaches only us, and we decide when the
    programs end.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[Any]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        merge: bool = False,
    ) -> Completed:
        """Run a program until it ends.

        `on_line` gets each line of stderr as it comes; with `merge`, those of stdout, too. Raises CommandFailed if the
        program cannot be started or, unless `check` is off, exits with another code than 0; Interrupted after `stop()`.
        """
        try:
            process = self._start(argv, cwd, env, merge)
        except OSError as error:
            raise CommandFailed(argv, 127, f"{argv[0]}: {error.strerror or error}") from error
        stderr: deque[str] = deque(maxlen=_KEPT_LINES)
        stream = process.stdout if merge else process.stderr
        reader = threading.Thread(target=_read_lines, args=(stream, stderr, on_line), daemon=True)
        reader.start()
        try:
            stdout = process.stdout.read() if process.stdout and not merge else ""
            process.wait()
            reader.join()
        finally:
            if process.poll() is None:
                _end(process)
            reader.join(_KILL_AFTER)
            with self._lock:
                self._running.discard(process)
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        if self._stopped:
            raise Interrupted("interrupted")
        done = Completed(tuple(argv), process.returncode, stdout, "\n".join(stderr))
        if check and done.returncode != 0:
            raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
        return done

    def read(
        self, argv: Sequence[str], *, env: Mapping[str, str], within: float, owner: tuple[int, int] | None = None
    ) -> tuple[bytes, str]:
        """Run a program for at most `within` seconds; return its stdout as bytes, and its stderr as text.

        With `owner`, a user id and a group id, it runs as that user; only root can do that. Raises CommandFailed if it
        fails, cannot be started or takes too long; Interrupted after `stop()`.
        """
        uid, gid = owner or (None, None)
        with self._lock:
            if self._stopped:
                raise Interrupted("interrupted")
            try:
                process = subprocess.Popen(
                    list(argv),
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    user=uid,
                    group=gid,
                    extra_groups=[] if owner else None,
                )
            except OSError as error:
                raise CommandFailed(argv, 127, f"{argv[0]}: {error.strerror or error}") from error
            self._running.add(process)
        try:
            stdout, stderr = process.communicate(timeout=within)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(argv, 124, f"no answer within {within:g} s") from error
        finally:
            if process.poll() is None:
                _end(process)
                process.communicate()
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise Interrupted("interrupted")
        messages = stderr.decode("utf-8", "replace")
        if process.returncode:
            raise CommandFailed(argv, process.returncode, messages)
        return stdout, messages

    def detach(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> int:
        """Start a program that outlives this one, and return its process id. Its output is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )
        # We do not wait for it, and Python would warn about that. A return code prevents the warning.
        process.returncode = 0
        return process.pid

    def stop(self) -> None:
        """End all running programs, and start no more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        _end(*running)

    def _start(
        self,
        argv: Sequence[str],
        cwd: Path | None,
        env: Mapping[str, str] | None,
        merge: bool,
    ) -> subprocess.Popen[str]:
        """Start a program with its output in pipes. Raises Interrupted after `stop()`, and OSError."""
        with self._lock:
            if self._stopped:
                raise Interrupted("interrupted")
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                # With `merge`, both streams come through stdout's pipe, because one thread reads one pipe.
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            for pipe in (process.stdout, process.stderr):
                if isinstance(pipe, io.TextIOWrapper):
                    # Only a line feed ends a line: with a carriage return, a log line would pass for several.
                    pipe.reconfigure(newline="\n")
            self._running.add(process)
            return process


def _read_lines(stream: IO[str], kept: deque[str], on_line: Callable[[str], None] | None) -> None:
    try:
        for line in stream:
            text = line.rstrip("\n")
            kept.append(text)
            if on_line:
                on_line(text)
    except ValueError:
        pass  # closed while reading: we ended the program


def _end(*processes: subprocess.Popen[Any]) -> None:
    """End programs and their children: SIGTERM to all at once, SIGKILL a second later."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal_number)
        deadline = time.monotonic() + _KILL_AFTER
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
