"""Puts back what a run changed: the owner and mode of every file that nobody has changed since.

The time of change (ctime) tells whether anybody has: the kernel sets it, and nobody can forge it. If it lies after the
run, and not within a later run of perms, somebody else has changed the file.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.engine.host.sudo import command_line
from stackhand.errors import JournalRefused, StackError, UnknownRun
from stackhand.perms.context import PermsContext
from stackhand.perms.journal import Change, Journal, Journals, Writer
from stackhand.perms.policy.steps import SETID_BITS, states
from stackhand.perms.replay import Apply, Decision, Keep, Replay
from stackhand.perms.result import error_field
from stackhand.perms.tree.apply import refusal
from stackhand.perms.tree.entry import CAPABILITY, TICK, Entry
from stackhand.perms.tree.events import EventSpool
from stackhand.perms.tree.interrupts import defer_signals
from stackhand.perms.tree.workers import Progress
from stackhand.perms.volume import folder_of_volume
from stackhand.state.private import PrivateFolder

_SHOWN = 5
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


@dataclass
class UndoResult:
    """What an undo has done. `id` is the run that was undone, None if there was none to undo.

    `journal` is the journal of the undo itself, `stopped` the error that ended it early. If there was nothing to undo,
    `any_runs` says whether there are any runs at all.
    """

    id: str | None
    root: Path
    restored: int = 0
    left: int = 0
    failed: int = 0
    journal: str | None = None
    events: EventSpool = field(default_factory=EventSpool)
    stopped: BaseException | None = None
    any_runs: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing failed. Entries that somebody has changed since are left alone, and that is right."""
        return not self.failed and self.stopped is None

    def head(self) -> dict[str, Any]:
        """Return the JSON document without its lists."""
        return {
            "ok": self.ok,
            "root": str(self.root),
            "undone": self.id,
            "restored": self.restored,
            "left": self.left,
            "journal": self.journal,
            **error_field(self.stopped),
        }


def undo_run(context: PermsContext, id: str | None) -> UndoResult:
    """Undo a run of the project, or the last one where `id` is None, under the lock; where `dry`, only look.

    Raises UnknownRun, JournalRefused, UnknownVolume, VolumeUnreachable, LockHeld, StateFolderUnwritable; what ends the
    run early is in the result.
    """
    if context.dry:
        return _undo_run(context, id)
    with context.lock("perms.undo"):
        return _undo_run(context, id)


def _undo_run(context: PermsContext, id: str | None) -> UndoResult:
    journals, root = Journals(context.state.private), context.root
    try:
        journal = choose(journals, id)
    except UnknownRun as unknown:
        raise _roots(context, unknown.message, id) or unknown from None
    if journal is None:
        roots = _roots(context, "there is no run of yours to undo", id)
        if roots is not None:
            raise roots
        return UndoResult(None, root, any_runs=bool(journals.ids()))
    volume = journal.head.volume if journal.head else None
    links_stay_inside = False
    if volume is not None:
        root, links_stay_inside = folder_of_volume(context.engine(), volume)
    if context.dry:
        return plan(root, journal, journals, links_stay_inside=links_stay_inside)
    return undo(root, journal, journals, context.progress, links_stay_inside=links_stay_inside)


def _roots(context: PermsContext, message: str, id: str | None) -> JournalRefused | None:
    """Return the error for an ordinary user of a project where root has runs; None where root has none."""
    if os.geteuid() == 0 or not PrivateFolder(context.root, context.environ, uid=0).exists():
        return None
    again = shlex.join(["sudo", *command_line("perms.undo"), *([id] if id else [])])
    return JournalRefused(f"{message}; root has changed files here", f"only root can undo that: `{again}`")


def choose(journals: Journals, id: str | None) -> Journal | None:
    """Return the journal of a run; for None, of the last fix that was not undone yet; None if there is no such fix.

    Raises UnknownRun, JournalRefused.
    """
    ids = all_ids(journals)
    if id is not None:
        if id not in ids:
            known = ", ".join(ids[:_SHOWN])
            raise UnknownRun(f"there is no run {id!r} to undo", f"the last ones: {known}" if known else "there is none")
        return _open(journals, id)
    undone = set()
    for each in ids:
        journal = _open(journals, each)
        head = journal.head
        if each not in undone and head is not None:
            if not head.undoes:
                return journal
            # An undo that was interrupted, or failed in part, has to be done again. One that was undone itself is void.
            if journal.is_complete:
                undone.add(head.undoes)
        journal.close()
    return None


def all_ids(journals: Journals) -> list[str]:
    """Return the ids of all runs, the newest first. Raises JournalRefused."""
    try:
        return journals.ids()
    except OSError as error:
        raise JournalRefused(f"the journals can't be used: {error.strerror}", f"look at {journals.path}") from error


def _open(journals: Journals, id: str) -> Journal:
    try:
        return journals.open(id)
    except OSError as error:
        raise JournalRefused(
            f"the journal of run {id} can't be used: {error.strerror}", f"look at {journals.path}"
        ) from error


def plan(root: Path, journal: Journal, journals: Journals, *, links_stay_inside: bool = False) -> UndoResult:
    """Return what an undo of a run would do; change nothing."""
    undoing = _Undoing(root, journal, _later(journals, journal.id), links_stay_inside=links_stay_inside)
    return undoing.run(None, lambda _: None)


def undo(
    root: Path,
    journal: Journal,
    journals: Journals,
    progress: Progress = lambda _: None,
    *,
    links_stay_inside: bool = False,
) -> UndoResult:
    """Undo a run below `root`. The undo has a journal of its own, so it can be undone, too. The caller holds the lock.

    A file with several names stays as it is, unless `links_stay_inside`: then all its names are below the root. Raises
    StateFolderUnwritable.
    """
    volume = journal.head.volume if journal.head else None
    undoing = _Undoing(root, journal, _later(journals, journal.id), links_stay_inside=links_stay_inside)
    id, writer = journals.create("perms.undo", "", undoes=journal.id, volume=volume)
    try:
        result = undoing.run(writer, progress)
        result.journal = id
        # Without a last line it counts as a run that was killed, and the next undo goes on with it.
        with contextlib.suppress(StackError):
            writer.end(failed=result.failed, complete=result.stopped is None)
    finally:
        writer.close()
    return result


class _Undoing:
    def __init__(self, root: Path, journal: Journal, later: list[tuple[int, int]], *, links_stay_inside: bool) -> None:
        self._links_stay_inside = links_stay_inside
        self._result = UndoResult(journal.id, root)
        self._journal = journal
        self._limit = journal.ended
        self._later = later
        # A folder's times say when something was put into it. So only its owner and mode tell whether it was changed.
        self._only_the_end = journal.is_complete

    def run(self, writer: Writer | None, progress: Progress) -> UndoResult:
        result = self._result
        replay = Replay(str(result.root), self._journal, writer, self._decide, result.events.add)
        try:
            with defer_signals() as interrupted:

                def step(seen: int) -> None:
                    progress(seen)
                    interrupted()

                replay.run(step)
        except (KeyboardInterrupt, StackError) as error:
            result.stopped = error
        finally:
            self._journal.close()
        result.restored, result.left, result.failed = replay.changed, replay.left, replay.failed
        return result

    def _decide(self, entry: Entry | None, change: Change) -> Decision:  # noqa: PLR0911  a guard for each reason
        if entry is None:
            return Keep("it is gone")
        seen = entry.seen
        if seen.st_ino != change.ino:
            return Keep("it is another file now")
        if entry.kind not in _KINDS:
            return Keep("it is no longer a file or folder")
        now = (seen.st_uid, seen.st_gid, entry.mode)
        if now == (change.uid, change.gid, change.mode):
            return Keep()
        is_folder = entry.kind == stat.S_IFDIR
        # A run that failed or was killed may have left an entry half way.
        if now not in states(*change[2:])[-1 if is_folder and self._only_the_end else 1 :]:
            return Keep("owner or mode were changed since")
        if not is_folder and seen.st_mtime_ns > self._limit:
            return Keep("its content was changed since")
        if not is_folder and not self._is_ours(seen.st_ctime_ns):
            return Keep("it was changed since: its content, owner, mode or name")
        back, attributes, remark = _back(entry, change)
        refused = refusal(entry, back, links_stay_inside=self._links_stay_inside)
        return Keep(refused) if refused else Apply(back, attributes, remark)

    def _is_ours(self, changed: int) -> bool:
        return changed <= self._limit or any(began <= changed <= ended for began, ended in self._later)


def _back(entry: Entry, change: Change) -> tuple[Change, list[str], str]:
    """Return the change that takes a change back, the extended attributes to keep, and a remark for people.

    A program does not get its setuid or setgid bit or its capabilities back: it would run with the rights of its old
    owner, and the owner that it had meanwhile may have rewritten it.
    """
    seen, attributes = entry.seen, entry.attributes()
    mode, lost = change.mode, []
    if entry.kind == stat.S_IFREG and (seen.st_uid, seen.st_gid) != (change.uid, change.gid):
        if mode & SETID_BITS:
            bits = "".join(letter for bit, letter in ((stat.S_ISUID, "u"), (stat.S_ISGID, "g")) if mode & bit)
            lost.append(f"its {'setuid' if 'u' in bits else 'setgid'} bit: `chmod {bits}+s`")
            mode &= ~SETID_BITS
        if CAPABILITY in attributes:
            lost.append("its capabilities: `setcap`")
            attributes = [each for each in attributes if each != CAPABILITY]
    back = Change(change.name, change.ino, seen.st_uid, seen.st_gid, entry.mode, change.uid, change.gid, mode)
    remark = f"put back without {' and '.join(lost)} if it is still the program it was" if lost else ""
    return back, attributes, remark


def _later(journals: Journals, id: str) -> list[tuple[int, int]]:
    """Return when each run after this one began and ended, in nanoseconds since the epoch."""
    found = []
    for each in all_ids(journals):
        if each == id:
            break
        journal = _open(journals, each)
        # The clock of file times lags behind by up to a tick. It never runs ahead.
        found.append((journal.began - TICK, journal.ended))
        journal.close()
    return found
