"""Runs the command line in this process, with a simulated world in the place of Docker and of the clock."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

from sim.world import World

_ENTRIES = ("stackhand.engine.compose.cli.Compose", "stackhand.engine.compose.loader.Compose")


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.stdout)


def run(world: World, *argv: str, graph: bool = True, env: Mapping[str, str] | None = None) -> Result:
    """Run `stackhand ARGV…` in the world's folder; with `graph` by our own executor, else by Invoke's."""
    from invoke.executor import Executor

    from stackhand.cli.namespace import ns
    from stackhand.cli.program import StackProgram
    from stackhand.graph.executor import GraphExecutor

    out, err = io.StringIO(), io.StringIO()
    code = 0
    program = StackProgram(
        name="stackhand", binary="stackhand", namespace=ns, executor_class=GraphExecutor if graph else Executor
    )
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with _simulated(world, env or {}), streams[0], streams[1], _argv(["stackhand", *argv]), _atexit():
        try:
            program.run(["stackhand", *argv])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Result(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _simulated(world: World, env: Mapping[str, str]) -> Iterator[None]:
    def stop(programs: object) -> None:
        world.stopped = True

    world.stopped = False
    with contextlib.ExitStack() as stack:
        for entry in _ENTRIES:
            module, name = entry.rsplit(".", 1)
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
                stack.enter_context(mock.patch(entry, lambda *args: world.compose, create=name == "Compose"))
        stack.enter_context(mock.patch("stackhand.engine.api.client.Engine", lambda environ: world.engine))
        stack.enter_context(mock.patch("stackhand.engine.host.programs.Programs.stop", stop))
        stack.enter_context(mock.patch("stackhand.graph.clock.SYSTEM", world.clock))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "INVOKE_"))}
        stack.enter_context(mock.patch.dict(os.environ, {**kept, **env}, clear=True))
        stack.enter_context(contextlib.chdir(world.folder) if sys.version_info >= (3, 11) else _chdir(world))
        stack.enter_context(_fresh_tasks())
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _chdir(world: World) -> Iterator[None]:
    before = os.getcwd()  # noqa: PTH109
    os.chdir(world.folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _fresh_tasks() -> Iterator[None]:
    """Have the tasks of services read again: they are read once for each process."""
    from stackhand.cli import service_tasks
    from stackhand.cli.namespace import ns

    def forget() -> None:
        service_tasks._catalogue = None
        ns.collections["up"]._loaded = None

    forget()
    try:
        yield
    finally:
        forget()


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    with mock.patch.object(sys, "argv", argv):
        yield


@contextlib.contextmanager
def _atexit() -> Iterator[None]:
    """Call at the end what a process calls at its end."""
    ends: list[Callable[[], object]] = []
    with mock.patch.object(atexit, "register", ends.append):
        try:
            yield
        finally:
            for end in reversed(ends):
                end()
