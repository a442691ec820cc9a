"""The users that services run as, by the compose file, the image, and the processes of their containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Variables by which images are told the user that they shall go on as: PUID, USERMAP_UID, NB_UID, USER_ID, …
_UID_VARIABLE = re.compile(r"(.*_)?(P?UID|PUSER|USER_?ID)")


@dataclass(frozen=True)
class User:
    """The user that a service's container runs as.

    `uid` is None if it is not known; then `name` may be. `running` are the users of its processes now: an image that
    starts as root often goes on as another user; `told` are those that its environment tells it to go on as.
    `all_powerful` says whether root in it may read all files. `group` is a group that it is in for sure: for a user
    without one, the image has the last word.
    """

    uid: int | None = None
    gids: frozenset[int] = frozenset()
    name: str = ""
    running: frozenset[int] = frozenset()
    all_powerful: bool = True
    told: frozenset[int] = frozenset()
    group: int | None = None

    @property
    def is_root(self) -> bool:
        """Whether modes do not stop it: it is root, with the capabilities that root usually has in a container."""
        return self.uid == 0 and self.all_powerful

    @property
    def is_known(self) -> bool:
        """Whether its number or its name is known."""
        return self.uid is not None or bool(self.name)

    @property
    def uids(self) -> frozenset[int]:
        """All users that its processes may run as, as far as they are known."""
        return self.running | self.told | ({self.uid} if self.uid is not None else set())

    def __str__(self) -> str:
        return f"uid {self.uid}" if self.uid is not None else f"user {self.name}"


def declared(raw: Mapping[str, Any], image_user: str | None) -> User:
    """Return the user of a service by its compose entry, else by its image. `image_user` is None without the image.

    >>> str(declared({"user": "1000:50"}, ""))
    'uid 1000'
    >>> str(declared({}, "app")), declared({}, "").is_root, declared({}, None).is_known
    ('user app', True, False)
    >>> sorted(declared({"environment": {"PUID": "911", "GRAFANA_UID": "x"}}, "").uids)
    [0, 911]
    """
    told = _told(raw.get("environment") or {})
    text = str(raw.get("user") or "") or image_user
    if text is None:
        return User(told=told)
    user, _, group = (text or "0").partition(":")
    powers = raw.get("cap_drop") or ()
    given = {str(each).upper().removeprefix("CAP_") for each in raw.get("cap_add") or ()}
    dropped = {str(each).upper().removeprefix("CAP_") for each in powers}
    powerful = not dropped & {"ALL", "DAC_OVERRIDE"} or bool(given & {"ALL", "DAC_OVERRIDE"})
    groups = [int(each) for each in (group, *(raw.get("group_add") or ())) if str(each).isdigit()]
    known = User(None, frozenset(groups), user, frozenset(), powerful, told, groups[0] if groups else None)
    if user == "root" or user.isdigit():
        uid = 0 if user == "root" else int(user)
        return User(uid, frozenset(groups or {0}), "", frozenset(), powerful, told, known.group)
    return known


def shifted(user: User, by: tuple[int, int] | None) -> User:
    """Return a container's user with its numbers on the engine's machine, from which a user namespace shifts them.

    `by` is how far users and groups are shifted, None if that is not known. Root in such a container is nobody special
    outside. The users of running processes have the machine's numbers already.

    >>> str(shifted(User(999), (100000, 100000))), shifted(User(0), None).is_known
    ('uid 100999', False)
    """
    if by == (0, 0):
        return user
    if by is None:
        return User(running=user.running, all_powerful=False)
    uids, gids = by
    return User(
        None if user.uid is None else uids + user.uid,
        frozenset(gids + gid for gid in user.gids),
        user.name,
        user.running,
        all_powerful=False,
        told=frozenset(uids + uid for uid in user.told),
        group=None if user.group is None else gids + user.group,
    )


def _told(environment: Mapping[str, Any]) -> frozenset[int]:
    return frozenset(
        int(value)
        for name, value in environment.items()
        if _UID_VARIABLE.fullmatch(name.upper()) and str(value).isascii() and str(value).isdecimal()
    )
