"""Decides who shall own the project's files."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from functools import lru_cache

from stackhand.errors import BadArgument, UnknownUser, nearest
from stackhand.perms.policy.rules import Target

# The largest user or group number: chown(2) takes the one after it, -1, for "unchanged".
_LAST = 2**32 - 2
# The first and the last user number that is given to a person.
_PEOPLE = (1000, 60000)


def target(owner: str | None, environ: Mapping[str, str]) -> Target:
    """Return the target user: the one of `--owner user[:group]`, else the one who called sudo, else the current user.

    Without a group, it is the user's primary group. Raises UnknownUser, BadArgument.
    """
    if owner is not None:
        user, colon, group = owner.partition(":")
        if not user or (colon and not group):
            raise BadArgument(f"--owner takes user or user:group, not {owner!r}")
        return _target(user, group)
    if os.geteuid() == 0 and environ.get("SUDO_USER"):
        return _target(environ["SUDO_USER"], "")
    return _target(str(os.geteuid()), "")


def ids(owner: str | None) -> tuple[int, int]:
    """Return user and group of a volume's `--owner UID:GID`. Raises BadArgument.

    Names are not taken: those of a container are not those of this machine.
    """
    uid, _, gid = (owner or "").partition(":")
    if not (_is_number(uid) and _is_number(gid)):
        raise BadArgument(
            f"with --volume, --owner takes numbers, UID:GID, not {owner!r}",
            "the names of users differ from image to image; `docker compose exec SERVICE id` shows the numbers",
        )
    return _number(uid), _number(gid)


@lru_cache(maxsize=4096)
def is_person(uid: int) -> bool:
    """Return whether a number is that of a person who works on this machine: neither unknown nor a system account.

    Accounts of people begin at 1000 and end at 60000 (UID_MIN, UID_MAX in login.defs(5)).
    """
    if not _PEOPLE[0] <= uid <= _PEOPLE[1]:
        return False
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def docker_group_missing(user: str, socket: str = "/var/run/docker.sock") -> str | None:
    """Return the group of the engine's socket if the user needs to be in it and is not; else None."""
    try:
        found = os.stat(socket)  # noqa: PTH116
        group = grp.getgrgid(found.st_gid)
        account = pwd.getpwnam(user)
    except (OSError, KeyError):
        return None
    if account.pw_uid in (0, found.st_uid) or account.pw_gid == group.gr_gid or user in group.gr_mem:
        return None
    return group.gr_name if group.gr_gid and found.st_mode & 0o060 else None


def _target(user: str, group: str) -> Target:
    number = _number(user) if _is_number(user) else None
    try:
        account = pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
        uid, name, own = account.pw_uid, account.pw_name, account.pw_gid
    except KeyError:
        if number is None:
            raise _unknown("user", user, (each.pw_name for each in pwd.getpwall())) from None
        uid, name, own = number, user, number if number != os.geteuid() else os.getegid()
    if not group:
        return Target(uid, own, name, _group_name(own))
    try:
        gid = _number(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise _unknown("group", group, (each.gr_name for each in grp.getgrall())) from None
    return Target(uid, gid, name, _group_name(gid))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(text: str) -> int:
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_LAST)) or int(digits) > _LAST:
        raise BadArgument(f"{text} is no user or group: their numbers go up to {_LAST}")
    return int(digits)


def _unknown(what: str, name: str, known: Iterable[str]) -> UnknownUser:
    match = nearest(name, known)
    return UnknownUser(
        f"there is no {what} {name!r} on this machine",
        f"did you mean {match!r}?" if match else "name one, or a number",
    )


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
