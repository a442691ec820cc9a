"""Files that containers are given: secrets, configs and single files that are mounted, and whether they changed.

A container sees such a file as it was when the container started: an editor, a deployment or `git` puts a new file in
its place, and the old one stays mounted.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project

# Files that a container itself writes: when such a one changes, nobody has to restart for it.
_WRITTEN = ("*.log", "*.db", "*.sqlite", "*.sqlite3", "*.pid", "*.lock", "acme.json", "*_history")


@dataclass(frozen=True)
class File:
    """One file that a service is given. Of secrets nothing may be remembered that tells their content."""

    path: Path
    what: str


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; nothing of its content, not even a digest."""

    size: int
    mtime_ns: int
    inode: int

    @property
    def text(self) -> str:
        """The stamp as it is remembered."""
        return f"{self.size} {self.mtime_ns} {self.inode}"


def files(project: Project, name: str) -> list[File]:
    """Return the files that a service is given, whose changes its containers do not see."""
    found = [File(path, f"{what} {key}") for what, key, path in project.files_of(name)]
    for entry in project.services[name].raw.get("volumes") or ():
        path = Path(entry.get("source") or "")
        if entry.get("type") != "bind" or not path.is_file():
            continue
        if entry.get("read_only") or not any(fnmatch(path.name, each) for each in _WRITTEN):
            found.append(File(path, f"file {path.name}"))
    return found


def stamps(project: Project, names: Collection[str]) -> dict[str, Stamp | None]:
    """Return the stamp of every file that these services are given, by path; None where it is not there."""
    return {str(file.path): _stamp(file.path) for name in names for file in files(project, name)}


def changed(
    project: Project,
    containers: Mapping[str, Collection[Container]],
    now: Mapping[str, Stamp | None],
    seen: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """Return the services that run with a file which has changed since their start, each with the cause.

    `seen` holds what is remembered of the runs of containers: the stamp of each file at the start. Of a run that is not
    in there, a file counts as changed when it was written after the start.
    """
    causes: dict[str, str] = {}
    for name in project.services:
        mine = files(project, name)
        for container in containers.get(name, ()):
            for file in mine:
                if name not in causes and _is_newer(container, file, now, seen.get(container.run_key, {})):
                    causes[name] = f"{file.what} changed since its start"
    return causes


def runs_to_remember(
    project: Project,
    containers: Collection[Container],
    stamps_before: Mapping[str, Stamp | None],
    known: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
    """Return the files of each run of a container, as they were at its start.

    `stamps_before` were read before anything was started: a file that changes while a container starts then counts as
    changed, which costs a restart; the other way round a change would be missed. A container whose moment of start was
    not looked at is one that has not been started anew.
    """
    found: dict[str, dict[str, str]] = {}
    for container in containers:
        if container.service not in project.services:
            continue
        if container.started_at is None:
            found |= {run: dict(files) for run, files in known.items() if run.startswith(f"{container.id} ")}
            continue
        mine = {str(file.path): stamps_before.get(str(file.path)) for file in files(project, container.service)}
        texts = {path: stamp.text for path, stamp in mine.items() if stamp}
        if container.run_key in known:
            found[container.run_key] = dict(known[container.run_key])
        elif texts and all(stamp is None or _written_before(stamp, container) for stamp in mine.values()):
            found[container.run_key] = texts
    return found


def _is_newer(container: Container, file: File, now: Mapping[str, Stamp | None], remembered: Mapping[str, str]) -> bool:
    stamp = now.get(str(file.path))
    if stamp is None:
        return True  # gone: whoever starts it will be told
    if str(file.path) in remembered:
        return remembered[str(file.path)] != stamp.text
    return not _written_before(stamp, container)


def _written_before(stamp: Stamp, container: Container) -> bool:
    return container.started_at is None or stamp.mtime_ns / 1e9 <= container.started_at.timestamp()


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # A folder's time changes with what is put into it, which its containers do see.
    is_file = stat.S_ISREG(status.st_mode)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino) if is_file else Stamp(0, 0, status.st_ino)
