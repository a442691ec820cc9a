"""What a plan is made from: containers, configuration hashes, images and what earlier runs remember, at one moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.services.changes.mounted_files import FileStat

Containers = Mapping[str, Sequence[Container]]
"""Containers by service."""


@dataclass(frozen=True)
class Facts:
    """All that planning needs to know, read at one moment.

    `containers` by service, `hashes` of the configuration by service, `images` maps an image's name to its id, None
    where it is not here. Without hashes and images, all containers count as up to date.
    `completed` are the runs of containers that were seen to end by themselves, their work done. `made` has the
    `fingerprint` that some containers were made from, by id. `file_stats` has the metadata of mounted files, by path.
    `elsewhere` has the folder of each container, by id, that was made from another one than the project's.
    """

    containers: Containers
    hashes: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str | None] | None = None
    completed: frozenset[str] = frozenset()
    made: Mapping[str, str] = field(default_factory=dict)
    file_stats: Mapping[str, FileStat | None] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def folder_of(self, name: str) -> str:
        """Return the other folder that containers of a service were made from, "" where there is none."""
        return next((self.elsewhere[each.id] for each in self.of(name) if each.id in self.elsewhere), "")

    def of(self, name: str) -> Sequence[Container]:
        """Return the containers of a service."""
        return self.containers.get(name, ())

    def without_configuration(self) -> Facts:
        """Return the facts without hashes and images: every container counts as up to date."""
        return replace(self, hashes={}, images=None)

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
    )


def done(project: Project, container: Container, completed: Collection[str]) -> bool:
    """Return whether a container has ended because its work was done."""
    return (
        container.stopped
        and container.exit_code == 0
        and not container.error
        and (project.is_one_shot(container.service) or container.run_key in completed)
    )


def all_run(containers: Sequence[Container]) -> bool:
    """Return whether there are containers and all of them run."""
    return bool(containers) and all(container.running for container in containers)


def recreated(names: Collection[str], before: Containers, now: Containers) -> set[str]:
    """Return which of these services have lost a container that they had before, and that had run."""
    return {
        name
        for name in names
        if {container.id for container in before.get(name, ()) if container.status != "created"}
        - {container.id for container in now.get(name, ())}
    }
