"""Decides which owner and mode each entry of the project should have.

`Rules.desired` is the rule. The rest says which zone an entry is in, and which paths have a rule of their own.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from stat import S_IFLNK, S_IFREG

from stackhand.perms.policy import strict
from stackhand.perms.policy.content import MODES, PRIVATE

SPECIAL_BITS = 0o7000
# Goes up when the rules here or in content.py change, so that files that were right by the old rules are looked at
# again.
_EDITION = 3
# Folders that other programs make. They know best which mode each of their files needs.
_VENDORED = frozenset({".git", "node_modules", ".venv", "venv", "virtualenv"})
VENV_MARK = "pyvenv.cfg"
# Files that a database puts into the folder with its data.
DATA_MARKS = {
    "PG_VERSION": "Postgres",
    "ibdata1": "MySQL",
    "WiredTiger": "MongoDB",
    "appendonlydir": "Redis",
    "dump.rdb": "Redis",
    "raft_state.json": "Qdrant",
}


@dataclass(frozen=True)
class Zone:
    """A part of the project with one rule for all its entries.

    A mode of None leaves the mode as it is, unless that is 000; with `keeps_none`, 000 stays, too. With `all_owners`,
    every entry becomes the target user's; without it, only entries of root do.
    """

    name: str
    directory: int | None
    file: int | None
    executable: int | None
    all_owners: bool
    keeps_none: bool = False


PLAIN = Zone("plain", 0o755, 0o644, 0o755, all_owners=True)
SECRET = Zone("secret", 0o700, 0o600, 0o600, all_owners=True)
VENDORED = Zone("vendored", None, None, None, all_owners=True)
REST = Zone("rest", None, None, None, all_owners=False)
VOLUME = Zone("volume", None, None, None, all_owners=True, keeps_none=True)
# What a strict program reads (see strict.py): owners stay, and only what others could write to changes.
STRICT = Zone("strict", None, None, None, all_owners=False, keeps_none=True)
# Zones where the mode of a file depends on its content.
BY_CONTENT = (PLAIN, STRICT)
# Zones where a private entry keeps a group that may read it.
_KEEPS_READING_GROUP = (PLAIN, VENDORED, REST)


Owned = tuple[int, int, int]
"""User, group and mode of an entry."""


@dataclass(frozen=True)
class Target:
    """The user and group that shall own the project's files. The names are for people; only the ids count."""

    uid: int
    gid: int
    user: str
    group: str


@dataclass(frozen=True)
class PathRule:
    """The rule for one path, an exception from that of its zone.

    With a `mode`, a file gets that mode; it is a secret, or with `plain` a script. With `keep_owner` its owner stays,
    with `gid` it gets that group. `strict` names the strict program that reads it. `data` names a service that mounts
    this folder: what its container made there is left alone (see `Rules.reason_of_container`). With none of these, the
    path and all below it are left alone; `leave` is the reason, "" if nobody needs to know.

    `uids` are the users that the containers which mount the folder run as, None if all that belongs neither to root nor
    to the target user is the container's. `writes` says whether one of them can write to it.
    """

    mode: int | None = None
    keep_owner: bool = False
    leave: str = ""
    plain: bool = False
    data: str = ""
    gid: int | None = None
    strict: str = ""
    uids: frozenset[int] | None = None
    writes: bool = True

    @property
    def leaves_all(self) -> bool:
        """Whether the path and all below it are left alone."""
        return self.mode is None and not self.data and not self.strict


class Rules:
    """The rules of one project, from its settings, its compose file, and what git records.

    `top_files` are patterns of file names in the root. `special` maps the path of a folder below the root (`""` is the
    root) to the rules for its entries, by name. Below `deepest` folders no path has a rule of its own. With
    `spares_data`, a folder that a database keeps its data in is left alone, wherever it is. With `keeps_executable`,
    executable files stay so, since git could not be asked. With `links_stay_inside`, all names of a file lie inside the
    tree. `is_person` says whether a number is that of a person who works on this machine.
    """

    def __init__(
        self,
        target: Target,
        roots: Sequence[str],
        secrets: Sequence[str],
        executable: Iterable[str],
        top_files: Iterable[str] = (),
        special: Mapping[str, Mapping[str, PathRule]] | None = None,
        root_zone: Zone = REST,
        *,
        spares_data: bool = True,
        keeps_executable: bool = False,
        links_stay_inside: bool = False,
        is_person: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.root_zone = root_zone
        self._is_person = is_person
        self.keeps_executable = keeps_executable
        self.links_stay_inside = links_stay_inside
        self._spares_data = spares_data
        self.target = target
        self.special = special or {}
        patterns, top = tuple(executable), tuple(top_files)
        self._given = [sorted(roots), sorted(secrets), sorted(patterns), sorted(top)]
        self._roots = frozenset(map(_clean, roots))
        self._secrets = frozenset(map(_clean, secrets))
        # To compare a suffix is faster than to match a pattern, and nearly all patterns are suffixes.
        suffixes = [each for each in patterns if re.fullmatch(r"\*[^*?\[\]]+", each)]
        self._suffixes = tuple(each[1:] for each in suffixes)
        others = set(patterns) - set(suffixes)
        self._patterns = _any_of(others) if others else None
        self._top = _any_of(top)
        # The files that the settings name one by one: names by folder.
        self.named: dict[str, set[str]] = {}
        for path in (*self._roots, *self._secrets):
            folder, _, name = path.rpartition("/")
            self.named.setdefault(folder, set()).add(name)
        self.deepest = max((_depth(each) for each in (*self._roots, *self._secrets, *self.special)), default=0) + 1

    def folder(self, above: Zone, path: str, name: str) -> Zone:
        """Return the zone of a folder in a folder of zone `above`; `path` may be "" below `deepest` folders."""
        if above is SECRET or path in self._secrets:
            return SECRET
        if path in self._roots:
            return PLAIN
        if above is PLAIN and name in _VENDORED:
            return VENDORED
        return STRICT if name in strict.FOLDERS and above in (PLAIN, REST) else above

    def file(self, above: Zone, path: str, name: str) -> Zone:
        """Return the zone of a file in a folder of zone `above`: its own in the root, or if a setting names it."""
        if above is SECRET or path in self._secrets:
            return SECRET
        if path in self._roots or (path == name and self._top(name)):
            return PLAIN
        return STRICT if name in strict.FILES and above in (PLAIN, REST) else above

    def fingerprint(self) -> str:
        """Return a text that is equal for equal rules, and no others."""
        special = {path: {name: vars(each) for name, each in found.items()} for path, found in self.special.items()}
        given = [_EDITION, vars(self.target), self._given, self.keeps_executable, special]
        text = json.dumps(given, sort_keys=True, default=sorted)
        return hashlib.sha256(text.encode()).hexdigest()

    def zone(self, path: str, *, folder: bool) -> Zone:
        """Return the zone of a path below the root."""
        zone, at = self.root_zone, ""
        *above, name = path.split("/")
        for each in above:
            at = f"{at}/{each}" if at else each
            zone = self.folder(zone, at, each)
        return self.folder(zone, path, name) if folder else self.file(zone, path, name)

    def is_secret(self, path: str) -> bool:
        """Return whether the settings make a path secret, or a folder above it."""
        return any(path == each or path.startswith(f"{each}/") for each in self._secrets)

    def in_secret_folder(self, path: str) -> bool:
        """Return whether a path lies in a secret folder, which only its owner may enter."""
        return any(path.startswith(f"{each}/") for each in self._secrets)

    def left_to_its_database(self, uid: int, mode: int, has: Callable[[str], bool]) -> str | None:
        """Return why a folder is left alone as the data of a database; None if it is not. `has` looks for a name in it.

        The data of a server that runs as the target user are recognised by the folder's mode: Postgres does not start
        with a wider one (https://www.postgresql.org/docs/current/creating-cluster.html).
        """
        if not self._spares_data:
            return None
        if uid not in (0, self.target.uid):
            mark = next((what for name, what in DATA_MARKS.items() if has(name)), None)
            return f"it is the data of a {mark} server (uid {uid})" if mark else None
        if mode & 0o027 == 0 and has("PG_VERSION"):
            return "it is the data of a Postgres server, which nobody else may enter"
        return None

    def is_executable(self, name: str) -> bool:
        """Return whether a file of this name is a script."""
        return name.endswith(self._suffixes) or (self._patterns is not None and bool(self._patterns(name)))

    def desired(
        self, zone: Zone, kind: int, uid: int, gid: int, mode: int, usual: int, exception: PathRule | None = None
    ) -> Owned:
        """Return the user, group and mode that an entry should have. This is the one rule; all other code applies it.

        `kind` is S_IFREG, S_IFDIR or S_IFLNK; `mode` has no other bits than 07777. `usual` is the mode of a file by its
        content and name (see `usual_mode`): it counts in a plain zone, and for a file with the mode 000.
        """
        named: int | None = None
        if exception is not None and exception.strict:
            zone = STRICT
        elif exception is not None and exception.mode is not None:
            zone, named = (PLAIN, None) if exception.plain else (SECRET, exception.mode)
        wanted = self._mode(zone, kind, mode, usual, named)
        if exception is not None and exception.keep_owner:
            return uid, gid, wanted
        if exception is not None and exception.gid is not None:
            return self.target.uid, exception.gid, wanted
        if zone is STRICT or not (uid == 0 or zone.all_owners):
            return uid, gid, wanted
        if wanted & 0o044 == 0o040 and gid not in (0, self.target.gid) and zone in _KEEPS_READING_GROUP:
            return self.target.uid, gid, wanted
        return self.target.uid, self.target.gid, wanted

    def _mode(self, zone: Zone, kind: int, mode: int, usual: int, named: int | None) -> int:
        if kind == S_IFLNK:
            return mode
        if zone is STRICT:
            return mode & (0o7700 if kind == S_IFREG and usual == PRIVATE else 0o7755)
        if kind == S_IFREG:
            wanted, fallback = named or (usual if zone is PLAIN else zone.file), usual
        else:
            wanted, fallback = zone.directory, 0o755
        if wanted is None:
            # As it is, but not 000: that is of no use to anybody.
            if mode & 0o777 or zone.keeps_none:
                return mode
            wanted = fallback
        if zone is not SECRET:
            wanted = no_wider(wanted, mode)
        return keep_special(wanted, mode)

    def reason_of_container(self, mounted: PathRule, uid: int, gid: int, mode: int) -> str | None:
        """Return why an entry of a mounted folder is left to its containers; None if it is not.

        What belongs to root or to the target user is theirs, unless it was opened to a group of a container alone. Of
        the rest, a container made what belongs to its own user, or to nobody who works on this machine. Where the
        containers can't write, they need only the files that others can't read.
        """
        is_closed = not mode & 0o004
        if uid in (0, self.target.uid):
            to_group = uid == 0 and is_closed and mode & 0o040 and gid not in (0, self.target.gid)
            return f"group {gid} reads it, others may not, and {mounted.data} mounts it" if to_group else None
        if mounted.uids is None:
            return f"it is data of {mounted.data}, and its container has given it to uid {uid}"
        if not (mounted.writes or is_closed):
            return None
        if uid in mounted.uids:
            return f"{mounted.data} runs as uid {uid}, which owns it"
        if not self._is_person(uid):
            return f"{mounted.data} mounts it, and uid {uid}, which owns it, is no person of this machine"
        return None

    def stays(self, zone: Zone, kind: int, uid: int, gid: int, mode: int) -> bool | None:
        """Return whether an entry is right as it is, whatever its content; None if that depends on the content."""
        now = (uid, gid, mode)
        outcomes = {self.desired(zone, kind, uid, gid, mode, usual) for usual in MODES}
        return None if now in outcomes and len(outcomes) > 1 else now in outcomes


def _clean(path: str) -> str:
    return path.strip().removeprefix("./").strip("/")


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0


def _any_of(patterns: Iterable[str]) -> Callable[[str], object]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match


def no_wider(wanted: int, mode: int) -> int:
    """Return a wanted mode without the rights of a group, or of others, who may not read the entry now.

    >>> [oct(no_wider(0o755, mode)) for mode in (0o604, 0o640, 0o600, 0o711, 0)]
    ['0o705', '0o750', '0o700', '0o711', '0o700']
    """
    group = wanted if mode & 0o040 else wanted & mode
    others = wanted if mode & 0o004 else wanted & mode
    return wanted & ~0o077 | group & 0o070 | others & 0o007


def keep_special(wanted: int, mode: int) -> int:
    """Return a wanted mode with the special bits (setuid, setgid, sticky) that the entry has."""
    return wanted | (mode & SPECIAL_BITS)
