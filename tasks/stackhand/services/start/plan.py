"""What a start has to do, decided from facts alone: keep, check, start, create, recreate, pull, build.

The same plan is printed by `--dry` and carried out by a real run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.changes.mounted_files import Stamp


@dataclass(frozen=True)
class Facts:
    """All that planning needs to know, read at one moment.

    `containers` by service, `hashes` of the configuration by service, `images` maps an image's name to its id,
    None where it is not here. Without hashes and images, containers count as made the way they should be.
    `completed` are the containers (id and moment of start) that were seen to end by themselves, their work done;
    `made` says of some containers, by id, which `fingerprint` they were made from; `stamps` are those of the files
    that services are given, by path.
    """

    containers: Mapping[str, Sequence[Container]]
    hashes: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str | None] | None = None
    completed: frozenset[str] = frozenset()
    made: Mapping[str, str] = field(default_factory=dict)
    stamps: Mapping[str, Stamp | None] = field(default_factory=dict)

    def drifted(self, service: Service, container: Container) -> bool:
        """Return whether a container was made from another configuration than the service has now.

        Before Compose 5.5 the hash that it tells leaves out `env_file`, which the hash on the container holds
        (docker/compose #14001); so a difference counts only where we have not seen Compose keep this very container.
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


def plan_start(
    project: Project,
    names: Collection[str],
    facts: Facts,
    *,
    named: Collection[str] = (),
    rebuild: bool = False,
) -> Plan:
    """Return what to do to have the services `names` ready, in dependency order.

    `named` are the services that the person named: a one-shot among them runs again although it completed.
    With `rebuild`, images that can be built are built again. A service that is already ready has no action.
    """
    actions: list[Action] = []
    ordered = schedule.order(needs(project, names))
    images: set[tuple[str, str]] = set()
    for name in ordered:
        service = project.services[name]
        image = _image_action(service, facts, rebuild)
        if image and (image.verb, service.image) not in images:
            images.add((image.verb, service.image))
            actions.append(image)
        action = (
            None if image is None and completed(project, name, facts) else service_action(service, facts, bool(image))
        )
        if action:
            actions.append(action)
    busy = {action.service for action in actions if action.verb != "check"}
    # Needed last: whether a completed one-shot runs again depends on those that wait for it.
    for name in reversed(ordered):
        action = rerun(project, name, facts, busy, named)
        if action:
            busy.add(name)
            actions.append(action)
    place = {name: index for index, name in enumerate(ordered)}
    return Plan(tuple(sorted(actions, key=lambda action: place[action.service])))


def restarts(project: Project, names: Collection[str], recreated: Collection[str]) -> Plan:
    """Return the restarts that `depends_on … restart: true` asks for, after these services were recreated."""
    return Plan(
        tuple(
            Action(service.name, "restart", f"{name} was recreated, and {service.name} asks to follow it")
            for name in sorted(recreated)
            for service, dependency in project.dependants(name)
            if dependency.restart and service.name in names and service.name not in recreated
        )
    )


def to_restart(plan: Plan, recreated: Collection[str]) -> set[str]:
    """Return the services of a plan that have to restart as they are.

    One that follows others (they are its action's arguments) does so when one of them did restart or was recreated.
    """
    found: set[str] = set()
    for action in plan.actions:
        leaders = action.arguments
        if action.verb == "restart" and (not leaders or any(each in found or each in recreated for each in leaders)):
            found.add(action.service)
    return found


def needs(project: Project, names: Collection[str]) -> dict[str, list[str]]:
    """Return each of the services with those among them that it depends on."""
    return {
        name: [entry.service for entry in project.services[name].depends_on if entry.service in names]
        for name in project.services
        if name in names
    }


def _image_action(service: Service, facts: Facts, rebuild: bool) -> Action | None:
    here = facts.images is None or facts.image_id(service) is not None
    policy = service.pull_policy
    if service.builds and (rebuild or policy == "build" or not here):
        cause = "asked to rebuild" if rebuild else f"image {service.image} is not here"
        return Action(service.name, "build", "pull_policy: build" if policy == "build" else cause)
    if service.builds or policy in ("never", "build"):
        return None
    if policy == "always":
        return Action(service.name, "pull", "pull_policy: always")
    return None if here else Action(service.name, "pull", f"image {service.image} is not here")


def service_action(service: Service, facts: Facts, image_changes: bool = False) -> Action | None:
    """Return what one service needs to be ready, as far as its own containers tell; None where it is."""
    containers = facts.containers.get(service.name, ())
    if service.replicas == 0:
        return None
    if not containers:
        return Action(service.name, "create", "it has no container")
    drift = _drift(service, containers, facts, image_changes)
    if drift:
        return Action(service.name, "recreate", drift)
    stopped = [container for container in containers if not container.running]
    if stopped:
        return Action(service.name, "start", f"it is {stopped[0].status}")
    waiting = [container for container in containers if container.health in ("starting", "unhealthy")]
    if waiting:
        return Action(service.name, "check", f"it runs, and its health is {waiting[0].health}")
    return None


def _drift(service: Service, containers: Sequence[Container], facts: Facts, image_changes: bool) -> str | None:
    """Return in what a service's containers differ from what is configured now, or None."""
    if any(container.replaces and container.status == "created" for container in containers):
        return "an interrupted run has left it half made"
    if len(containers) != service.replicas:
        return f"{len(containers)} containers where {service.replicas} are wanted"
    image = facts.image_id(service)
    if any(facts.drifted(service, container) for container in containers):
        return "its configuration changed"
    if image_changes:
        return f"image {service.image} is made or fetched anew; kept if that changes nothing"
    if image and any(container.image_id != image for container in containers):
        return f"image {service.image} changed"
    return None


def rerun(project: Project, name: str, facts: Facts, busy: Collection[str], named: Collection[str]) -> Action | None:
    """Return the action for a completed one-shot that has to run again, or None.

    A migration runs again when a service that waits for it is about to start, not every time somebody looks.
    """
    if name in busy or not completed(project, name, facts):
        return None
    if name in named:
        return Action(name, "start", "it was asked for by name")
    for service, dependency in project.dependants(name):
        if dependency.condition == "service_completed_successfully" and service.name in busy:
            return Action(name, "start", f"{service.name} starts, and waits for it to complete")
    return None


def completed(project: Project, name: str, facts: Facts) -> bool:
    """Return whether this is a one-shot that has done its work, as it is configured now.

    Only what others wait for to complete counts, and what was seen to end by itself: a server that was stopped has
    often exited with 0, too.
    """
    containers = facts.containers.get(name, ())
    image = facts.image_id(project.services[name])
    return (
        bool(containers)
        and all(done(project, each, facts.completed) for each in containers)
        and not any(facts.drifted(project.services[name], each) for each in containers)
        and all(image in (None, each.image_id) for each in containers)
    )


def done(project: Project, container: Container, completed: Collection[str]) -> bool:
    """Return whether a container has ended because its work was done."""
    return (
        container.stopped
        and container.exit_code == 0
        and not container.error
        and (project.is_one_shot(container.service) or container.run_key in completed)
    )
