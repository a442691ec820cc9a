"""The one place where owners and modes are changed: journaled first, and only what is safe to change."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable, Mapping, Sequence

from stackhand.perms.journal import Become, Change, Writer
from stackhand.perms.policy.rules import SETID_BITS, steps
from stackhand.perms.tree.entry import Entry, Unchanged, mode_back
from stackhand.perms.tree.plain_files import Plain

# Entries that are open at once, and journaled in one go.
_SIZE = 64
# Descriptors that one of them takes, at most, when as many plain files are held beside them; and those that are to be
# free for everything else.
_FOR_EACH, _SPARE = 3, 16
_HARD_LINK = "it has other names (hard links), which may lie anywhere"
_SETUID = "it is setuid or setgid for another user, which would make it the new owner's"


def refusal(
    entry: Entry, change: Change, trusted: tuple[int, ...] = (), *, links_stay_inside: bool = False
) -> str | None:
    """Return why a change must not be made, None where it may.

    `trusted` are those whose setuid files may be given away. With `links_stay_inside`, all names of a file are.
    """
    if not (links_stay_inside or entry.is_alone):
        return _HARD_LINK
    if change.new_mode & SETID_BITS and entry.kind == stat.S_IFREG and change.uid not in trusted:
        same_owner = change.uid == change.new_uid and change.gid == change.new_gid
        return None if same_owner else _SETUID
    return None


class Batch:
    """Entries of one folder that are held: what each becomes, its attributes that matter, whether it is right then.

    With `most` of them nothing more should be added. What `held` is when it was done is another list.
    `failed` is told of each that could not be changed. Whoever adds an entry leaves it to the batch to close it.
    """

    def __init__(self, journal: Writer | None, failed: Callable[[str, OSError], None]) -> None:
        self._journal = journal
        self._failed = failed
        self.most = _entries_at_once()
        self.held: list[tuple[Entry, Change, list[str], bool]] = []

    @property
    def is_full(self) -> bool:
        """Whether it is to be done before anything else is added."""
        return len(self.held) >= self.most

    def do(self, folder: str) -> tuple[int, int]:
        """Journal what is held, then change it; return how many are right now, and how many in part.

        Raises JournalFailed.
        """
        held, self.held = self.held, []
        changed = partial = 0
        try:
            if self._journal is not None:
                self._journal.write(folder, [change for _, change, *_ in held])
                # The kernel says what it refused. Only a file system without owners and modes takes a call and does
                # nothing, and then with every entry: one look in each batch finds it out.
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

    def do_alike(self, folder: str, plain: Mapping[Become, Plain]) -> int:
        """Journal plain files, then change them, those together that become the same; return how many are right now.

        Whoever holds them closes them. Raises JournalFailed.
        """
        if self._journal is None:
            raise ValueError("nothing is changed without a journal")
        self._journal.write_alike(folder, {become: (each.names, each.inodes) for become, each in plain.items()})
        changed = 0
        for become, each in plain.items():
            failures = _become(each.fds, become)
            changed += len(each.fds) - len(failures)
            if failures:
                for name, fd in zip(each.names, each.fds, strict=True):
                    if fd in failures:
                        self._failed(name, failures[fd])
        return changed

    def close(self) -> None:
        """Let go of what is held, unchanged."""
        held, self.held = self.held, []
        for entry, *_ in held:
            entry.close()


def _become(fds: Sequence[int], become: Become) -> dict[int, OSError]:
    """Take regular files from one owner and mode to another, as `Entry.become` does; return what failed, and why."""
    failures: dict[int, OSError] = {}
    *_, uid, gid, mode = become
    made = steps(*become)
    for fd in fds:
        # One file after the other, so that nobody has long to undo the first step before the second is made.
        try:
            for what, one, two in made:
                if what == "owner":
                    os.fchown(fd, one, two)
                else:
                    os.fchmod(fd, one)
        except OSError as error:
            failures[fd] = error
            mode_back(fd, fd, *become[:3])
    for fd in fds:
        if fd in failures:
            continue
        try:
            # As in a batch: where one took it, all did.
            after = os.fstat(fd)
            if (after.st_uid, after.st_gid, after.st_mode & 0o7777) == (uid, gid, mode):
                break
            failures[fd] = Unchanged()
        except OSError as error:
            failures[fd] = error
    return failures


def _entries_at_once() -> int:
    """Return how many entries may be held at once: a batch, or fewer where this process may open little."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _SIZE
    free = limit - len(os.listdir("/proc/self/fd")) - _SPARE  # noqa: PTH208
    return max(1, min(_SIZE, free // _FOR_EACH))
