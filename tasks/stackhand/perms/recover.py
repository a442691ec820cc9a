"""Completes what a killed run has left half way: programs with their new owner, but without their setuid bit.

A change of owner removes that bit, and the run sets it again afterwards. All other owners and modes the next fix puts
right by the rules. Only this bit is known to nobody but the journal.
"""

from __future__ import annotations

import stat
from pathlib import Path

from stackhand.perms.journal import Change, Journals, Writer
from stackhand.perms.policy.steps import SETID_BITS, states
from stackhand.perms.replay import Apply, Decide, Decision, Keep, Replay
from stackhand.perms.tree.apply import refusal
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.entry import Entry
from stackhand.perms.tree.events import AddEvent


def complete_killed_runs(
    root: Path,
    journals: Journals,
    id: str,
    volume: str | None,
    writer: Writer,
    counts: Counts,
    add_event: AddEvent,
) -> None:
    """Complete the runs that were killed since the last one that ended, and write their last lines.

    `id` is the run that does this, `writer` its journal. Raises JournalFailed, and OSError if the root can't be opened.
    """
    for journal in journals.unfinished(volume, but=id):
        replay = Replay(str(root), journal, writer, _decide(journal.ended), add_event)
        try:
            replay.run(lambda _: None)
            journals.settle(journal)
        finally:
            journal.close()
            counts.wrong += replay.changed + replay.failed
            counts.changed += replay.changed
            counts.failed += replay.failed


def _decide(limit: int) -> Decide:
    def decide(entry: Entry | None, change: Change) -> Decision:
        if entry is None or entry.kind != stat.S_IFREG or entry.seen.st_ino != change.ino:
            return Keep()
        seen, mode = entry.seen, entry.mode
        lost = change.new_mode & SETID_BITS & ~mode
        given = (seen.st_uid, seen.st_gid) == (change.new_uid, change.new_gid)
        half_way = lost and given and (seen.st_uid, seen.st_gid, mode) in states(*change[2:])[1:]
        # A file that was changed since, or that others can write to, may be another program by now.
        if not half_way or seen.st_ctime_ns > limit or mode & 0o022:
            return Keep()
        done = Change(change.name, change.ino, seen.st_uid, seen.st_gid, mode, seen.st_uid, seen.st_gid, mode | lost)
        return Keep() if refusal(entry, done) else Apply(done, entry.attributes())

    return decide
