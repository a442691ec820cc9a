"""The journal of actions: a run writes down what it will change, then changes it, so the next run knows what is left.

A run makes three kinds of entries: the steps that it *intends*, the steps that are *done*, and its *end*. An intended
step is on the disk before it is made. So after a kill, a crash or a power failure the journal names every step that was
made. It may also name a step that was not made, and it may lack the mark of one that is done. Therefore the journal
alone never decides what is left: each step can be looked up outside of it ("does this container still run?"), and what
is seen there counts.

    journal = Journal(state)
    with journal.run("services.restart", facts={"names": ["api"]}) as run:
        run.intend({"<container>": "its image has changed"})     # raises StateFolderUnwritable: then do nothing
        …                                                        # the step
        run.done("<container>")                                  # optional
    # The end is written here. If the body raises, or the process dies, it is not.

    for before in journal.unfinished("services.restart"):
        before.left(lambda container: container not in running)  # the steps that were not made
    journal.settle(*journal.unfinished("services.restart"))      # once they are made, or are not wanted any more

The journal is one small JSON document, `.stackhand/journal.json`. Each entry replaces it as a whole: a new file is
written, synced and renamed, and the folder is synced. This takes two fsyncs, which is nothing beside the restart of a
container, and it leaves no half-written entry. SQLite was not taken: it opens files by path, follows links, and replays
any journal that lies beside its file, while containers may write to this folder. A file that grows line by line was not
taken either: its last line may be cut short, it must be compacted under a lock, and the project's user could not add to
one that root has made.

Containers of the project can write to the document, too. So it is trusted as little as the project's own files: what it
names is looked up among the project's services and containers before it is used or shown. What root must be able to
trust lies in the private folder, for example the changes of owners that `perms.undo` takes back. Those have a format of
their own, because there are hundreds of thousands of them a second (see `perms/journal.py`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stackhand.errors import StateFolderUnwritable
from stackhand.state.document import Document
from stackhand.state.folder import StateFolder

# How many runs of each task are kept: so many that ended, and so many unfinished ones.
KEPT = 100
# How many runs are read from a document: a container could write one with millions of them.
_MOST = 2000
# How many characters of a step's cause are read.
_LONGEST = 1000


@dataclass(frozen=True)
class Step:
    """One step of a run: its cause in words, and whether the run has marked it as done."""

    cause: str = ""
    done: bool = False


@dataclass(frozen=True)
class Process:
    """The process that writes a run: its number, the time when the kernel started it, and the id of the boot."""

    pid: int
    started: str
    boot: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        return cls(os.getpid(), _started(os.getpid()), _boot())

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. Another process that has its number by now does not count."""
        return bool(self.started) and self.boot == _boot() and self.started == _started(self.pid)


@dataclass(frozen=True)
class Run:
    """What the journal says of one run.

    `facts` is what the task wrote at the beginning (JSON). `steps` are what it intended, each under a key by which it
    can be looked up. `began` and `ended` are ISO 8601 in UTC; `ended` is "" for an unfinished run. `process` is the
    process that writes it, None once that has ended the run or given it up.
    """

    id: str
    task: str
    began: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)
    ended: str = ""
    process: Process | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether its process still works on it."""
        return not self.ended and self.process is not None and self.process.is_alive

    def left(self, is_done: Callable[[str], bool]) -> list[str]:
        """Return the keys of the steps that were not made. `is_done` looks each key up, and alone decides."""
        return [key for key in self.steps if not is_done(key)]


@dataclass(frozen=True)
class Unfinished:
    """What a person is told of an unfinished run: what is left of it, and which task finishes that."""

    task: str
    began: str
    summary: str
    hint: str


class Journal:
    """The journal of one project. Several runs, threads and processes may use it side by side."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def runs(self, task: str | None = None) -> list[Run]:
        """Return the runs of one task, or of all tasks, the oldest first."""
        return [run for run in _RUNS.read(self._state) if task in (None, run.task)]

    def unfinished(self, task: str | None = None) -> list[Run]:
        """Return the runs without an end, of one task or of all, the oldest first. Runs under way are among them."""
        return [run for run in self.runs(task) if not run.ended]

    def begin(
        self, task: str, facts: Mapping[str, Any] | None = None, steps: Mapping[str, str] | None = None
    ) -> ActiveRun:
        """Write down that a run of a task begins. `steps` are the first steps that it intends: causes by key.

        Raises StateFolderUnwritable; then no step may be made.
        """
        intended = {key: Step(cause) for key, cause in (steps or {}).items()}
        now = datetime.now(timezone.utc)
        new = Run("", task, _iso(now), dict(facts or {}), intended, process=Process.current())

        def add(runs: list[Run]) -> list[Run]:
            nonlocal new
            new = replace(new, id=_free_id(f"{now:%Y%m%d-%H%M%S}", {run.id for run in runs}))
            return _pruned([*runs, new])

        _RUNS.update(self._state, add, durable=True)
        return ActiveRun(self, new)

    @contextlib.contextmanager
    def run(
        self, task: str, facts: Mapping[str, Any] | None = None, steps: Mapping[str, str] | None = None
    ) -> Iterator[ActiveRun]:
        """Begin a run, and end it after the body. If the body raises, the run stays unfinished.

        Raises StateFolderUnwritable before the body, which then does not run.
        """
        active = self.begin(task, facts, steps)
        try:
            yield active
        except BaseException:
            active.give_up()
            raise
        active.end()

    def settle(self, *runs: Run) -> None:
        """Write down the end of these runs: what was left of them is done, or is not wanted any more.

        If that can't be written, they stay unfinished, and the next run finds again that nothing is left of them.
        """
        ids = {run.id for run in runs}
        if ids:
            with contextlib.suppress(StateFolderUnwritable):
                self._change(lambda run: _at_end(run) if run.id in ids else run)

    def forget(self, task: str, is_over: Callable[[str], bool]) -> None:
        """Drop steps that are of no more use from the runs of a task that have ended; `is_over` tells them by key.

        If that can't be written, they stay.
        """

        def dropped(run: Run) -> Run:
            if run.task != task or not run.ended:
                return run
            return replace(run, steps={key: step for key, step in run.steps.items() if not is_over(key)})

        with contextlib.suppress(StateFolderUnwritable):
            self._change(dropped)

    def put(self, changed: Run) -> None:
        """Write a run in the place of the one with the same id; if there is none any more, add it.

        Raises StateFolderUnwritable.
        """

        def put(runs: list[Run]) -> list[Run]:
            if any(run.id == changed.id for run in runs):
                return [changed if run.id == changed.id else run for run in runs]
            return _pruned([*runs, changed])

        _RUNS.update(self._state, put, durable=True)

    def _change(self, change: Callable[[Run], Run]) -> None:
        _RUNS.update(self._state, lambda runs: [change(run) for run in runs], durable=True)


class ActiveRun:
    """A run of this process, which can add entries to it. Threads may share it."""

    def __init__(self, journal: Journal, run: Run) -> None:
        self._journal = journal
        self._run = run
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """The run's id in the journal."""
        return self._run.id

    def intend(self, steps: Mapping[str, str]) -> None:
        """Write down steps that are about to be made: causes by key.

        Raises StateFolderUnwritable; then the steps must not be made.
        """
        self._write(lambda run: replace(run, steps={**run.steps, **{key: Step(why) for key, why in steps.items()}}))

    def done(self, *keys: str) -> None:
        """Write down that steps were made. Raises StateFolderUnwritable."""
        self._write(
            lambda run: replace(
                run, steps={**run.steps, **{key: replace(run.steps.get(key, Step()), done=True) for key in keys}}
            )
        )

    def end(self) -> None:
        """Write down the end of the run: nothing is left of it.

        If that can't be written, it stays unfinished, and the next run finds that nothing is left of it.
        """
        with contextlib.suppress(StateFolderUnwritable):
            self._write(_at_end)

    def give_up(self) -> None:
        """Write down that this process leaves the run unfinished."""
        with contextlib.suppress(StateFolderUnwritable):
            self._write(lambda run: replace(run, process=None))

    def _write(self, change: Callable[[Run], Run]) -> None:
        with self._lock:
            changed = change(self._run)
            self._journal.put(changed)
            self._run = changed


def _decode(value: Any) -> list[Run]:
    """Return the runs of a document. Entries that are not valid runs are left out."""
    runs = [_run(each) for each in value["runs"][-_MOST:]]
    return [run for run in runs if run is not None]


def _run(value: Any) -> Run | None:
    try:
        by, steps, facts = value["process"], value["steps"], value["facts"]
        texts = [value["id"], value["task"], value["began"], value["ended"]]
        if not (all(isinstance(text, str) for text in texts) and isinstance(facts, dict)):
            return None
        id, task, began, ended = texts
        return Run(
            id,
            task,
            began,
            facts,
            {str(key): Step(_printable(str(cause)), bool(done)) for key, (cause, done) in steps.items()},
            ended,
            Process(int(by["pid"]), str(by["started"]), str(by["boot"])) if by else None,
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return None


def _printable(text: str) -> str:
    """Return a text without control characters: a container may have written some, and it is shown on a terminal."""
    return "".join(each for each in text[:_LONGEST] if each.isprintable())


def _encode(runs: Iterable[Run]) -> dict[str, Any]:
    return {
        "runs": [
            {
                "id": run.id,
                "task": run.task,
                "began": run.began,
                "facts": dict(run.facts),
                "steps": {key: [step.cause, step.done] for key, step in run.steps.items()},
                "ended": run.ended,
                "process": vars(run.process) if run.process else None,
            }
            for run in runs
        ]
    }


_RUNS: Document[list[Run]] = Document("journal", _decode, list, _encode)


def _at_end(run: Run) -> Run:
    """Return a run with its end. It keeps the steps that are marked as done; nobody asks for the others any more."""
    if run.ended:
        return run
    steps = {key: step for key, step in run.steps.items() if step.done}
    return replace(run, steps=steps, ended=_iso(datetime.now(timezone.utc)), process=None)


def _pruned(runs: list[Run]) -> list[Run]:
    """Return the newest runs of each task: `KEPT` that have ended, and `KEPT` that are unfinished.

    So a task that runs often, or is often killed, does not push the runs of other tasks out of the journal.
    """
    seen: dict[tuple[str, bool], int] = {}
    kept = []
    for run in reversed(runs):
        kind = (run.task, bool(run.ended))
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= KEPT:
            kept.append(run)
    return kept[::-1][-_MOST:]


def _free_id(stamp: str, taken: set[str]) -> str:
    id, number = stamp, 1
    while id in taken:
        number += 1
        id = f"{stamp}-{number}"
    return id


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _boot() -> str:
    """Return the id that the kernel gave to this boot of the machine, "" if it can't be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when the kernel started a process, in clock ticks; "" if it has ended, or that can't be read.

    The state and the start time are fields 3 and 22 of https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html; they
    are counted from the last bracket, because the name before it may have blanks.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
