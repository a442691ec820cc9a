"""What a plan is made from: containers, configuration hashes, images and what earlier runs remember, at one moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.services.changes.mounted_files import FileStat
from stackhand.services.changes.networks import NetworkFacts, off_network, users

Containers = Mapping[str, Sequence[Container]]
"""Containers by service."""

HOOKS_INTERRUPTED = "its `post_start` hooks were interrupted"
NOT_PROVIDED = "its provider has not said that it is ready"


@dataclass(frozen=True)
class Facts:
    """All that planning needs to know, read at one moment.

    `containers` by service, `hashes` of the configuration by service, `images` maps an image's name to its id, None
    where it is not here. Without hashes and images, all containers count as up to date.
    `completed` are the runs of containers that were seen to end by themselves, their work done. `made` has the
    `fingerprint` that some containers were made from, by id. `file_stats` has the metadata of mounted files, by path.
    `networks` are those of the engine, and which of the project's have changed. `provided` has the configuration hash
    of each service whose provider has said that it is ready. `image_ages` are the seconds since an image was pulled,
    where its service asks for that.
    `clock_offset` is how far the engine's clock is ahead of this machine's, where there are any.
    `unhooked` are the services of which a container runs whose `post_start` hooks were not seen to succeed.
    `elsewhere` has by service the other folder that containers of it were made from (`origin.made_elsewhere`).
    """

    containers: Containers
    hashes: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str | None] | None = None
    completed: frozenset[str] = frozenset()
    made: Mapping[str, str] = field(default_factory=dict)
    file_stats: Mapping[str, FileStat | None] = field(default_factory=dict)
    networks: NetworkFacts | None = None
    provided: Mapping[str, str] = field(default_factory=dict)
    image_ages: Mapping[str, float] = field(default_factory=dict)
    clock_offset: timedelta = timedelta()
    unhooked: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Sequence[Container]:
        """Return the containers of a service."""
        return self.containers.get(name, ())

    def without_configuration(self) -> Facts:
        """Return the facts without hashes, images and networks: every container counts as up to date."""
        return replace(self, hashes={}, images=None, networks=None)

    def network_cause(self, project: Project, name: str) -> str | None:
        """Return why a service needs new containers for the sake of its networks, or None."""
        if self.networks is None:
            return None
        changed = self.networks.changed.intersection(project.services[name].networks)
        if changed:
            return f"the definition of its network {min(changed)} changed"
        idle = [container for container in self.of(name) if not container.running]
        off = next(filter(None, (off_network(project, each, self.networks) for each in idle)), None)
        return f"it is off its network {off}" if off else None

    def drifted(self, service: Service, container: Container) -> bool:
        """Return whether a container was made from another configuration than the service has now.

        Before Compose 5.5 the hash that it prints leaves out `env_file`, which the hash on the container holds
        (https://github.com/docker/compose/issues/14001). So a difference counts only where we have not seen Compose
        keep this very container.
        """
        wanted = self.hashes.get(service.name)
        if wanted is None or container.config_hash == wanted:
            return False
        return self.made.get(container.id) != fingerprint(service, wanted)

    def only_the_hash_differs(self, project: Project, container: Container) -> bool:
        """Return whether only the hash says that a container has drifted, and the hash may be wrong.

        What Compose hashes lacks what an `env_file` or a provider adds to the environment.
        """
        service = project.services[container.service]
        provided = any(project.services[entry.service].provider for entry in service.depends_on)
        adds = bool(service.environment) or provided
        return self.drifted(service, container) and adds and container.id not in self.made

    def image_id(self, service: Service) -> str | None:
        """Return the id of the service's image, None where it is not here or was not looked at."""
        return (self.images or {}).get(service.image)


def fingerprint(service: Service, config_hash: str) -> str:
    """Return a digest of all that a service's containers are made from, `env_file` included."""
    content = json.dumps([config_hash, service.raw], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def completed(project: Project, name: str, facts: Facts) -> bool:
    """Return whether this is a one-shot that has done its work, as it is configured now.

    Only what others wait for to complete counts, and what was seen to end by itself: a server that was stopped has
    often exited with 0, too.
    """
    containers = facts.of(name)
    image = facts.image_id(project.services[name])
    return (
        bool(containers)
        and all(done(project, container, facts.completed) for container in containers)
        and not any(facts.drifted(project.services[name], container) for container in containers)
        and all(image in (None, container.image_id) for container in containers)
        and not facts.network_cause(project, name)
    )


def unhooked(project: Project, containers: Containers, began: Mapping[str, datetime]) -> frozenset[str]:
    """Return the services of which a container runs that was started with `post_start` hooks that did not all succeed.

    `began` has the moment of such a start by service, by the engine's clock.
    """
    return frozenset(
        name
        for name, moment in began.items()
        if name in project.services and project.services[name].raw.get("post_start")
        if any(each.running and each.started_at and each.started_at >= moment for each in containers.get(name, ()))
    )


def provided(project: Project, name: str, containers: Containers, known: Mapping[str, str], wanted: str = "") -> bool:
    """Return whether a service that has a provider is ready, as far as can be told without asking the provider.

    Compose makes the containers of what depends on it once the provider has said so, and `down` takes both away.
    `known` are the configuration hashes with which it was seen to say so, `wanted` is the one of now.
    """
    dependants = [service.name for service, _ in project.dependants(name) if service.replicas]
    there = any(containers.get(each) for each in dependants)
    if name in known:
        return wanted in ("", known[name]) and (there or not dependants)
    return there


def done(project: Project, container: Container, completed: Collection[str]) -> bool:
    """Return whether a container has ended because its work was done."""
    return ended_well(container) and (project.is_one_shot(container.service) or container.run_key in completed)


def ended_well(container: Container) -> bool:
    """Return whether a container has ended with 0."""
    return container.stopped and container.exit_code == 0 and not container.error


def awaits(containers: Sequence[Container], one_shots: Sequence[Container]) -> bool:
    """Return whether a service's `containers` still wait for just the run of a one-shot that has completed.

    So it is where a start ended early, or where the one-shot took longer than `start.timeout`: it completed after the
    containers were made, and none of them has run then or since.
    """
    ended = min((each.finished_at for each in one_shots if each.finished_at), default=None)
    return ended is not None and all(
        each.created_at is not None
        and each.created_at < ended
        and not each.running
        and all(moment is None or moment < ended for moment in (each.started_at, each.finished_at))
        for each in containers
    )


def with_network_users(project: Project, names: Collection[str], facts: Facts) -> list[str]:
    """Return `names`, and where a network of theirs changed, all that runs on such a network, with what it needs."""
    on = users(project, facts.networks.changed) if facts.networks else []
    if set(on).isdisjoint(names):
        return list(names)
    running = [name for name in on if any(container.running for container in facts.of(name))]
    return list(dict.fromkeys((*names, *project.closure(running))))


def by_service(containers: Iterable[Container]) -> Containers:
    """Return containers by their service."""
    found: dict[str, list[Container]] = {}
    for container in containers:
        found.setdefault(container.service, []).append(container)
    return found


def flat(containers: Containers) -> list[Container]:
    """Return the containers of all services."""
    return [container for some in containers.values() for container in some]


def all_run(containers: Sequence[Container]) -> bool:
    """Return whether there are containers and all of them run."""
    return bool(containers) and all(container.running for container in containers)


def all_new(before: Sequence[Container], now: Sequence[Container]) -> bool:
    """Return whether none of the containers of `now` was there before."""
    return {container.id for container in before}.isdisjoint(container.id for container in now)


def recreated(names: Collection[str], before: Containers, now: Containers) -> set[str]:
    """Return which of these services have lost a container that they had before, and that had run."""
    return {
        name
        for name in names
        if {container.id for container in before.get(name, ()) if container.status != "created"}
        - {container.id for container in now.get(name, ())}
    }
