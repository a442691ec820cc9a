"""What a run that was killed left half way: programs that had their new owner already, and not their setuid bit again.

Owners and modes are put right by the rules, whatever they are; a bit that is gone only the journal knows of.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from stackhand.perms.journal import Change, Journal, Journals, Writer
from stackhand.perms.policy.rules import SETID_BITS, states
from stackhand.perms.replay import Replay, Step
from stackhand.perms.tree.apply import refusal
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.entry import Entry


def finish(
    root: Path,
    journals: Journals,
    volume: str | None,
    writer: Writer,
    tally: Counts,
    note: Callable[[str, str, str], None],
) -> None:
    """Finish what the last runs left half way that came to no end. Raises JournalFailed, OSError without the root."""
    for journal in _killed(journals, volume):
        replay = Replay(str(root), journal, writer, _decide(journal.ended), note)
        try:
            replay.run(lambda _: None)
            journals.finish(journal)
        finally:
            journal.close()
            tally.wrong += replay.changed + replay.failed
            tally.changed += replay.changed
            tally.failed += replay.failed


def _killed(journals: Journals, volume: str | None) -> Iterator[Journal]:
    # The newest is the run that does this.
    for id in journals.ids()[1:]:
        journal = journals.open(id)
        if journal.head is None or journal.head.volume != volume:
            continue
        if journal.end is not None:
            return
        yield journal


def _decide(limit: int) -> Callable[[Entry | None, Change], Step | None]:
    def decide(entry: Entry | None, change: Change) -> Step | None:
        if entry is None or entry.kind != stat.S_IFREG or entry.seen.st_ino != change.ino:
            return None
        seen, mode = entry.seen, entry.mode
        lost = change.new_mode & SETID_BITS & ~mode
        given = (seen.st_uid, seen.st_gid) == (change.new_uid, change.new_gid)
        half_way = lost and given and (seen.st_uid, seen.st_gid, mode) in states(*change[2:])[1:]
        # What was changed since, or could be written to by others, may be another program.
        if not half_way or seen.st_ctime_ns > limit or mode & 0o022:
            return None
        done = Change(change.name, change.ino, seen.st_uid, seen.st_gid, mode, seen.st_uid, seen.st_gid, mode | lost)
        return None if refusal(entry, done) else Step(done, entry.attributes())

    return decide
