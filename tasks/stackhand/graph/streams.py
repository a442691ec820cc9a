"""Keeps the output of tasks that run side by side apart: each line carries its task's name."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO


class _Labelled(io.TextIOBase):
    """Passes on whole lines, each behind a label. What ends without a newline waits for `flush_rest`."""

    def __init__(self, label: str, target: TextIO, lock: threading.Lock) -> None:
        self._label = label
        self._target = target
        self._lock = lock
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target.encoding

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._target.write(f"{self._label} | {line}\n")
        return len(text)

    def flush(self) -> None:
        self._target.flush()

    def flush_rest(self) -> None:
        if self._rest:
            self.write("\n")
        self._target.flush()


class _PerThread(io.TextIOBase):
    """Stands in for `sys.stdout`: sends each thread's text to the stream that thread was given."""

    def __init__(self, target: TextIO, streams: dict[int, _Labelled]) -> None:
        self._target = target
        self._streams = streams

    def _stream(self) -> Any:
        return self._streams.get(threading.get_ident(), self._target)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target.encoding

    def fileno(self) -> int:
        return self._target.fileno()

    def isatty(self) -> bool:
        return bool(self._stream().isatty())

    def write(self, text: str) -> int:
        return int(self._stream().write(text))

    def flush(self) -> None:
        self._stream().flush()


class LabelledOutput:
    """While open, text that a task prints from a thread of its own is labelled with the task's name.

    Tasks that run alone, in the main thread, write as always. A task whose class sets `labels_itself` (its lines
    name what they are about) is left alone too.
    """

    def __init__(self, stdout: TextIO, stderr: TextIO) -> None:
        self._targets = (stdout, stderr)
        self._streams: tuple[dict[int, _Labelled], dict[int, _Labelled]] = ({}, {})
        self._lock = threading.Lock()

    def __enter__(self) -> LabelledOutput:
        sys.stdout = _PerThread(self._targets[0], self._streams[0])
        sys.stderr = _PerThread(self._targets[1], self._streams[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout, sys.stderr = self._targets

    def stream_for(self, task: Any) -> _Labelled | None:
        """Return the stream for programs that a task starts, or None where it may write as always."""
        if threading.current_thread() is threading.main_thread() or getattr(task, "labels_itself", False):
            return None
        return _Labelled(task.name, self._targets[0], self._lock)

    @contextmanager
    def thread(self, task: Any) -> Iterator[None]:
        """Label what the current thread prints, for as long as the body runs."""
        if threading.current_thread() is threading.main_thread() or getattr(task, "labels_itself", False):
            yield
            return
        key = threading.get_ident()
        mine = [_Labelled(task.name, target, self._lock) for target in self._targets]
        for streams, stream in zip(self._streams, mine, strict=True):
            streams[key] = stream
        try:
            yield
        finally:
            for streams, stream in zip(self._streams, mine, strict=True):
                streams.pop(key, None)
                stream.flush_rest()
