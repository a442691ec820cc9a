"""The containers, networks and volumes of one Compose project, found by label and never by name; and removing them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.sdk import ContainerGone, errors
from stackhand.engine.compose.labels import FILES_LABEL, FOLDER_LABEL, ONEOFF_LABEL, PROJECT_LABEL, SERVICE_LABEL

# Engine 23 and newer label a volume without a given name (moby #44216). Before, only the hash as its name tells.
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@dataclass(frozen=True)
class ContainerUse:
    """One container, and the volumes and networks that it uses. `project` is empty if Compose did not make it.

    `volumes` maps the name of each volume to its mount point in the container. `made_in` and `made_from` as in
    `containers.Container`.
    """

    id: str
    name: str
    project: str = ""
    service: str = ""
    one_off: bool = False
    running: bool = False
    volumes: Mapping[str, str] = field(default_factory=dict, hash=False)
    networks: frozenset[str] = frozenset()
    made_in: str = ""
    made_from: str = ""

    @property
    def owner(self) -> str:
        """Who owns it, in words."""
        return f"project {self.project}" if self.project else "no Compose project"


@dataclass(frozen=True)
class Resource:
    """A volume or a network; `project` is empty if Compose did not make it."""

    id: str
    name: str
    project: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def anonymous(self) -> bool:
        """Whether this is a volume without a given name."""
        return _ANONYMOUS_LABEL in self.labels or bool(_ANONYMOUS.fullmatch(self.name))


@dataclass(frozen=True)
class VolumeDefinition:
    """What a volume is made of: `driver` and `driver_opts` of the compose file."""

    driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ProjectResources:
    """The containers, networks and volumes of a project, and all other containers of the engine."""

    containers: tuple[ContainerUse, ...] = ()
    networks: tuple[Resource, ...] = ()
    volumes: tuple[Resource, ...] = ()
    others: tuple[ContainerUse, ...] = ()


def read(engine: Engine, project: str, declared: Collection[str] = ()) -> ProjectResources:
    """Return a project's resources.

    Its volumes are those with its label, those that its containers mount, and the `declared` ones of its compose file.
    """
    with errors():
        containers = [_container(entry) for entry in engine.api.containers(all=True)]
        volumes = [_resource(entry, entry["Name"]) for entry in engine.api.volumes()["Volumes"] or ()]
    own = sorted((container for container in containers if container.project == project), key=lambda own: own.name)
    used = {volume for container in own for volume in container.volumes} | set(declared)
    own_networks = [network for network in networks(engine) if network.project == project]
    own_volumes = [volume for volume in volumes if volume.project == project or volume.name in used]
    return ProjectResources(
        tuple(own),
        tuple(sorted(own_networks, key=lambda network: network.name)),
        tuple(sorted(own_volumes, key=lambda volume: (volume.anonymous, volume.name))),
        tuple(container for container in containers if container.project != project),
    )


def networks(engine: Engine) -> list[Resource]:
    """Return all networks of the engine."""
    with errors():
        return [_resource(entry, entry["Id"]) for entry in engine.api.networks()]


def volume_definitions(engine: Engine, project: str) -> dict[str, VolumeDefinition]:
    """Return what each volume of a project was made of, by its name in the engine."""
    with errors():
        found = engine.api.volumes(filters={"label": f"{PROJECT_LABEL}={project}"})["Volumes"] or []
    return {each["Name"]: VolumeDefinition(each.get("Driver") or "local", each.get("Options") or {}) for each in found}


def stop(engine: Engine, container: str) -> None:
    """Stop a container, with its own stop timeout."""
    with suppress(ContainerGone):
        engine.stop(container)


def remove_container(engine: Engine, container: str, *, volumes: bool) -> None:
    """Remove a container, running or not; with `volumes` its anonymous volumes, too."""
    with suppress(ContainerGone), errors():
        engine.api.remove_container(container, v=volumes, force=True)


def remove_network(engine: Engine, network: str) -> None:
    """Remove a network. Raises StackError if a container is still on it."""
    with suppress(ContainerGone), errors():
        engine.api.remove_network(network)


def definition(engine: Engine, network: str) -> Mapping[str, Any]:
    """Return the engine's own description of a network, to make it again with `restore_network`."""
    with errors():
        found: Mapping[str, Any] = engine.api.inspect_network(network)
        return found


def restore_network(engine: Engine, definition: Mapping[str, Any]) -> None:
    """Make a network that was removed again, as `definition` describes it. Raises StackError."""
    with errors():
        engine.api.create_network(
            definition["Name"],
            driver=definition.get("Driver"),
            options=definition.get("Options"),
            ipam=definition.get("IPAM"),
            internal=bool(definition.get("Internal")),
            labels=definition.get("Labels"),
            enable_ipv6=bool(definition.get("EnableIPv6")),
            attachable=definition.get("Attachable"),
        )


def remove_volume(engine: Engine, volume: str) -> None:
    """Remove a volume and all its data. Raises StackError if a container still uses it."""
    with suppress(ContainerGone), errors():
        engine.api.remove_volume(volume)


def _container(entry: Mapping[str, Any]) -> ContainerUse:
    labels: Mapping[str, str] = entry.get("Labels") or {}
    attached: Mapping[str, Any] = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerUse(
        id=entry["Id"],
        name=str((entry.get("Names") or [entry["Id"][:12]])[0]).lstrip("/"),
        project=labels.get(PROJECT_LABEL, ""),
        service=labels.get(SERVICE_LABEL, ""),
        one_off=labels.get(ONEOFF_LABEL, "").lower() == "true",
        running=entry.get("State") in ("running", "restarting", "paused"),
        volumes=dict(_volumes(entry.get("Mounts") or ())),
        networks=frozenset(attached),
        made_in=labels.get(FOLDER_LABEL, ""),
        made_from=labels.get(FILES_LABEL, ""),
    )


def _volumes(mounts: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    for mount in mounts:
        if mount.get("Type") == "volume" and mount.get("Name"):
            yield str(mount["Name"]), str(mount.get("Destination") or "")


def _resource(entry: Mapping[str, Any], id: str) -> Resource:
    labels: Mapping[str, str] = entry.get("Labels") or {}
    return Resource(id, entry["Name"], labels.get(PROJECT_LABEL, ""), labels)
