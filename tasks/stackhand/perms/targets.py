"""Whom the project's files shall belong to."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping

from stackhand.errors import BadArgument, UnknownUser
from stackhand.perms.rules import Target


def target(owner: str | None, environ: Mapping[str, str]) -> Target:
    """Return the target user: of `--owner user[:group]`, else whoever called sudo, else the current user.

    The group is the user's own where none is named. Raises UnknownUser, BadArgument.
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
    """Return user and group of a volume's `--owner UID:GID`: a container's names are not this machine's."""
    uid, _, gid = (owner or "").partition(":")
    if not (uid.isdecimal() and gid.isdecimal()):
        raise BadArgument(
            f"with --volume, --owner takes numbers, UID:GID, not {owner!r}",
            "the names of users differ from image to image; `docker compose exec SERVICE id` shows the numbers",
        )
    return int(uid), int(gid)


def docker_group_missing(user: str, socket: str = "/var/run/docker.sock") -> str | None:
    """Return the group that the engine's socket belongs to, where the user is not in it and needs it."""
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
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, name, own = account.pw_uid, account.pw_name, account.pw_gid
    except KeyError:
        if not user.isdecimal():
            raise UnknownUser(f"there is no user {user!r} on this machine", "name one, or a number") from None
        uid, name, own = int(user), user, int(user) if int(user) != os.geteuid() else os.getegid()
    if not group:
        return Target(uid, own, name, _group_name(own))
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UnknownUser(f"there is no group {group!r} on this machine", "name one, or a number") from None
    return Target(uid, gid, name, _group_name(gid))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
