"""The journal of actions: each run is written down before it changes anything, so that the next run knows what is left.

A run goes through three kinds of entries: what it *intends*, what is *done*, and its *end*. An entry is on the disk
before the step that it names begins. So after a kill, a crash or a power failure the journal may name a step that was
never made, and one that was made may not be marked as done; but no step is made that the journal does not name.
The world has the last word: a step is one that can be looked up there ("does this container still run?"), and that
look (the *probe*) decides what is left, not the entry.

    journal = Journal(state)
    with journal.run("services.restart", facts={"names": ["api"]}) as run:
        run.intend({"<container>": "its image has changed"})     # raises StateFolderUnwritable: then do nothing
        …                                                        # the step
        run.done("<container>")                                  # optional
    # The end is written here. Where the body raises, or the process dies, it is not.

    for before in journal.unfinished("services.restart"):
        before.left(lambda container: container not in running)  # the steps that were not made
    journal.settle(*journal.unfinished("services.restart"))      # once they are made, or nobody wants them any more

It is one small JSON document, `.stackhand/journal.json`, that is replaced as a whole: draft, fsync, rename, fsync of
the folder. Not SQLite: that opens files by path and follows links, plays back whatever journal lies beside its file,
and containers may write to this folder. Not a file that grows by lines either: its last line can be torn, it has to
be compacted under a lock, and one that root made could not be added to by the project's user. A whole document has
none of these cases, and what it costs, two fsyncs an entry, is nothing beside a container's restart.

Containers of the project can write to the document. So it is believed only as far as the project's own files are:
what it names is looked up among the project's services and containers before it is used or told. What root must
be able to believe, as the changes of owners that `perms.undo` takes back, lies in the private folder (see
`perms/journal.py`, which writes hundreds of thousands of entries a second and has a format for that).
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

# Runs of each task that are kept after their end, and of each that came to none.
KEPT = 100
# Runs that are read from a document at all: one that a container made up could hold millions.
_MOST = 2000
# The longest cause of a step that is read, in characters.
_LONGEST = 1000


@dataclass(frozen=True)
class Step:
    """One step of a run: why it is made, in words, and whether the run that intended it has marked it as done."""

    cause: str = ""
    done: bool = False


@dataclass(frozen=True)
class Process:
    """Which process writes a run: its number, when the kernel started it, and in which boot of which machine."""

    pid: int
    started: str
    boot: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        return cls(os.getpid(), _started(os.getpid()), _boot())

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. A number that another process has now is not the same process."""
        return bool(self.started) and self.boot == _boot() and self.started == _started(self.pid)


@dataclass(frozen=True)
class Run:
    """What the journal says of one run.

    `facts` is what the task wrote at its beginning (JSON), `steps` what it intended to do, by a key that the world can
    be asked for. `began` and `ended` are ISO 8601 in UTC; `ended` is "" for a run that came to no end. `process` is the
    one that writes it; None once that has given up.
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
        """Return the keys of the steps that were not made. `is_done` looks at the world, and has the last word."""
        return [key for key in self.steps if not is_done(key)]


@dataclass(frozen=True)
class Unfinished:
    """What a person is told of a run that came to no end: what is left, and what finishes it."""

    task: str
    began: str
    summary: str
    hint: str


class Journal:
    """The journal of one project. Several runs, threads and processes may use it side by side."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def runs(self, task: str | None = None) -> list[Run]:
        """Return the runs of a task, or of all, the oldest first."""
        return [run for run in _RUNS.read(self._state) if task in (None, run.task)]

    def unfinished(self, task: str | None = None) -> list[Run]:
        """Return the runs of a task, or of all, that came to no end, the oldest first; those under way, too."""
        return [run for run in self.runs(task) if not run.ended]

    def begin(
        self, task: str, facts: Mapping[str, Any] | None = None, steps: Mapping[str, str] | None = None
    ) -> ActiveRun:
        """Write down that a run of a task begins; `steps` are the first that it intends: keys and causes.

        Raises StateFolderUnwritable; then nothing may be done.
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
        """Begin a run, and end it after the body. Where the body raises, the run stays unfinished.

        Raises StateFolderUnwritable before the body; then nothing may be done.
        """
        active = self.begin(task, facts, steps)
        try:
            yield active
        except BaseException:
            active.give_up()
            raise
        active.end()

    def settle(self, *runs: Run) -> None:
        """Write down that these runs are at their end: what was left of them is done, or is not wanted any more.

        Where that can't be written they stay unfinished, and the next run finds again that nothing is left to do.
        """
        ids = {run.id for run in runs}
        if ids:
            with contextlib.suppress(StateFolderUnwritable):
                self._change(lambda run: _at_end(run) if run.id in ids else run)

    def forget(self, task: str, is_over: Callable[[str], bool]) -> None:
        """Drop the steps of which nothing can be looked up in the world any more from the runs of a task that ended.

        Where that can't be written they stay.
        """

        def dropped(run: Run) -> Run:
            if run.task != task or not run.ended:
                return run
            return replace(run, steps={key: step for key, step in run.steps.items() if not is_over(key)})

        with contextlib.suppress(StateFolderUnwritable):
            self._change(dropped)

    def put(self, changed: Run) -> None:
        """Write a run in place of the one of the same id, or beside the others where that is gone.

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
    """A run of this process, to be written on. Threads may share it."""

    def __init__(self, journal: Journal, run: Run) -> None:
        self._journal = journal
        self._run = run
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """What `Run.id` of this run is."""
        return self._run.id

    def intend(self, steps: Mapping[str, str]) -> None:
        """Write down steps that are about to be made: keys and causes.

        Raises StateFolderUnwritable; then they may not be made.
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
        """Write down that the run is at its end: nothing is left of it.

        Where that can't be written it stays unfinished, and the next run finds that nothing is left to do.
        """
        with contextlib.suppress(StateFolderUnwritable):
            self._write(_at_end)

    def give_up(self) -> None:
        """Write down that this process does no more about the run, which has not come to its end."""
        with contextlib.suppress(StateFolderUnwritable):
            self._write(lambda run: replace(run, process=None))

    def _write(self, change: Callable[[Run], Run]) -> None:
        with self._lock:
            changed = change(self._run)
            self._journal.put(changed)
            self._run = changed


def _decode(value: Any) -> list[Run]:
    """Read the document; what is no run in it is passed over."""
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
    """Return a text that a terminal takes for nothing else: somebody may have put control characters into it."""
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
    """Return a run at its end. Only the steps that are marked as done can be of interest then; the others go."""
    if run.ended:
        return run
    steps = {key: step for key, step in run.steps.items() if step.done}
    return replace(run, steps=steps, ended=_iso(datetime.now(timezone.utc)), process=None)


def _pruned(runs: list[Run]) -> list[Run]:
    """Return the runs without the oldest of each task, those that came to an end and those that did not by themselves.

    So neither a task that runs often nor one that is killed often costs another one its runs.
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
    """Return what tells one boot of one machine from another, "" where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when the kernel started a process, in its own ticks; "" where it runs no more, or that can't be read.

    Fields 3 and 22 of https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html; a name with blanks may stand before.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
