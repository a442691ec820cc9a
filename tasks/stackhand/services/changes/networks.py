"""Networks whose definition changed since they were made, and containers that are off their networks.

Since 2.30, Compose writes a hash of its definition on a network, and replaces the network when it has changed: it stops
the containers of the services that it was asked for, detaches them, removes the network, makes it and attaches them.
Two things go wrong there (tried with 2.40). Asked for some of the services on it, it detaches these, cannot remove the
network under the others, and fails from then on, because they are "not connected". And containers that it keeps lose
their service's name on the network. So all services on a network get new containers, in one call.

Older versions of Compose write no hash and keep a network whatever has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackhand.engine.api import resources
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.resources import ProjectResources, Resource
from stackhand.engine.compose.labels import HASH_LABEL, NETWORK_LABEL
from stackhand.engine.compose.project import Project, Service


@dataclass(frozen=True)
class NetworkFacts:
    """The networks of the engine at one moment: their ids by name, and those of the project that Compose replaces.

    `changed` has the keys of the compose file.
    """

    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()


def collect(engine: Engine, project: Project, replaced: Callable[[Sequence[str]], Collection[str]]) -> NetworkFacts:
    """Return the facts about networks. `replaced` says which of them Compose itself would replace for some services.

    It is asked only where a hash differs: its answer counts, because an older Compose looks at no hash.
    """
    found = resources.networks(engine)
    ids: dict[str, frozenset[str]] = {}
    for network in found:
        ids[network.name] = ids.get(network.name, frozenset()) | {network.id}
    changed = differing(project, found)
    if changed:
        names = replaced(users(project, changed))
        changed = frozenset(key for key in changed if project.networks[key] in names)
    return NetworkFacts(ids, changed)


def differing(project: Project, found: Iterable[Resource]) -> frozenset[str]:
    """Return the keys of the project's networks that were made from another definition, as far as a hash tells."""
    changed = set()
    for network in found:
        key, made = network.labels.get(NETWORK_LABEL, ""), network.labels.get(HASH_LABEL)
        wanted = project.network_hashes.get(key)
        if network.project == project.name and network.name == project.networks.get(key) and made and wanted:
            changed |= {key} if made != wanted else set()
    return frozenset(changed)


def users(project: Project, keys: Collection[str]) -> list[str]:
    """Return the services that are on one of these networks."""
    return [name for name, service in project.services.items() if not set(keys).isdisjoint(service.networks)]


def blockers(project: Project, keys: Collection[str], found: ProjectResources) -> list[str]:
    """Return the running containers, in words, that keep these networks from being replaced: Compose leaves them on."""
    wanted = {project.networks[key] for key in keys}
    told = []
    for container in (*found.containers, *found.others):
        mine = container.project == project.name
        service = project.services.get(container.service) if mine and not container.one_off else None
        own = set(networks_of(project, service).values()) if service else set()
        if container.running and (container.networks & wanted) - own:
            told.append(container.name if mine else f"{container.name} ({container.owner})")
    return told


def off_network(project: Project, container: Container, facts: NetworkFacts) -> str | None:
    """Return a network that a container which does not run would lack at its start, or None.

    A run of Compose that ended early detaches containers. A network that was removed and made again has another id,
    and the engine refuses to start a container that knows the old one.
    """
    for network in networks_of(project, project.services[container.service]).values():
        attached = container.attachments.get(network)
        if attached is None or (attached.network_id and attached.network_id not in facts.ids.get(network, ())):
            return network
    return None


def connect(engine: Engine, project: Project, container: Container, containers: Iterable[Container]) -> bool:
    """Attach a container to each network that it lacks, and again where it lacks a name: as the compose file has it.

    `containers` are those of the project, which `links` lead to. Returns whether something was changed.
    """
    service, changed = project.services[container.service], False
    for key, network in networks_of(project, service).items():
        attachment = container.attachments.get(network)
        if attachment and (attachment.aliases or frozenset()).issuperset(names_on(service, key)):
            continue
        if attachment:
            engine.disconnect(container.id, network)
        # Compose makes the container's own name one of them, too.
        names = (container.name, *names_on(service, key))
        options = {**_options(service, key), "links": _links(service, containers)}
        engine.connect(container.id, network, options, names)
        changed = True
    return changed


def networks_of(project: Project, service: Service) -> dict[str, str]:
    """Return the networks of a service, by key, with their names in the engine."""
    return {key: project.networks[key] for key in service.networks if key in project.networks}


def names_on(service: Service, key: str) -> tuple[str, ...]:
    """Return the names that lead to a service on a network; Compose gives the service's own to every container."""
    return tuple(dict.fromkeys((service.name, *(_options(service, key).get("aliases") or ()))))


def _links(service: Service, containers: Iterable[Container]) -> list[tuple[str, str]]:
    """Return the links of a service as Compose has them: each container of a linked service, and the name for it."""
    links = [(entry.partition(":")[0], entry.partition(":")[2]) for entry in service.raw.get("links") or ()]
    return [(each.name, alias or name) for name, alias in links for each in containers if each.service == name]


def _options(service: Service, key: str) -> Mapping[str, Any]:
    options: Mapping[str, Any] = (service.raw.get("networks") or {}).get(key) or {}
    return options
