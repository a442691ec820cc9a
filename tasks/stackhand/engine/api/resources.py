"""What the engine has of one Compose project, by label and never by the look of a name; and removing it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.sdk import ContainerGone, errors
from stackhand.engine.compose import project as model

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@dataclass(frozen=True)
class ContainerUse:
    """One container, as far as it holds volumes and networks. `project` is empty where Compose did not make it.

    `volumes` maps each volume's name to the place in the container that it is mounted on.
    """

    id: str
    name: str
    project: str = ""
    service: str = ""
    one_off: bool = False
    running: bool = False
    volumes: Mapping[str, str] = field(default_factory=dict, hash=False)
    networks: frozenset[str] = frozenset()

    @property
    def owner(self) -> str:
        """Whose it is, in words."""
        return f"project {self.project}" if self.project else "no Compose project"


@dataclass(frozen=True)
class Resource:
    """A volume or a network in the engine; `project` is empty where Compose did not make it."""

    id: str
    name: str
    project: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def anonymous(self) -> bool:
        """Whether this is a volume that nobody gave a name."""
        return _ANONYMOUS_LABEL in self.labels or bool(_ANONYMOUS.fullmatch(self.name))


@dataclass(frozen=True)
class ProjectResources:
    """The containers, networks and volumes of a project, and the containers that are not of it."""

    containers: tuple[ContainerUse, ...] = ()
    networks: tuple[Resource, ...] = ()
    volumes: tuple[Resource, ...] = ()
    others: tuple[ContainerUse, ...] = ()


def read(engine: Engine, project: str, declared: Collection[str] = ()) -> ProjectResources:
    """Return what the engine has of a project; volumes that its compose file declares or its containers mount count."""
    with errors():
        listed = [_held(entry) for entry in engine.api.containers(all=True)]
        networks = [_kept(entry, entry["Id"]) for entry in engine.api.networks()]
        volumes = [_kept(entry, entry["Name"]) for entry in engine.api.volumes()["Volumes"] or ()]
    mine = sorted((each for each in listed if each.project == project), key=lambda each: each.name)
    mounted = {name for each in mine for name in each.volumes}
    return ProjectResources(
        tuple(mine),
        tuple(sorted((each for each in networks if each.project == project), key=lambda each: each.name)),
        tuple(
            sorted(
                (each for each in volumes if each.project == project or each.name in mounted | set(declared)),
                key=lambda each: (each.anonymous, each.name),
            )
        ),
        tuple(each for each in listed if each.project != project),
    )


def stop(engine: Engine, container: str) -> None:
    """Stop a container, with the time that it has for it."""
    with suppress(ContainerGone), errors():
        engine.api.stop(container)


def remove_container(engine: Engine, container: str, *, volumes: bool) -> None:
    """Remove a container, running or not; with `volumes` those of its volumes that have no name."""
    with suppress(ContainerGone), errors():
        engine.api.remove_container(container, v=volumes, force=True)


def remove_network(engine: Engine, network: str) -> None:
    """Remove a network. Raises StackError where something is still on it."""
    with suppress(ContainerGone), errors():
        engine.api.remove_network(network)


def remove_volume(engine: Engine, volume: str) -> None:
    """Remove a volume with all that is in it. Raises StackError where a container still has it."""
    with suppress(ContainerGone), errors():
        engine.api.remove_volume(volume)


def _held(entry: Mapping[str, Any]) -> ContainerUse:
    labels: Mapping[str, str] = entry.get("Labels") or {}
    attached: Mapping[str, Any] = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerUse(
        id=entry["Id"],
        name=str((entry.get("Names") or [entry["Id"][:12]])[0]).lstrip("/"),
        project=labels.get(model.PROJECT_LABEL, ""),
        service=labels.get(model.SERVICE_LABEL, ""),
        one_off=labels.get(model.ONEOFF_LABEL, "").lower() == "true",
        running=entry.get("State") in ("running", "restarting", "paused"),
        volumes=dict(_volumes(entry.get("Mounts") or ())),
        networks=frozenset(attached),
    )


def _volumes(mounts: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    for mount in mounts:
        if mount.get("Type") == "volume" and mount.get("Name"):
            yield str(mount["Name"]), str(mount.get("Destination") or "")


def _kept(entry: Mapping[str, Any], number: str) -> Resource:
    labels: Mapping[str, str] = entry.get("Labels") or {}
    return Resource(number, entry["Name"], labels.get(model.PROJECT_LABEL, ""), labels)
