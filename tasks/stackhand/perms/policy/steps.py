"""The system calls that take an entry from one owner and mode to another, in an order that opens no gap."""

from __future__ import annotations

from functools import lru_cache
from stat import S_ISUID

SETID_BITS = 0o6000


@lru_cache(maxsize=4096)
def steps(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> tuple[tuple[str, int, int], ...]:
    """Return the calls that take an entry from one owner and mode to another: ("mode", m, 0) or ("owner", u, g).

    The mode is narrowed first, then the owner changes, then the final mode is set. So at no moment does anybody have
    more rights than the old owner and mode gave them, or the new ones give them. A change of owner removes setuid and
    setgid from a file. A folder keeps its special bits all the way, so that a run that is killed does not lose them.

    >>> steps(0, 0, 0o666, 5, 5, 0o644)
    (('mode', 420, 0), ('owner', 5, 5))
    >>> steps(0, 0, 0o600, 5, 5, 0o644)
    (('owner', 5, 5), ('mode', 420, 0))
    >>> steps(5, 5, 0o600, 5, 5, 0o644)
    (('mode', 420, 0),)
    """
    if (uid, gid) == (new_uid, new_gid):
        return (("mode", new_mode, 0),) if mode != new_mode else ()
    narrow = mode & new_mode
    made: list[tuple[str, int, int]] = []
    if narrow != mode:
        made.append(("mode", narrow, 0))
    made.append(("owner", new_uid, new_gid))
    # An old owner who is not root may have widened the mode again just before the change of owner.
    if narrow != new_mode or new_mode & SETID_BITS or uid != 0:
        made.append(("mode", new_mode, 0))
    return tuple(made)


def states(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> list[tuple[int, int, int]]:
    """Return user, group and mode at the beginning, and all that they can be after each of the `steps`; last the end.

    >>> [(uid, oct(mode)) for uid, _, mode in states(0, 0, 0o666, 5, 5, 0o644)]
    [(0, '0o666'), (0, '0o644'), (5, '0o644')]
    >>> [(uid, oct(mode)) for uid, _, mode in states(0, 0, 0o4711, 5, 5, 0o4711)]
    [(0, '0o4711'), (5, '0o4711'), (5, '0o711'), (5, '0o4711')]
    """
    passed = [(uid, gid, mode)]
    for what, one, two in steps(uid, gid, mode, new_uid, new_gid, new_mode):
        if what == "mode":
            mode = one
            passed.append((uid, gid, mode))
            continue
        uid, gid = one, two
        passed.append((uid, gid, mode))
        if mode & SETID_BITS:
            # A file loses them; but setgid stays in some cases if the group may not execute the file.
            kept = {mode & ~S_ISUID, mode & ~SETID_BITS}
            passed += [(uid, gid, each) for each in sorted(kept - {mode})]
    return passed


def why(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> str:
    """Return in words what is wrong with an entry, from its owner and mode and those that it should have.

    >>> why(0, 0, 0o666, 1000, 1000, 0o644)
    'owner 0:0, not 1000:1000; mode 666, not 644'
    """
    parts = []
    if uid != new_uid or gid != new_gid:
        parts.append(f"owner {uid}:{gid}, not {new_uid}:{new_gid}")
    if mode != new_mode:
        parts.append(f"mode {mode:03o}, not {new_mode:03o}")
    return "; ".join(parts)
