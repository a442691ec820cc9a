"""The reset: what goes and what stays of a project, decided from facts, listed, and removed.

A volume with a name stays in a soft reset, unless it is surely a cache or its label says that it may go: what it holds
nobody knows for sure, it can be removed by hand at any time, and brought back never.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stackhand.engine.api import resources
from stackhand.engine.api.client import Engine
from stackhand.engine.api.resources import ContainerUse, ProjectResources, Resource
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project, Service, Volume
from stackhand.errors import ResetFailed, StackError, VolumeInUse
from stackhand.graph import schedule
from stackhand.kinds.data_volumes import is_data_place, surely_cache
from stackhand.kinds.registry import data_kind
from stackhand.model import Action, Plan
from stackhand.services.reset.journal import Mode

What = Literal["container", "provider", "network", "volume", "bind mount"]

KEEP_LABEL = "stackhand.keep"


@dataclass(frozen=True)
class Item:
    """One thing that goes or stays, and why. `volumes` says of a container that its nameless volumes go with it."""

    what: What
    name: str
    goes: bool
    reason: str
    id: str = ""
    volumes: bool = False

    def __str__(self) -> str:
        return f"{self.what} {self.name}: {self.reason}"

    def to_json(self) -> dict[str, str]:
        """Return the item for the document of a reset."""
        return {"what": self.what, "name": self.name, "reason": self.reason}


@dataclass(frozen=True)
class Reset:
    """What a reset would do: all that goes and all that stays, and the services to start afterwards.

    `resumes` is the mode of an earlier reset that was interrupted; this one goes on from there.
    """

    project: str
    mode: Mode
    items: tuple[Item, ...]
    names: tuple[str, ...] = ()
    resumes: Mode | None = None

    @property
    def going(self) -> list[Item]:
        """What is removed."""
        return [item for item in self.items if item.goes]

    @property
    def staying(self) -> list[Item]:
        """What is left."""
        return [item for item in self.items if not item.goes]

    def plan(self) -> Plan:
        """Return the reset as a plan, for `--dry`."""
        return Plan(
            (
                *(Action(item.name, f"remove {item.what}", item.reason) for item in self.going),
                *(Action(item.name, f"keep {item.what}", item.reason) for item in self.staying),
                *(Action(name, "start", "everything is started again") for name in self.names),
            )
        )


def decide(
    project: Project, seen: ProjectResources, mode: Mode, names: Sequence[str] = (), *, resumes: Mode | None = None
) -> Reset:
    """Return what goes and what stays. Raises VolumeInUse.

    `project` has the services of all profiles: also what is not active now may hold data.
    """
    volumes = {each.name: _volume(project, seen, mode, each) for each in seen.volumes}
    containers = [_container(project, seen, each, volumes) for each in seen.containers]
    pairs = zip(seen.containers, containers, strict=True)
    held = {network for each, item in pairs if not item.goes for network in each.networks}
    networks = [_network(seen, each, held) for each in seen.networks]
    for name, item in volumes.items():
        for other in seen.others:
            if item.goes and name in other.volumes:
                raise VolumeInUse(
                    f"volume {name} is used by container {other.name} of {other.owner}: nothing was removed",
                    f"remove that container first (`docker rm {other.name}`), or declare the volume `external: true`",
                )
    own = {each.name for each in seen.networks}
    outside = [
        Item("network", name, False, "not made by this project")
        for name in sorted(set(project.networks.values()) - own)
        if any(name in each.networks for each in seen.containers)
    ]
    return Reset(
        project.name,
        mode,
        (*containers, *_providers(project), *networks, *outside, *volumes.values(), *_bind_mounts(project)),
        tuple(names),
        resumes,
    )


def read(engine: Engine, project: Project) -> ProjectResources:
    """Return what the engine has of a project."""
    return resources.read(engine, project.name, [each.name for each in project.volumes.values()])


def remove(
    reset: Reset, compose: Compose, engine: Engine, project: Project, tell: Callable[[str, str, str], None]
) -> list[Item]:
    """Remove what goes; return what is really gone. Raises ResetFailed when something is still there.

    `tell` takes what is worked on, how it stands (`wait`, `ok`) and a text.
    """
    there = read(engine, project)
    running = [each for each in there.containers if each.running]
    if running:
        tell("containers", "wait", "stopping")
        # In order and with the time that each service has; then those that the compose file does not know.
        compose.stop([])
        stubborn = [each.id for each in read(engine, project).containers if each.running]
        _side_by_side(stubborn, lambda number: resources.stop(engine, number))
    problems: list[str] = []
    left: list[Item] = []
    for what, act in _removals(engine, compose):
        mine = [item for item in reset.going if item.what == what]
        if mine:
            tell(f"{what}s", "wait", "removing")
            wrong = _side_by_side(mine, act)
            problems += wrong
            # Only a provider itself knows what is left of what it made.
            left += mine if wrong and what == "provider" else []
            tell(f"{what}s", "ok", f"{len(mine)} removed")
    now = read(engine, project)
    left_over = {each.id for each in now.containers} | {each.id for each in (*now.networks, *now.volumes)}
    still = left + [item for item in reset.going if item.id in left_over]
    if still:
        why = f": {problems[0]}" if problems else ""
        raise ResetFailed(
            f"still there: {', '.join(f'{item.what} {item.name}' for item in still)}{why}",
            "the same reset, called again, goes on with what is left",
            foreign=problems[0] if problems else "",
        )
    return reset.going


def _volume(project: Project, seen: ProjectResources, mode: Mode, volume: Resource) -> Item:
    # Two keys of the compose file may have one name.
    declared = {key: each for key, each in project.volumes.items() if each.name == volume.name}
    name = f"{volume.name[:12]} (without a name)" if volume.anonymous else volume.name
    stays = _not_ours(project, declared.values(), volume)
    if stays:
        return Item("volume", name, False, stays, volume.name)
    goes, reason = _content(project, seen, mode, volume, declared)
    return Item("volume", name, goes, reason, volume.name)


def _content(
    project: Project, seen: ProjectResources, mode: Mode, volume: Resource, declared: Mapping[str, Volume]
) -> tuple[bool, str]:
    """Return whether a volume of this project goes, by what it may hold, and the reason."""
    places, unknown = _users(project, seen, volume, declared)
    kinds = {user: kind for user in sorted(places) if (kind := data_kind(project.services[user]))}
    held = _held(kinds)
    used = f"of {', '.join(sorted(places))}" if places else "no service mounts it"
    if mode == "full":
        return True, held or used
    label = _label(volume, declared.values())
    if label is not None:
        return not label, f"label {KEEP_LABEL}={str(label).lower()}"
    doubt = f"{', '.join(unknown)} mounts it and is not in the compose file" if unknown else "" if places else used
    if held or doubt:
        return False, held or f"{doubt}: what it holds is not known"
    cache = _surely_cache(project, volume, declared, places)
    if cache:
        return True, f"{used}, {cache}"
    how = "give it a name" if volume.anonymous else f"label it {KEEP_LABEL}=false if not"
    return False, f"{used}, may hold data; {how}"


def _held(kinds: Mapping[str, str]) -> str:
    """Return in words whose data a volume holds, by the kind of each service that mounts it; "" for nobody's."""
    users = {kind: [user for user, of in kinds.items() if of == kind] for kind in kinds.values()}
    return "holds " + " and ".join(f"{kind} data of {', '.join(some)}" for kind, some in users.items()) if users else ""


def _label(volume: Resource, declared: Iterable[Volume]) -> bool | None:
    """Return what the label says about keeping a volume: in the compose file, else in the engine; None for nothing."""
    for labels in ([each.labels for each in declared], [volume.labels]):
        said = [each[KEEP_LABEL].lower() for each in labels if KEEP_LABEL in each]
        if said:
            return any(each != "false" for each in said)
    return None


def _surely_cache(
    project: Project, volume: Resource, keys: Collection[str], places: Mapping[str, set[tuple[str, str]]]
) -> str:
    """Return why a volume surely holds nothing to lose; "" in any doubt."""
    mounts = {(user, target) for user, some in places.items() for _, target in some}
    targets = {target for _, target in mounts}
    cache = min((surely_cache(key, targets) for key in keys or ("",)), default="")
    if cache or not volume.anonymous:
        return cache
    # The image's own volume holds what the program keeps. One that the compose file mounts without a name is scratch.
    scratch = all(_mounts_nameless(project.services[user], place) for user, place in mounts)
    return "mounted without a name" if scratch and not any(map(is_data_place, targets)) else ""


def _mounts_nameless(service: Service, target: str) -> bool:
    entries = service.raw.get("volumes") or ()
    return any(
        entry.get("type") == "volume" and not entry.get("source") and entry.get("target") == target for entry in entries
    )


def _not_ours(project: Project, declared: Iterable[Volume], volume: Resource) -> str | None:
    """Return why a volume is not this project's to remove, or None."""
    if any(each.external for each in declared):
        return "external"
    if volume.anonymous and not volume.project:
        return None
    if volume.project and volume.project != project.name:
        return f"belongs to project {volume.project}"
    if not volume.project:
        return "not made by Compose, whose it is is not known"
    return None


def _users(
    project: Project, seen: ProjectResources, volume: Resource, keys: Collection[str]
) -> tuple[dict[str, set[tuple[str, str]]], list[str]]:
    """Return the services that mount a volume, as configured or in truth, and what else of the project does.

    Each service has the keys and places by which it mounts it; what a container has in truth has no key.
    """
    places: dict[str, set[tuple[str, str]]] = {}
    for name, service in project.services.items():
        for entry in service.raw.get("volumes") or ():
            if entry.get("type") == "volume" and entry.get("source") in keys:
                places.setdefault(name, set()).add((entry["source"], entry.get("target") or ""))
    holders = [each for each in seen.containers if volume.name in each.volumes]
    for each in holders:
        if each.service in project.services:
            places.setdefault(each.service, set()).add(("", each.volumes[volume.name]))
    unknown = {each.service or each.name for each in holders if each.service not in project.services}
    return places, sorted(unknown)


def _container(project: Project, seen: ProjectResources, held: ContainerUse, volumes: dict[str, Item]) -> Item:
    nameless = [each.name for each in seen.volumes if each.anonymous and each.name in held.volumes]
    kept = [name for name in nameless if not volumes[name].goes]
    known = held.service in project.services
    if kept and known and not held.one_off:
        # Without its container nobody would find the volume again; with it, the service has its data back.
        reason = f"its volume without a name {volumes[kept[0]].reason}"
        return Item("container", held.name, False, reason, held.id)
    reason = f"of {held.service}" if known else f"the compose file has no service {held.service}"
    if held.one_off:
        reason = f"made by `docker compose run {held.service}`"
    return Item("container", held.name, True, reason, held.id, volumes=not kept)


def _network(seen: ProjectResources, network: Resource, held: set[str]) -> Item:
    other = next((each for each in seen.others if network.name in each.networks), None)
    if other:
        return Item("network", network.name, False, f"container {other.name} of {other.owner} is on it", network.id)
    if network.name in held:
        return Item("network", network.name, False, "a container that stays is on it", network.id)
    return Item("network", network.name, True, "of this project", network.id)


def _bind_mounts(project: Project) -> list[Item]:
    users: dict[str, list[str]] = {}
    for name, service in project.services.items():
        for entry in service.raw.get("volumes") or ():
            if entry.get("type") == "bind":
                users.setdefault(str(entry.get("source")), []).append(name)
    return [Item("bind mount", source, False, f"of {', '.join(names)}") for source, names in users.items()]


def _providers(project: Project) -> Iterable[Item]:
    for name, service in project.services.items():
        if service.provider:
            yield Item("provider", name, True, f"what {service.provider} has made for it")


def _removals(engine: Engine, compose: Compose) -> list[tuple[What, Callable[[Item], None]]]:
    return [
        ("container", lambda item: resources.remove_container(engine, item.id, volumes=item.volumes)),
        ("provider", lambda item: compose.down([item.name])),
        ("network", lambda item: resources.remove_network(engine, item.id)),
        ("volume", lambda item: resources.remove_volume(engine, item.id)),
    ]


def _side_by_side(things: Iterable[Any], act: Callable[[Any], None]) -> list[str]:
    """Do something to several things at once; return what went wrong."""
    failed = schedule.run(dict.fromkeys(things, ()), act).failed
    for error in failed.values():
        if not isinstance(error, StackError):
            raise error
    return [str(error) for error in failed.values()]
