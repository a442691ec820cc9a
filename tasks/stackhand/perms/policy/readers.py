"""Derives from the compose file who reads files of the project, and whose data they are.

Pure decisions on three kinds of facts: the Compose project, the users that its services run as, and the owner and
mode of the paths that it names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.engine.compose.project import Project
from stackhand.model import Finding, Status
from stackhand.perms.policy.rules import PLAIN, PathRule, Rules, Target

PHASE = "permissions"
# The folders of a container where images usually keep their data.
_DATA_PLACES = ("/var/lib/", "/data/", "/bitnami/", "/qdrant/", "/var/opt/", "/opt/data/")


@dataclass(frozen=True)
class User:
    """The user that a service's container runs as.

    `uid` is None if it is not known; then `name` may be. `running` are the users of its processes now: an image that
    starts as root often goes on as another user. `all_powerful` says whether root in it may read all files.
    """

    uid: int | None = None
    gids: frozenset[int] = frozenset()
    name: str = ""
    running: frozenset[int] = frozenset()
    all_powerful: bool = True

    @property
    def is_root(self) -> bool:
        """Whether modes do not stop it: it is root, with the capabilities that root usually has in a container."""
        return self.uid == 0 and self.all_powerful

    @property
    def is_known(self) -> bool:
        """Whether its number or its name is known."""
        return self.uid is not None or bool(self.name)

    def __str__(self) -> str:
        return f"uid {self.uid}" if self.uid is not None else f"user {self.name}"


@dataclass(frozen=True)
class PathFacts:
    """Owner and mode of a path.

    `mark` names the database that keeps its data in this folder, by what is in it. `usual` is the mode of a file by its
    content and name: 644, 755 for a script, 600 for a private key.
    """

    uid: int
    gid: int
    mode: int
    mark: str = ""
    usual: int = 0o644

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder."""
        return stat.S_ISDIR(self.mode)

    def readable_by(self, user: User) -> bool | None:
        """Return whether the modes let this user read it; None if that depends on the unknown number of its name."""
        if user.is_root:
            return True
        need = 0o5 if self.is_folder else 0o4
        if user.uid is not None and user.uid == self.uid:
            return self.mode >> 6 & need == need
        shift = 3 if self.gid in user.gids else 0
        if self.mode >> shift & need == need:
            return True
        # A user with a name may be any owner but root.
        maybe = user.uid is None and self.uid != 0 and self.mode >> 6 & need == need
        return None if maybe else False


@dataclass(frozen=True)
class PathUse:
    """One use of a path by a service: `what` is "secret", "config" or "bind mount"."""

    service: str
    what: str
    path: Path
    target: str = ""
    writes: bool = False

    @property
    def keeps_data(self) -> bool:
        """Whether the service can write to it, and it is mounted where images usually keep their data."""
        return self.writes and f"{self.target.rstrip('/')}/".startswith(_DATA_PLACES)


@dataclass(frozen=True)
class ComposeRules:
    """What follows from the compose file: rules for single paths, and findings about readers."""

    special: Mapping[str, Mapping[str, PathRule]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def uses(project: Project) -> Iterator[PathUse]:
    """Yield the files of the host that each service uses. Symbolic links are followed, as the engine does."""
    for name, service in project.services.items():
        for what, _, path in project.files_of(name):
            yield PathUse(name, what, Path(os.path.realpath(path)))
        for mount in service.raw.get("volumes") or ():
            if mount.get("type") == "bind" and mount.get("source"):
                source = Path(os.path.realpath(project.directory / mount["source"]))
                yield PathUse(name, "bind mount", source, mount.get("target") or "", not mount.get("read_only"))


def declared(raw: Mapping[str, Any], image_user: str | None) -> User:
    """Return the user of a service by its compose entry, else by its image. `image_user` is None without the image.

    >>> str(declared({"user": "1000:50"}, ""))
    'uid 1000'
    >>> str(declared({}, "app")), declared({}, "").is_root, declared({}, None).is_known
    ('user app', True, False)
    """
    text = str(raw.get("user") or "") or image_user
    if text is None:
        return User()
    user, _, group = (text or "0").partition(":")
    powers = raw.get("cap_drop") or ()
    given = {str(each).upper().removeprefix("CAP_") for each in raw.get("cap_add") or ()}
    dropped = {str(each).upper().removeprefix("CAP_") for each in powers}
    powerful = not dropped & {"ALL", "DAC_OVERRIDE"} or bool(given & {"ALL", "DAC_OVERRIDE"})
    gids = {int(each) for each in (group, *(raw.get("group_add") or ())) if str(each).isdigit()}
    if user == "root" or user.isdigit():
        uid = 0 if user == "root" else int(user)
        return User(uid, frozenset(gids or {0}), all_powerful=powerful)
    return User(None, frozenset(gids), user, all_powerful=powerful)


def known(
    project: Project, root: Path, rules: Rules, users: Mapping[str, User], facts: Mapping[Path, PathFacts]
) -> ComposeRules:
    """Return the rules for the paths below `root`, and findings with what a fix will make of the paths.

    `root` and the paths are without symbolic links. `facts` has the paths that exist. `rules` are those of the
    settings.
    """
    special: dict[str, dict[str, PathRule]] = {}
    after: dict[Path, PathFacts] = {}
    for path, found in _by_path(project, facts).items():
        now, relative = facts[path], _below(path, root)
        exception = _exception(relative, now, found, rules, users) if relative else None
        if exception and relative:
            folder, _, name = relative.rpartition("/")
            special.setdefault(folder, {})[name] = exception
        after[path] = _after(now, exception, relative, rules)
    return ComposeRules(special, findings(project, root, rules.target, users, facts, after))


def findings(
    project: Project,
    root: Path,
    target: Target,
    users: Mapping[str, User],
    before: Mapping[Path, PathFacts],
    after: Mapping[Path, PathFacts],
) -> tuple[Finding, ...]:
    """Return findings about who reads the paths that exist, before and after a fix."""
    return tuple(
        finding
        for path, found in _by_path(project, before).items()
        if path in after
        for finding in _findings(_below(path, root) or str(path), before[path], after[path], found, users, target)
    )


def _by_path(project: Project, facts: Mapping[Path, PathFacts]) -> dict[Path, list[PathUse]]:
    by_path: dict[Path, list[PathUse]] = {}
    for use in uses(project):
        if use.path in facts:
            by_path.setdefault(use.path, []).append(use)
    return by_path


def _below(path: Path, root: Path) -> str | None:
    try:
        relative = path.relative_to(root)
    except ValueError:
        return None
    return str(relative) if relative.parts else None


def _exception(  # noqa: PLR0911  one for each line of the table in the documentation
    path: str, now: PathFacts, found: list[PathUse], rules: Rules, users: Mapping[str, User]
) -> PathRule | None:
    target = rules.target
    secret = any(use.what == "secret" for use in found)
    if now.is_folder:
        return _folder_exception(path, now, found, rules, users)
    keeper = next((use.service for use in found if use.keeps_data), None)
    if keeper and now.uid not in (0, target.uid):
        return PathRule(leave=_data_of(keeper, now))
    key = now.usual == 0o600 and rules.zone(path, folder=False) is PLAIN
    private = secret or key or rules.is_secret(path)
    if not private:
        return None
    others = _others(found, users, target)
    if not others:
        return PathRule(mode=0o600)
    if now.uid not in (0, target.uid) and all(user.uid in (None, now.uid) for user in others.values()):
        # It belongs to its readers, and nobody else reads it: it can't be more private.
        return PathRule(mode=0o600, keep_owner=True)
    if rules.in_secret_folder(path) or any(now.readable_by(user) for user in others.values()):
        # A container gets the file itself. On this machine, the folder around it keeps others out.
        return PathRule(mode=0o644)
    return PathRule(mode=0o600)


def _folder_exception(
    path: str, now: PathFacts, found: list[PathUse], rules: Rules, users: Mapping[str, User]
) -> PathRule | None:
    target = rules.target
    mounts = [use for use in found if use.what == "bind mount"]
    if mounts and now.mark:
        return PathRule(leave=f"it is the {now.mark} data of {mounts[0].service} (uid {now.uid})")
    if now.uid not in (0, target.uid):
        for use in mounts:
            user = users.get(use.service, User())
            if use.writes and now.uid in user.running | {user.uid}:
                return PathRule(leave=f"{use.service} keeps its data there as uid {now.uid}")
            if use.keeps_data:
                return PathRule(leave=_data_of(use.service, now))
    if rules.is_secret(path):
        readers = {use.service: users.get(use.service, User()) for use in mounts}
        names = [
            name for name, user in readers.items() if not user.is_root and user.uid != target.uid and user.is_known
        ]
        if names:
            told = ", ".join(f"{name} ({readers[name]})" for name in names)
            return PathRule(leave=f"{told} reads the whole folder as another user; give it single files as secrets")
    # Docker makes the folder, as root. The entries that the container makes in it are the container's.
    keeper = next((use.service for use in mounts if use.keeps_data), "")
    return PathRule(data=keeper) if keeper else None


def _data_of(service: str, now: PathFacts) -> str:
    return f"it is data of {service}, and its container has given it to uid {now.uid}"


def _others(found: list[PathUse], users: Mapping[str, User], target: Target) -> dict[str, User]:
    """Return the services that read it as another user than the target user, as far as that is known."""
    readers = {use.service: users.get(use.service, User()) for use in found}
    return {
        name: user for name, user in readers.items() if user.is_known and not user.is_root and user.uid != target.uid
    }


def _after(now: PathFacts, exception: PathRule | None, relative: str | None, rules: Rules) -> PathFacts:
    """Return owner and mode as they will be after a fix."""
    if relative is None or (exception and exception.leave):
        return now
    zone = rules.zone(relative, folder=now.is_folder)
    kind = stat.S_IFMT(now.mode)
    uid, gid, mode = rules.desired(zone, kind, now.uid, now.gid, stat.S_IMODE(now.mode), now.usual, exception)
    return PathFacts(uid, gid, kind | mode)


def _findings(
    path: str, now: PathFacts, after: PathFacts, found: list[PathUse], users: Mapping[str, User], target: Target
) -> Iterator[Finding]:
    by_user: dict[tuple[str, str], list[str]] = {}
    unknown = []
    for use in found:
        user = users.get(use.service, User())
        if not user.is_known:
            unknown.append(use.service)
        elif not user.is_root and (user.uid is None or user.uid != after.uid or user.uid != now.uid):
            by_user.setdefault((str(user), use.what), []).append(use.service)
    for (whom, what), services in by_user.items():
        user = users[services[0]]
        before_ok, after_ok = now.readable_by(user), after.readable_by(user)
        if user.uid is None and now.uid == after.uid and now.uid not in (0, target.uid):
            before_ok = after_ok = True  # its owner stays, and is most probably that user
        yield Finding(
            "perms.reader",
            services[0] if len(services) == 1 else None,
            PHASE,
            _status(before_ok, after_ok),
            f"{path}: {', '.join(services)} {'reads' if len(services) == 1 else 'read'} this {what} as {whom}",
            f"before: owner {now.uid}:{now.gid}, mode {stat.S_IMODE(now.mode):03o}, {_can(before_ok)}; "
            f"after: owner {after.uid}:{after.gid}, mode {stat.S_IMODE(after.mode):03o}, {_can(after_ok)}",
            _remedy(path, after, after_ok),
        )
    if unknown and any(use.what == "secret" for use in found):
        yield Finding(
            "perms.reader",
            unknown[0] if len(unknown) == 1 else None,
            PHASE,
            "skip",
            f"{path}: the user that {', '.join(unknown)} {'reads' if len(unknown) == 1 else 'read'} it as is not known",
            "the image is not here, or the engine does not answer",
        )


def _status(before: bool | None, after: bool | None) -> Status:
    if after is None:
        return "skip"
    if not after:
        return "fail"
    return "warn" if before is False else "ok"


def _can(yes: bool | None) -> str:
    if yes is None:
        return "can be read if that is its owner"
    return "can be read" if yes else "can NOT be read"


def _remedy(path: str, after: PathFacts, readable: bool | None) -> str:
    if readable is None:
        return "name the user by its number (`user:`), or start the service: its processes tell"
    return "" if readable else f"let it run as uid {after.uid} (`user:`), or make {path} readable to it by hand"
