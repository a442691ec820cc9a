"""The one place where owners and modes are changed: only what is safe to change, and the journal is written first."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Mapping, Sequence

from stackhand.perms.journal import Change, Transition, Writer
from stackhand.perms.policy.steps import SETID_BITS, steps
from stackhand.perms.tree.entry import Entry, Unchanged, mode_back
from stackhand.perms.tree.plain_files import AlikeFiles

# Entries that are open at once, and written to the journal at once.
_SIZE = 64
# Descriptors that an entry takes, at most, while as many plain files are open beside them; and the number that is kept
# free for everything else.
_FOR_EACH, _SPARE = 3, 16
_HARD_LINK = "it has other names (hard links), which may lie anywhere"
_SETUID = "it is setuid or setgid for another user, which would make it the new owner's"


def refusal(
    entry: Entry, change: Change, trusted: tuple[int, ...] = (), *, links_stay_inside: bool = False
) -> str | None:
    """Return why a change must not be made; None if it may.

    `trusted` are the users whose setuid files may get another owner. With `links_stay_inside`, all names of a file lie
    inside the tree, so hard links are no reason to refuse.
    """
    if not (links_stay_inside or entry.is_alone):
        return _HARD_LINK
    if change.new_mode & SETID_BITS and entry.kind == stat.S_IFREG and change.uid not in trusted:
        same_owner = change.uid == change.new_uid and change.gid == change.new_gid
        return None if same_owner else _SETUID
    return None


class Batch:
    """Open entries of one folder that are about to be changed.

    `held` has for each its change, its extended attributes that matter, and whether it is right afterwards. `most` is
    how many fit. `do()` replaces `held` with a new list. `failed(name, error)` is called for each entry that could not
    be changed. The batch closes its entries.
    """

    def __init__(self, journal: Writer | None, failed: Callable[[str, OSError], None]) -> None:
        self._journal = journal
        self._failed = failed
        self.most = _entries_at_once()
        self.held: list[tuple[Entry, Change, list[str], bool]] = []

    @property
    def is_full(self) -> bool:
        """Whether it must be done before another entry is added."""
        return len(self.held) >= self.most

    def do(self, folder: str) -> tuple[int, int]:
        """Write the changes to the journal, then make them; return how many entries are right now, how many in part.

        Raises JournalFailed; then no entry was changed.
        """
        held, self.held = self.held, []
        changed = partial = 0
        try:
            if self._journal is not None:
                self._journal.write(folder, [change for _, change, *_ in held])
                # The kernel says what it refuses. Only a file system without owners and modes accepts a call and does
                # nothing, and it does so for every entry: one look in each batch is enough to find out.
                look = True
                for entry, change, attributes, whole in held:
                    try:
                        entry.become(*change[5:], attributes, look=look)
                        look = False
                        changed += whole
                        partial += not whole
                    except (OSError, Unchanged) as error:
                        self._failed(change.name, error)
        finally:
            for entry, *_ in held:
                entry.close()
        return changed, partial

    def do_alike(self, folder: str, plain: Mapping[Transition, AlikeFiles]) -> int:
        """Write the changes of plain files to the journal, then make them; return how many files are right now.

        The caller closes the files. Raises JournalFailed; then no file was changed.
        """
        if self._journal is None:
            raise ValueError("nothing is changed without a journal")
        self._journal.write_alike(folder, {transition: (each.names, each.inodes) for transition, each in plain.items()})
        changed = 0
        for transition, each in plain.items():
            failures = _change_alike(each.fds, transition)
            changed += len(each.fds) - len(failures)
            if failures:
                for name, fd in zip(each.names, each.fds, strict=True):
                    if fd in failures:
                        self._failed(name, failures[fd])
        return changed

    def close(self) -> None:
        """Close the entries, unchanged."""
        held, self.held = self.held, []
        for entry, *_ in held:
            entry.close()


def _change_alike(fds: Sequence[int], transition: Transition) -> dict[int, OSError]:
    """Change the owner and mode of regular files, as `Entry.become` does; return the errors by descriptor."""
    failures: dict[int, OSError] = {}
    *_, uid, gid, mode = transition
    made = steps(*transition)
    for fd in fds:
        # One file after the other: so there is hardly time for somebody to undo a file's first step before its second.
        try:
            for what, one, two in made:
                if what == "owner":
                    os.fchown(fd, one, two)
                else:
                    os.fchmod(fd, one)
        except OSError as error:
            failures[fd] = error
            mode_back(fd, fd, *transition[:3])
    for fd in fds:
        if fd in failures:
            continue
        try:
            # As in `Batch.do`: if one file has changed, the file system has owners and modes.
            after = os.fstat(fd)
            if (after.st_uid, after.st_gid, after.st_mode & 0o7777) == (uid, gid, mode):
                break
            failures[fd] = Unchanged()
        except OSError as error:
            failures[fd] = error
    return failures


def _entries_at_once() -> int:
    """Return how many entries may be open at once: a whole batch, or fewer if this process may open few files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _SIZE
    free = limit - len(os.listdir("/proc/self/fd")) - _SPARE  # noqa: PTH208
    return max(1, min(_SIZE, free // _FOR_EACH))
