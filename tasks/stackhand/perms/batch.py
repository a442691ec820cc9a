"""The one place where owners and modes are changed: journaled first, and only what is safe to change."""

from __future__ import annotations

import stat
from collections.abc import Callable

from stackhand.perms.entry import Entry, Unchanged
from stackhand.perms.journal import Change, Writer
from stackhand.perms.rules import SETID_BITS

# Entries that are open at once, and journaled in one go.
SIZE = 64
_HARD_LINK = "it has other names (hard links), which may lie anywhere"
_SETUID = "it is setuid or setgid for another user, which would make it the new owner's"


def refusal(entry: Entry, change: Change, trusted: tuple[int, ...]) -> str | None:
    """Return why a change must not be made, None where it may. `trusted` are those whose setuid files may be given."""
    if not entry.is_alone:
        return _HARD_LINK
    if change.new_mode & SETID_BITS and entry.kind == stat.S_IFREG and change.uid not in trusted:
        same_owner = change.uid == change.new_uid and change.gid == change.new_gid
        return None if same_owner else _SETUID
    return None


class Batch:
    """Entries of one folder that are held, with what each becomes and its attributes that matter.

    `failed` is told of each that could not be changed. Whoever adds an entry leaves it to the batch to close it.
    """

    def __init__(self, journal: Writer | None, failed: Callable[[str, OSError], None]) -> None:
        self._journal = journal
        self._failed = failed
        self.held: list[tuple[Entry, Change, list[str]]] = []

    def do(self, folder: str) -> int:
        """Journal what is held, then change it; return how many were changed. Raises JournalFailed."""
        held, self.held = self.held, []
        done = 0
        try:
            if self._journal is not None:
                self._journal.write(folder, [change for _, change, _ in held])
                for entry, change, attributes in held:
                    try:
                        entry.become(change.new_uid, change.new_gid, change.new_mode, attributes)
                        done += 1
                    except (OSError, Unchanged) as error:
                        self._failed(change.name, error)
        finally:
            for entry, *_ in held:
                entry.close()
        return done

    def close(self) -> None:
        """Let go of what is held, unchanged."""
        held, self.held = self.held, []
        for entry, *_ in held:
            entry.close()
