"""The files of this machine that services use: bind mounts, secrets, configs; and what is seen of these files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stackhand.engine.compose.project import Project, Service
from stackhand.perms.policy.rules import PathRule
from stackhand.perms.policy.users import User

# The folders of a container where images usually keep their data.
_DATA_PLACES = ("/var/lib/", "/data/", "/bitnami/", "/qdrant/", "/var/opt/", "/opt/data/")


@dataclass(frozen=True)
class PathFacts:
    """Owner and mode of a path.

    `mark` names the database that keeps its data in this folder, by what is in it. `usual` is the mode of a file by its
    content and name: 644, 755 for a script, 600 for a private key. `listed_uids` and `listed_gids` are the users and
    groups that its access control list lets read. `inner` are some entries of a folder that a strict program reads, and
    their owners.
    """

    uid: int
    gid: int
    mode: int
    mark: str = ""
    usual: int = 0o644
    listed_uids: frozenset[int] = frozenset()
    listed_gids: frozenset[int] = frozenset()
    inner: tuple[tuple[str, int], ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_closed(self) -> bool:
        """Whether others may not read it: neither its owner nor of its group."""
        return not self.mode & 0o004

    def lists(self, user: User) -> bool:
        """Return whether the access control list lets this user read it, whatever the mode."""
        return user.uid in self.listed_uids or bool(user.gids & self.listed_gids)

    def readable_by(self, user: User) -> bool | None:
        """Return whether the modes let this user read it; None if that depends on the unknown number of its name."""
        if user.is_root:
            return True
        need = 0o5 if self.is_folder else 0o4
        if user.uid is not None and user.uid == self.uid:
            return self.mode >> 6 & need == need
        if self.lists(user):
            return True
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


def uses(project: Project) -> Iterator[PathUse]:
    """Yield the files of the host that each service uses. Symbolic links are followed, as the engine does."""
    for name, service in project.services.items():
        for what, key, path in project.files_of(name):
            yield PathUse(name, what, Path(os.path.realpath(path)), _target(service, what, key))
        for mount, writes in _mounts(project, name):
            source = mount.get("source") or ""
            if mount.get("type") == "volume" and source in project.volumes:
                source = project.volumes[source].folder
            elif mount.get("type") != "bind":
                source = ""
            if source:
                path = Path(os.path.realpath(project.directory / source))
                yield PathUse(name, "bind mount", path, mount.get("target") or "", writes)


def _mounts(
    project: Project, name: str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield the mounts of a service, and whether it may write to them: its own, and those that it takes from others."""
    raw = project.services[name].raw
    for mount in raw.get("volumes") or ():
        yield mount, not mount.get("read_only")
    for entry in raw.get("volumes_from") or ():
        other, _, how = str(entry).partition(":")
        if other in project.services and other not in above:
            for mount, writes in _mounts(project, other, above | {name}):
                yield mount, writes and how != "ro"


def _target(service: Service, what: str, key: str) -> str:
    entries = service.raw.get(f"{what}s") or ()
    target = next((each.get("target") for each in entries if each.get("source") == key), None) or key
    return str(PurePosixPath("/run/secrets" if what == "secret" else "/") / target)


def mounted(covering: Iterable[PathUse], users: Mapping[str, User]) -> PathRule | None:
    """Return the rule for what containers made in a folder; None if nobody mounts it. `covering` are all its mounts.

    Docker makes a folder that is missing, as root. So the owner of the folder itself tells nothing.
    """
    mounts = [use for use in covering if use.what == "bind mount"]
    if not mounts:
        return None
    keeper = next((use.service for use in mounts if use.keeps_data), None)
    if keeper is not None:
        return PathRule(data=keeper)
    writer = next((use for use in mounts if use.writes), None)
    uids = frozenset[int]().union(*(users.get(use.service, User()).uids for use in mounts))
    return PathRule(data=(writer or mounts[0]).service, uids=uids, writes=writer is not None)
