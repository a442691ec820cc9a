"""Volumes of the engine: who uses them, and a helper container to run a script in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.api.helper import Helper
from stackhand.engine.api.sdk import errors
from stackhand.engine.compose.labels import PROJECT_LABEL, SERVICE_LABEL
from stackhand.engine.host import mounts

_VOLUME_LABEL = "com.docker.compose.volume"
INSIDE = "/stackhand-volume"


@dataclass(frozen=True)
class Volume:
    """One volume, by the engine's name.

    `mountpoint` is its folder on the engine's machine. `users` are the services (or containers) that mount it,
    `running` those that run, and `images` their images. It `is_plain` if its data lie in that folder, and are not
    mounted there.
    """

    name: str
    mountpoint: str
    users: tuple[str, ...]
    running: tuple[str, ...]
    images: tuple[str, ...]
    is_plain: bool = True

    @property
    def is_mounted(self) -> bool:
        """Whether something is mounted on its folder on this machine."""
        folder = Path(self.mountpoint)
        return folder.name in mounts.below(folder.parent)


def find_volume(engine: Engine, project: str | None, name: str) -> Volume | None:
    """Return the volume by the name that the project has for it, else by the engine's name; None if there is none."""
    with errors():
        mine: list[dict[str, Any]] = []
        if project:
            labels = [f"{PROJECT_LABEL}={project}", f"{_VOLUME_LABEL}={name}"]
            mine = engine.api.volumes(filters={"label": labels})["Volumes"] or []
        found = mine or [each for each in engine.api.volumes()["Volumes"] or [] if each["Name"] == name]
        if not found:
            return None
        exact = found[0]["Name"]
        containers = engine.api.containers(all=True, filters={"volume": exact})
    called = {
        each["Id"]: (each.get("Labels") or {}).get(SERVICE_LABEL) or each["Names"][0].lstrip("/") for each in containers
    }
    running = [called[each["Id"]] for each in containers if each["State"] == "running"]
    return Volume(
        exact,
        found[0].get("Mountpoint") or "",
        tuple(sorted(set(called.values()))),
        tuple(sorted(set(running))),
        tuple(dict.fromkeys(each["ImageID"] for each in containers)),
        found[0].get("Driver", "local") == "local" and not found[0].get("Options"),
    )


def volume_names(engine: Engine, project: str | None) -> list[str]:
    """Return the project's names of its volumes; without a project, the names of all volumes."""
    with errors():
        labels = [f"{PROJECT_LABEL}={project}"] if project else []
        found = engine.api.volumes(filters={"label": labels})["Volumes"] or []
    return sorted((each.get("Labels") or {}).get(_VOLUME_LABEL) or each["Name"] for each in found)


def run_in_volume(engine: Engine, volume: str, image: str, script: str, *, writes: bool) -> ExecResult:
    """Run a shell script as root in a helper container that has nothing but the volume, read-only unless it `writes`.

    There is no time limit: a volume may be large.
    """
    bind = f"{volume}:{INSIDE}:{'rw' if writes else 'ro'}"
    return engine.run_helper(Helper(image, ("/bin/sh", "-c", script), "perms", binds=(bind,)))
