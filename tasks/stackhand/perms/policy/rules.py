"""What owner and mode each entry of the project should have: pure decisions on names, modes and first bytes."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from stat import S_IFDIR, S_IFREG, S_ISUID

SPECIAL_BITS = 0o7000
SETID_BITS = 0o6000
# How much of a file is looked at to tell a script or a private key, and of one that begins as a bundle of keys does.
HEAD = 4096
BUNDLE = 65536
_KEY = re.compile(
    rb"^(-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|PuTTY-User-Key-File-|AGE-SECRET-KEY-)", re.MULTILINE
)
# What the files begin with, behind blank lines and comments, that hold a private key there or further on.
_KEY_START = re.compile(
    rb"(\xef\xbb\xbf)?([ \t\r]*(#[^\n]*)?\n)*[ \t]*"
    rb"(-----BEGIN |Bag Attributes|PuTTY-User-Key-File-|AGE-SECRET-KEY-)"
)
# A private key or a PKCS #12 bundle in DER: a sequence that begins with its version, as a certificate does not.
_DER = re.compile(rb"\x30(\x82..|\x81.|[\x08-\x7f])\x02\x01[\x00\x01\x03]", re.DOTALL)
# Names of what mostly is a private key, in formats that content does not tell for sure.
_PRIVATE_SUFFIXES = (".p12", ".pfx", ".key", ".jks", ".keystore", ".kdbx", ".ppk")
_PRIVATE_NAMES = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_xmss")
# The first bytes of all that content tells something of.
_TELLING = frozenset(b"#\x7f-ABP\xef \t\r\n")
# What files may be where content tells.
MODES = (0o755, 0o644, 0o600)
# Goes up when the rules of this module change: what was right by the old ones is looked at again.
_EDITION = 2
# No file shorter than this has content that matters: "#!" and a letter.
SHORTEST = 3
# Folders that other programs made; they know best which mode each file has.
_VENDORED = frozenset({".git", "node_modules", ".venv", "venv", "virtualenv"})
VENV_MARK = "pyvenv.cfg"
# Files that a database puts into the folder of its data.
DATA_MARKS = {
    "PG_VERSION": "Postgres",
    "ibdata1": "MySQL",
    "WiredTiger": "MongoDB",
    "appendonlydir": "Redis",
    "dump.rdb": "Redis",
    "raft_state.json": "Qdrant",
}


@dataclass(frozen=True)
class Area:
    """A part of the project that one rule holds for.

    A mode of None means: as it is, unless it is 000; with `keeps_none`, that too. With `all_owners`, whoever owns an
    entry, it becomes the target user's; without, only root's entries do.
    """

    name: str
    directory: int | None
    file: int | None
    executable: int | None
    all_owners: bool
    keeps_none: bool = False


PLAIN = Area("plain", 0o755, 0o644, 0o755, all_owners=True)
SECRET = Area("secret", 0o700, 0o600, 0o600, all_owners=True)
VENDORED = Area("vendored", None, None, None, all_owners=True)
REST = Area("rest", None, None, None, all_owners=False)
VOLUME = Area("volume", None, None, None, all_owners=True, keeps_none=True)


Owned = tuple[int, int, int]
"""Owner, group and mode of an entry."""


@dataclass(frozen=True)
class Target:
    """Who shall own the project's files. Names are for people; ids are what counts."""

    uid: int
    gid: int
    user: str
    group: str


@dataclass(frozen=True)
class Special:
    """An exception for one path.

    With a `mode`, a file has that one; it is a secret unless it is `plain`, that is a script. With `keep_owner` it
    stays whose it is. With `data`, the name of a service that keeps its data in this folder, what belongs neither to
    root nor to the target user there is left alone. With none of these, the path and all below it are left alone;
    `leave` is why, "" where nobody needs to know.
    """

    mode: int | None = None
    keep_owner: bool = False
    leave: str = ""
    plain: bool = False
    data: str = ""


class Rules:
    """The rules of one project: settings, what the compose file says, what git records.

    `top_files` are patterns of names in the root itself. `special` maps a folder's path below the root (`""` is the
    root) to its exceptions by name. `deepest` says how many folders down a path can still matter. With `spares_data`,
    folders that a database keeps its data in are left alone, wherever they are. With `keeps_executable`, what is
    executable stays so, as nobody could say what git records. With `links_stay_inside`, no other name of a file can
    lie outside the tree.
    """

    def __init__(
        self,
        target: Target,
        roots: Sequence[str],
        secrets: Sequence[str],
        executable: Iterable[str],
        top_files: Iterable[str] = (),
        special: Mapping[str, Mapping[str, Special]] | None = None,
        root_area: Area = REST,
        *,
        spares_data: bool = True,
        keeps_executable: bool = False,
        links_stay_inside: bool = False,
    ) -> None:
        self.root_area = root_area
        self.keeps_executable = keeps_executable
        self.links_stay_inside = links_stay_inside
        self._spares_data = spares_data
        self.target = target
        self.special = special or {}
        patterns, top = tuple(executable), tuple(top_files)
        self._given = [sorted(roots), sorted(secrets), sorted(patterns), sorted(top)]
        self._roots = frozenset(map(_clean, roots))
        self._secrets = frozenset(map(_clean, secrets))
        # A suffix is found faster than a pattern is matched, and nearly all of them are suffixes.
        suffixes = [each for each in patterns if re.fullmatch(r"\*[^*?\[\]]+", each)]
        self._suffixes = tuple(each[1:] for each in suffixes)
        others = set(patterns) - set(suffixes)
        self._patterns = _any_of(others) if others else None
        self._top = _any_of(top)
        # Files that the settings name one by one, by their folder.
        self.named: dict[str, set[str]] = {}
        for path in (*self._roots, *self._secrets):
            folder, _, name = path.rpartition("/")
            self.named.setdefault(folder, set()).add(name)
        self.deepest = max((_depth(each) for each in (*self._roots, *self._secrets, *self.special)), default=0) + 1

    def folder(self, above: Area, path: str, name: str) -> Area:
        """Return the area of a folder that lies in one of area `above`; `path` is "" where it is too deep to matter."""
        if above is SECRET or path in self._secrets:
            return SECRET
        if path in self._roots:
            return PLAIN
        return VENDORED if above is PLAIN and name in _VENDORED else above

    def file(self, above: Area, path: str, name: str) -> Area:
        """Return the area of a file; only those in the root, or that a setting names, have one of their own."""
        if above is SECRET or path in self._secrets:
            return SECRET
        return PLAIN if path in self._roots or (path == name and self._top(name)) else above

    def fingerprint(self) -> str:
        """Return what is equal only for rules that are."""
        special = {path: {name: vars(each) for name, each in found.items()} for path, found in self.special.items()}
        given = [_EDITION, vars(self.target), self._given, self.keeps_executable, special]
        text = json.dumps(given, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def area(self, path: str, *, folder: bool) -> Area:
        """Return the area of a path below the root."""
        area, at = self.root_area, ""
        *above, name = path.split("/")
        for each in above:
            at = f"{at}/{each}" if at else each
            area = self.folder(area, at, each)
        return self.folder(area, path, name) if folder else self.file(area, path, name)

    def is_secret(self, path: str) -> bool:
        """Return whether a setting makes a path secret, or a folder that it is in."""
        return any(path == each or path.startswith(f"{each}/") for each in self._secrets)

    def in_secret_folder(self, path: str) -> bool:
        """Return whether a path lies in a secret folder, which only its owner may enter."""
        return any(path.startswith(f"{each}/") for each in self._secrets)

    def left_to_its_database(self, uid: int, mode: int, has: Callable[[str], bool]) -> str | None:
        """Return why a folder is left alone as a database's, from its owner, its mode and which names are in it.

        A server that runs as the target user is told by its folder's mode: Postgres does not start with a wider one
        (https://www.postgresql.org/docs/current/creating-cluster.html).
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
        self, area: Area, kind: int, uid: int, gid: int, mode: int, usual: int, exception: Special | None = None
    ) -> Owned:
        """Return the owner, group and mode that an entry should have: the one rule, which all others only apply.

        `kind` is S_IFREG, S_IFDIR or S_IFLNK; `mode` has no other bits than 07777. `usual` is the mode that a file has
        where neither area nor exception names one: see `usual_mode`.
        """
        named: int | None = None
        if exception is not None and exception.mode is not None:
            area, named = (PLAIN, None) if exception.plain else (SECRET, exception.mode)
        if (uid == 0 or area.all_owners) and not (exception is not None and exception.keep_owner):
            uid, gid = self.target.uid, self.target.gid
        if kind == S_IFREG:
            wanted, fallback = named or (usual if area is PLAIN else area.file), usual
        elif kind == S_IFDIR:
            wanted, fallback = area.directory, 0o755
        else:
            return uid, gid, mode
        if wanted is None:
            # As it is; but nobody can use what has the mode 000.
            return uid, gid, mode if mode & 0o777 or area.keeps_none else keep_special(fallback, mode)
        return uid, gid, keep_special(wanted, mode)

    def stays(self, area: Area, kind: int, uid: int, gid: int, mode: int) -> bool | None:
        """Return whether an entry is right as it is; None where that depends on its content."""
        now = (uid, gid, mode)
        outcomes = {self.desired(area, kind, uid, gid, mode, usual) for usual in MODES}
        return None if now in outcomes and len(outcomes) > 1 else now in outcomes


def _clean(path: str) -> str:
    return path.strip().removeprefix("./").strip("/")


def _depth(path: str) -> int:
    return path.count("/") + 1 if path else 0


def _any_of(patterns: Iterable[str]) -> Callable[[str], object]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match


def may_hold_a_key(head: bytes) -> bool:
    """Return whether a file begins as those do that hold a private key there or further on."""
    return bool(head) and head[0] in _TELLING and _KEY_START.match(head) is not None


def mode_by_content(head: bytes, mode: int, name: str = "", *, script: bool = False) -> int:
    """Return the mode of a file in a plain area from its first bytes, and where these do not tell, from its name.

    A private key is its owner's, whatever its name; a script is executable, by its content or because something else
    says that it is a `script`; a program that was executable stays so. What may be a private key stays its owner's
    where it is now.

    >>> [oct(mode_by_content(h, 0o664)) for h in (b"#!/bin/sh", b"text", b"-----BEGIN PRIVATE KEY-----")]
    ['0o755', '0o644', '0o600']
    >>> [oct(mode_by_content(b"\\0", mode, "tls.p12")) for mode in (0o400, 0o640)]
    ['0o600', '0o644']
    """
    if head and head[0] in _TELLING:
        if head.startswith(b"#!") or (head.startswith(b"\x7fELF") and mode & 0o111):
            return 0o755
        if may_hold_a_key(head) and _KEY.search(head):
            return 0o600
    if script:
        return 0o755
    return 0o600 if not mode & 0o077 and (_is_called_private(name) or _DER.match(head)) else 0o644


def usual_mode(head: bytes | None, mode: int, name: str, *, script: bool) -> int:
    """Return the mode of a file in a plain area, as `mode_by_content` does; `head` is None where it can't be read.

    Then a mode that can be right is taken for right.

    >>> [oct(usual_mode(None, mode, "run", script=False)) for mode in (0o755, 0o777)]
    ['0o755', '0o644']
    """
    if head is None and mode & 0o777 in MODES:
        return mode & 0o777
    return mode_by_content(head or b"", mode, name, script=script)


def keep_special(wanted: int, mode: int) -> int:
    """Return a wanted mode with the special bits (setuid, setgid, sticky) that the entry has."""
    return wanted | (mode & SPECIAL_BITS)


def _is_called_private(name: str) -> bool:
    name = name.lower()
    return name.endswith(_PRIVATE_SUFFIXES) or (name.startswith(_PRIVATE_NAMES) and not name.endswith(".pub"))


@lru_cache(maxsize=4096)
def steps(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> tuple[tuple[str, int, int], ...]:
    """Return the calls that take an entry from one owner and mode to another: ("mode", m, 0) or ("owner", u, g).

    At no moment has anybody rights that are neither the old owner's by the old mode nor the new one's by the new: the
    mode is narrowed first, then the owner changes, then the final mode is set. A change of owner takes setuid and
    setgid from a file. A folder keeps its special bits all the way, so a run that is killed does not lose them.

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
    # Who is not root may have widened the mode again just before the file was no longer his.
    if narrow != new_mode or new_mode & SETID_BITS or uid != 0:
        made.append(("mode", new_mode, 0))
    return tuple(made)


def states(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> list[tuple[int, int, int]]:
    """Return owner, group and mode at the beginning, and as they may be after each of the `steps`; the last is the end.

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
            # A file loses them; setgid without execution by the group stays in some cases.
            kept = {mode & ~S_ISUID, mode & ~SETID_BITS}
            passed += [(uid, gid, each) for each in sorted(kept - {mode})]
    return passed


def why(uid: int, gid: int, mode: int, new_uid: int, new_gid: int, new_mode: int) -> str:
    """Return in words what is wrong with an entry.

    >>> why(0, 0, 0o666, 1000, 1000, 0o644)
    'owner 0:0, not 1000:1000; mode 666, not 644'
    """
    parts = []
    if uid != new_uid or gid != new_gid:
        parts.append(f"owner {uid}:{gid}, not {new_uid}:{new_gid}")
    if mode != new_mode:
        parts.append(f"mode {mode:03o}, not {new_mode:03o}")
    return "; ".join(parts)
