"""Which containers of a project were made from another folder: two folders can have one project name.

Compose finds containers by the project's name alone, which is the name of the folder if nothing else is said. It writes
the folder and the files that a container was made from on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from stackhand.engine.compose.project import Project
from stackhand.errors import ForeignContainers, OtherFolder

HINT = "give this project a name of its own (`name:` in the compose file, or COMPOSE_PROJECT_NAME)"


class _Made(Protocol):
    @property
    def service(self) -> str: ...
    @property
    def made_in(self) -> str: ...
    @property
    def made_from(self) -> str: ...


def made_elsewhere(project: Project, containers: Iterable[_Made]) -> dict[str, str]:
    """Return, by service, the other folder than the project's that some of these containers were made from.

    That folder has to be there still, with the compose file: otherwise the project was moved or renamed, or made from
    another machine or in a container, where paths are others. Symbolic links and mounts lead to the same folder.
    """
    found: dict[str, str] = {}
    for each in _foreign(project, containers):
        found.setdefault(each.service, each.made_in)
    return found


class Takeover:
    """Whether a run may change containers that were made from another folder. `ask` is called once for each folder.

    It gets what is the matter, and raises that, or another error, unless somebody agrees. Nobody does by default.
    """

    def __init__(self) -> None:
        self.ask: Callable[[OtherFolder], None] = _nobody_agrees
        self._agreed: set[str] = set()
        self._lock = threading.Lock()

    def check(self, project: Project, others: Mapping[str, str]) -> None:
        """Ask about services whose containers are about to be changed; `others` has the other folder of each.

        Raises OtherFolder, or what `ask` raises.
        """
        with self._lock:
            new = {name: folder for name, folder in others.items() if folder not in self._agreed}
            if new:
                were = "was" if len(new) == 1 else "were"
                self.ask(
                    OtherFolder(
                        f"{', '.join(new)} {were} started {_from(project, new.values())}",
                        f"{HINT}; --yes takes over what would be changed",
                    )
                )
                self._agreed.update(new.values())


def refuse(project: Project, containers: Iterable[_Made]) -> None:
    """Raise ForeignContainers if one of these containers was made from another folder."""
    folders = [each.made_in for each in _foreign(project, containers)]
    if folders:
        raise ForeignContainers(
            f"containers were started {_from(project, folders)}; nothing was removed",
            f"run the reset there, or {HINT}",
        )


def _foreign(project: Project, containers: Iterable[_Made]) -> Iterator[_Made]:
    known: dict[tuple[str, str], bool] = {}
    for each in containers:
        place = (each.made_in, each.made_from)
        if place not in known:
            known[place] = bool(each.made_in) and _is_another(project, Path(each.made_in), each.made_from.split(",")[0])
        if known[place]:
            yield each


def _from(project: Project, folders: Iterable[str]) -> str:
    return f"from another folder with the project name {project.name}: {', '.join(sorted(set(folders)))}"


def _nobody_agrees(error: OtherFolder) -> None:
    raise error


def _is_another(project: Project, folder: Path, file: str) -> bool:
    own = project.files[0] if project.files else None
    if _same(folder, own.parent if own else project.directory):
        return False
    there = Path(file) if Path(file).is_absolute() else folder
    # A link to a file that several projects use is a file of its own.
    if own and there.name == own.name and _same(there.parent, own.parent):
        return False
    return _exists(there)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # of a user who lets nobody look
    return True
