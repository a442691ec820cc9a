"""What a check, a fix or an undo of permissions works with. Loads nothing heavy, so that Compose can be asked first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackhand.state.folder import StateFolder

if TYPE_CHECKING:
    from stackhand.engine.api.client import Engine
    from stackhand.engine.compose.project import Project
    from stackhand.engine.host.programs import Programs


@dataclass(frozen=True)
class PermsContext:
    """One project, and the ways to ask Compose, the engine and programs about it.

    `directory` is where the task was called: a relative `COMPOSE_FILE` counts from there. `project` and `engine` are
    called when they are needed, and raise StackError where Compose or the engine can't be asked. `progress` is called
    with the number of entries that have been looked at. With `dry` nothing is changed anywhere.
    """

    state: StateFolder
    environ: Mapping[str, str]
    directory: Path
    programs: Programs
    project: Callable[[], Project]
    engine: Callable[[], Engine]
    progress: Callable[[int], None] = lambda _: None
    dry: bool = False

    @property
    def root(self) -> Path:
        """The project's folder, whose files are looked at."""
        return self.state.path.parent

    def lock(self, task: str) -> AbstractContextManager[None]:
        """Hold the project's lock while the body runs; a user who may not write to the project can do so, too.

        Raises LockHeld, StateFolderUnwritable.
        """
        return self.state.lock(task, allow_private_lock=True)


def read_ahead(work: Callable[[], Project]) -> Callable[[], Project]:
    """Begin on a thread what waits for another program; return a function that waits for its result."""
    future: Future[Project] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # A daemon thread: an interrupted run does not wait for it.
    thread = threading.Thread(target=run, name="compose", daemon=True)
    thread.start()

    def result() -> Project:
        # Wait for the thread, not only for its result: processes are forked after this, and a fork should find one
        # thread only.
        thread.join()
        return future.result()

    return result
