"""Decides what a start does: pure functions from facts to a plan.

`plan_start` plans from what is there. What changes on the way is a new plan: `decide_again.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.services.start import half_recreated, sharing
from stackhand.services.start.decide_sources import image_actions, with_providers
from stackhand.services.start.facts import (
    HOOKS_INTERRUPTED,
    Facts,
    all_run,
    awaits,
    completed,
    with_network_users,
)
from stackhand.services.start.plan import IMAGES, LAUNCHES, MAKES, StartAction, StartPlan, connect, needs
from stackhand.services.start.record import Failure, Record

_CHANGED = "its configuration changed"


def plan_start(
    project: Project,
    names: Collection[str],
    facts: Facts,
    *,
    named: Collection[str] = (),
    rebuild: bool = False,
) -> StartPlan:
    """Return what to do to have the services `names` ready.

    `named` are the services that the person named: a one-shot among them runs again although it completed.
    With `rebuild`, images that can be built are built again. A service that is already ready has no action.
    """
    actions: list[StartAction] = []
    ordered = schedule.order(needs(project, names))
    got = image_actions(project, ordered, facts, rebuild)
    images: set[tuple[str, str]] = set()
    for name in ordered:
        service = project.services[name]
        image = got.get(name)
        if image and (image.verb, service.image) not in images:
            images.add((image.verb, service.image))
            actions.append(image)
        if image or not completed(project, name, facts):
            action = service_action(project, name, facts, image_changes=bool(image))
            action = _sharing(project, facts, actions, name, action)
            actions += [action] if action else []
    actions = with_providers(project, ordered, facts, actions)
    busy = {action.service for action in actions if action.verb != "check"}
    made = {action.service for action in actions if action.verb in MAKES}
    # Last: whether a completed one-shot runs again depends on those that wait for it.
    for name in reversed(ordered):
        action = rerun(project, name, facts, busy, named, made)
        if action:
            busy.add(name)
            actions.append(_sharing(project, facts, actions, name, action) or action)
    return connect(project, [with_folder(action, facts) for action in actions])


def plan_with_sharers(
    project: Project, names: Collection[str], facts: Facts, *, named: Collection[str] = (), rebuild: bool = False
) -> tuple[list[str], StartPlan]:
    """Return the plan for `names` and all that they depend on, and these names with those that have to follow.

    Those run, and share a namespace or volumes with a service that the plan restarts or renews, or are on a network
    that has to be replaced.
    """
    wanted = list(names)
    while True:
        needed = project.closure(wanted)
        together = [name for name in with_network_users(project, needed, facts) if name not in needed]
        if together:
            wanted += together
            continue
        plan = plan_start(project, needed, facts, named=named, rebuild=rebuild)
        more = sharing.outdated(project, needed, facts.containers, plan)
        if not more:
            return wanted, plan
        wanted += more


def with_folder(action: StartAction, facts: Facts) -> StartAction:
    """Return the action; its cause names the other folder where it changes a container that was made from there."""
    folder = facts.elsewhere.get(action.service) if action.verb in (*MAKES, *LAUNCHES) else None
    return replace(action, cause=f"{action.cause}; it was started from another folder, {folder}") if folder else action


def plan_alone(
    project: Project, name: str, facts: Facts, renewed: Collection[str], *, rebuild: bool = False
) -> StartPlan:
    """Return what to do to have one service ready whose dependencies have been seen to (`up.<service>`).

    `renewed` are the services whose containers this process has recreated.
    """
    plan = plan_start(project, [name], facts, named=[name], rebuild=rebuild)
    leaders = [e.service for e in project.services[name].depends_on if e.restart and e.service in renewed]
    if leaders and all_run(facts.of(name)) and not plan.services(*IMAGES, *MAKES):
        return connect(project, [follow(name, leaders[0])])
    return plan


def service_action(project: Project, name: str, facts: Facts, *, image_changes: bool = False) -> StartAction | None:
    """Return what one service needs to be ready, as far as its own containers tell; None where it is."""
    service, containers = project.services[name], facts.of(name)
    if service.replicas == 0:
        return None
    if not containers:
        return StartAction(name, "create", "it has no container")
    network = facts.network_cause(project, name)
    drift = network or _drift(service, containers, facts, image_changes)
    if drift:
        certain = drift != _CHANGED or not all(facts.only_the_hash_differs(project, each) for each in containers)
        return StartAction(name, "recreate", drift, force=bool(network), certain=certain)
    launch = _launch(name, containers, facts)
    if launch:
        return launch
    waiting = [container for container in containers if container.health in ("starting", "unhealthy")]
    if waiting or project.is_one_shot(name):
        state = f"its health is {waiting[0].health}" if waiting else "it has not completed yet"
        return StartAction(name, "check", f"it runs, and {state}")
    return None


def _launch(name: str, containers: Sequence[Container], facts: Facts) -> StartAction | None:
    if name in facts.unhooked:
        return StartAction(name, "restart", HOOKS_INTERRUPTED)
    stopped = [container for container in containers if not container.running]
    return StartAction(name, "start", f"it is {stopped[0].status}") if stopped else None


def rerun(
    project: Project,
    name: str,
    facts: Facts,
    busy: Collection[str],
    named: Collection[str],
    made: Collection[str] = (),
) -> StartAction | None:
    """Return the action for a completed one-shot that has to run again, or None.

    A migration runs again when a service that waits for it is about to start, not every time somebody looks. It does
    not if that service still waits for the run that has completed (`awaits`), unless containers are `made` of what the
    migration depends on. If it is `named`, it runs again, except where no start and no service has made use of its last
    run yet.
    """
    if name in busy or not completed(project, name, facts):
        return None
    mine = facts.of(name)
    waiting = [s.name for s, entry in project.dependants(name) if entry.condition == "service_completed_successfully"]
    valid = not any(each in made for each in project.closure([name]))
    served = [each for each in waiting if valid and awaits(facts.of(each), mine)]
    is_news = bool(waiting) and served == waiting and not any(each.run_key in facts.completed for each in mine)
    if name in named and not is_news:
        return StartAction(name, "start", "it was asked for by name")
    for each in waiting:
        if each in busy and not (each in served and facts.of(each)):
            return StartAction(name, "start", f"{each} starts, and waits for it to complete")
    return None


def unstartable(project: Project, name: str, records: Mapping[str, Record]) -> Failure | None:
    """Return why a service can never start: it waits for the health of one that has no healthcheck."""
    for dependency in project.services[name].depends_on:
        record = records.get(dependency.service)
        if not with_containers(project, [dependency.service]):
            continue
        if dependency.condition == "service_healthy" and record and record.state in ("running", "completed"):
            return Failure(
                "dependency",
                "no_healthcheck",
                f"it waits for {dependency.service} to be healthy, which has no healthcheck",
                retry=False,
                hint=f"give {dependency.service} a healthcheck, or use condition: service_started",
            )
    return None


def with_containers(project: Project, names: Collection[str]) -> list[str]:
    """Return those of the services that are to have containers at all (`replicas: 0` asks for none)."""
    return [name for name in names if name in project.services and project.services[name].replicas]


def _sharing(
    project: Project, facts: Facts, actions: Sequence[StartAction], name: str, action: StartAction | None
) -> StartAction | None:
    """Return what a service has to do given what it shares with others, and what is done to those."""
    if not project.services[name].shares or (action and action.verb in MAKES):
        return action
    follow = sharing.renewal(project, name, facts.containers, sharing.verbs(StartPlan(tuple(actions))))
    return follow or action


def follow(name: str, leader: str) -> StartAction:
    """Return the restart that `depends_on … restart: true` asks for, after `leader` was recreated."""
    return StartAction(name, "restart", f"{leader} was recreated, and {name} asks to follow it")


def _drift(service: Service, containers: Sequence[Container], facts: Facts, image_changes: bool) -> str | None:
    """Return in what a service's containers differ from what is configured now, or None."""
    left = half_recreated.left(containers)
    if left:
        return left
    if len(containers) != service.replicas:
        return f"{len(containers)} containers where {service.replicas} are wanted"
    image = facts.image_id(service)
    if any(facts.drifted(service, container) for container in containers):
        return _CHANGED
    if image_changes:
        return f"image {service.image} is made or fetched again; kept if that changes nothing"
    if image and any(container.image_id != image for container in containers):
        return f"image {service.image} changed"
    return None
