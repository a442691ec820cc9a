"""Holds the project's lock and listens to the engine while services are brought up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from stackhand.engine.api.client import Engine
from stackhand.engine.api.events import Listener
from stackhand.services.start.notifier import Notifier
from stackhand.state.folder import StateFolder


class Session:
    """Shared by the threads of a process: the first that enters opens it, the last that leaves closes it.

    Between them the lock is free, so that a task's own body can call stackhand again.
    """

    def __init__(self, engine: Engine, state: StateFolder, notifier: Notifier) -> None:
        self._engine = engine
        self._state = state
        self._notifier = notifier
        self._mutex = threading.Lock()
        self._inside = 0
        self._open = contextlib.ExitStack()
        self._listener: Listener | None = None

    @contextlib.contextmanager
    def locked(self, project: str) -> Iterator[None]:
        """Hold the lock and listen while the body runs. Raises LockHeld."""
        with self._mutex:
            if self._inside == 0:
                with contextlib.ExitStack() as opening:
                    opening.enter_context(self._state.lock("services.start"))
                    opening.enter_context(self.listening(project))
                    # Kept open only when both are: a lock that nobody gives back would lock us out ourselves.
                    self._open = opening.pop_all()
            self._inside += 1
        try:
            yield
        finally:
            with self._mutex:
                self._inside -= 1
                if self._inside == 0:
                    self._open.close()

    @contextlib.contextmanager
    def listening(self, project: str) -> Iterator[None]:
        """Listen to the engine while the body runs."""
        self._listener = self._engine.listen(project, self._notifier.handle, self._notifier.lost)
        try:
            yield
        finally:
            self._listener.close()

    def cancel(self) -> None:
        """Wake all that wait, to leave."""
        self._notifier.cancel()
        if self._listener:
            self._listener.close()
