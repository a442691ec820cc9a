"""Mounted files (secrets, configs and single files), and whether they changed since a container started.

A bind mount of a file is a mount of its inode (https://docs.docker.com/engine/storage/bind-mounts/). An editor, a
deployment or `git` puts a new file in its place, and the container still sees the old one.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project

# Files that a container itself writes: their changes are no reason to restart.
_WRITTEN = ("*.log", "*.db", "*.sqlite", "*.sqlite3", "*.pid", "*.lock", "acme.json", "*_history")


@dataclass(frozen=True)
class MountedFile:
    """One file that is mounted into a service. No digest of it is kept: it may be a secret."""

    path: Path
    what: str


@dataclass(frozen=True)
class FileStat:
    """The metadata of a file; nothing of its content, not even a digest."""

    size: int
    mtime_ns: int
    inode: int

    @property
    def text(self) -> str:
        """The metadata as it is kept in the state folder."""
        return f"{self.size} {self.mtime_ns} {self.inode}"


def mounted_files(project: Project, name: str) -> list[MountedFile]:
    """Return the files that are mounted into a service, whose changes its containers do not see."""
    found = [MountedFile(path, f"{what} {key}") for what, key, path in project.files_of(name)]
    for entry in project.services[name].raw.get("volumes") or ():
        path = Path(entry.get("source") or "")
        if entry.get("type") != "bind" or not path.is_file():
            continue
        if entry.get("read_only") or not any(fnmatch(path.name, each) for each in _WRITTEN):
            found.append(MountedFile(path, f"file {path.name}"))
    return found


def file_stats(project: Project, names: Collection[str]) -> dict[str, FileStat | None]:
    """Return the metadata of every file that is mounted into these services, by path; None where it is missing."""
    return {str(file.path): _read_stat(file.path) for name in names for file in mounted_files(project, name)}


def changed(
    project: Project,
    containers: Mapping[str, Collection[Container]],
    now: Mapping[str, FileStat | None],
    seen: Mapping[str, Mapping[str, str]],
    offset: timedelta = timedelta(),
) -> dict[str, str]:
    """Return the services that run with a file which has changed since their start, each with the cause.

    `seen` has for each run of a container the metadata of its files at the start. For a run that is not in there, a
    file counts as changed when it was written after the start; `offset` is how far the engine's clock is ahead of this
    machine's.
    """
    causes: dict[str, str] = {}
    for name in project.services:
        mine = mounted_files(project, name)
        for container in containers.get(name, ()):
            for file in mine:
                if name not in causes and _is_newer(container, file, now, seen.get(container.run_key, {}), offset):
                    causes[name] = f"{file.what} changed since its start"
    return causes


def runs_to_remember(
    project: Project,
    containers: Collection[Container],
    stats_before: Mapping[str, FileStat | None],
    known: Mapping[str, Mapping[str, str]],
    offset: timedelta = timedelta(),
) -> dict[str, dict[str, str]]:
    """Return the metadata of the files of each run of a container, as they were at its start.

    `stats_before` were read before anything was started: a file that changes while a container starts then counts as
    changed, which costs a restart; the other way round a change would be missed. A container without a moment of start
    was not inspected, because this run has not started it. `offset` as in `changed`.
    """
    found: dict[str, dict[str, str]] = {}
    for container in containers:
        if container.service not in project.services:
            continue
        if container.started_at is None:
            found |= {run: dict(files) for run, files in known.items() if run.startswith(f"{container.id} ")}
            continue
        mine = {str(file.path): stats_before.get(str(file.path)) for file in mounted_files(project, container.service)}
        texts = {path: status.text for path, status in mine.items() if status}
        if container.run_key in known:
            found[container.run_key] = dict(known[container.run_key])
        elif texts and all(status is None or _written_before(status, container, offset) for status in mine.values()):
            found[container.run_key] = texts
    return found


def _is_newer(
    container: Container,
    file: MountedFile,
    now: Mapping[str, FileStat | None],
    remembered: Mapping[str, str],
    offset: timedelta,
) -> bool:
    status = now.get(str(file.path))
    if status is None:
        return True  # it is missing, which the start reports
    if str(file.path) in remembered:
        return remembered[str(file.path)] != status.text
    return not _written_before(status, container, offset)


def _written_before(status: FileStat, container: Container, offset: timedelta) -> bool:
    return container.started_at is None or status.mtime_ns / 1e9 <= (container.started_at - offset).timestamp()


def _read_stat(path: Path) -> FileStat | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # The time of a folder changes with its entries, which its containers do see.
    is_file = stat.S_ISREG(found.st_mode)
    return FileStat(found.st_size, found.st_mtime_ns, found.st_ino) if is_file else FileStat(0, 0, found.st_ino)
