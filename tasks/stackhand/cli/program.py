"""The programs `stackhand`, with its own tasks, and `python -m stackhand`, which is `inv`."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from stackhand.cli.fast_import import without_mock

with without_mock():
    from invoke.collection import Collection
    from invoke.config import AmbiguousMergeError
    from invoke.exceptions import CollectionNotFound, Exit, ParseError, UnknownFileType, UnpicklableConfigMember
    from invoke.program import Program
    from invoke.vendor import yaml

from stackhand.cli.misspelt import explain, refuse
from stackhand.errors import ConfigError, Interrupted


class StackProgram(Program):
    """Invoke's program, with the contract's exit codes.

    With a namespace of its own Invoke reads no project settings; here the nearest `invoke.yaml` counts, as for `inv`.
    """

    def parse_core(self, argv: list[str] | None) -> None:
        """Read Invoke's own flags."""
        with self._parse_errors_explained():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        """Read the tasks and their flags."""
        with self._parse_errors_explained():
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        """List tasks, show help: whatever ends the run before its tasks."""
        with self._parse_errors_explained():
            super().parse_cleanup()

    @contextlib.contextmanager
    def _parse_errors_explained(self) -> Iterator[None]:
        """Make exit code 2 of what the command line gets wrong, with the nearest task or flag."""
        try:
            yield
        except ParseError as error:
            raise refuse(explain(error, getattr(self, "collection", Collection()))) from error

    def parse_collection(self) -> None:
        """Load the tasks, and the settings of the project that we are in."""
        super().parse_collection()
        if self.namespace is not None:
            self._load_settings()

    def load_collection(self) -> None:
        """Load the nearest `tasks.py`; where there is none, stackhand's own tasks serve."""
        try:
            super().load_collection()
        except Exit as missing:
            if not isinstance(missing.__context__, CollectionNotFound):
                raise
            from stackhand.cli.namespace import ns

            self.collection = ns
            self._load_settings()

    def print_version(self) -> None:
        """Print it; looking it up would cost every other call 30 ms."""
        self.version = _version()
        super().print_version()

    def _load_settings(self) -> None:
        folder = _settings_folder(Path.cwd())
        if folder:
            self.config.set_project_location(str(folder))
            self.config.load_project()

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Run; what a configuration file gets wrong is exit code 2, and an interrupt before any task is 130."""
        try:
            super().run(argv, exit)
        except (AmbiguousMergeError, UnknownFileType, UnpicklableConfigMember, yaml.YAMLError) as error:
            place = " ".join(str(error).split())
            wrong = ConfigError(f"a configuration file is not valid: {place}", "look at invoke.yaml and ~/.invoke.yaml")
            raise SystemExit(refuse(wrong).code) from None
        except BrokenPipeError:
            # `inv -l | head`: the reader has seen enough. Nothing may be written any more, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except SystemExit as ended:
            # It passes through Program.run as the exception that SystemExit comes from.
            if isinstance(ended.__context__, KeyboardInterrupt):
                raise SystemExit(130) from None
            raise


def main() -> None:
    """Run the console script `stackhand`: stackhand's tasks, wherever it is called."""
    from stackhand.cli.namespace import ns
    from stackhand.graph import GraphExecutor

    # Needs no invoke.yaml to run side by side; one that names an executor still decides.
    _run(StackProgram(name="stackhand", binary="stackhand", namespace=ns, executor_class=GraphExecutor))


def inv() -> None:
    """Run as `inv` does, with the tasks of the nearest `tasks.py`."""
    _run(StackProgram(name="Invoke", binary="inv[oke]", binary_names=["inv", "invoke"]))


def _run(program: StackProgram) -> None:
    """Run the program as the one thing that this process does."""
    # What has been imported stays anyway, and the last search for garbage takes 40 ms.
    gc.freeze()
    try:
        program.run()
    except SystemExit as ended:
        if ended.code == Interrupted.exit_code:
            _leave(Interrupted.exit_code)
        raise


def _leave(code: int) -> None:
    """End the process as Python does, but for its daemon threads, which an interrupted run leaves at work.

    Python would stop each of them wherever it is, which aborts the process every now and then ("FATAL: exception not
    rethrown").
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are no daemons
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("stackhand")
    except PackageNotFoundError:
        return "unknown"


def _settings_folder(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if any((folder / f"invoke.{ending}").is_file() for ending in ("yaml", "yml", "json", "py")):
            return folder
    return None
