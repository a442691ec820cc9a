"""Decides what a start does: pure functions from facts to a plan.

`plan_start` plans from what is there. What changes on the way is a new plan: `replan` once containers are made, which
Compose may have kept or others followed, and `plan_retry` for what crashed after it was ready.
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
    Containers,
    Facts,
    all_run,
    awaits,
    completed,
    ended_well,
    recreated,
    with_network_users,
)
from stackhand.services.start.plan import IMAGES, LAUNCHES, MAKES, StartAction, StartPlan, connect, needs, unable
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

    That is who runs and shares a namespace or volumes with a service that the plan restarts or renews, or is on a
    network that has to be replaced.
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
    """Return an action that says so where it changes a container that was made from another folder."""
    folder = facts.folder_of(action.service) if action.verb in (*MAKES, *LAUNCHES) else ""
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
        return connect(project, [_follow(name, leaders[0])])
    return plan


def replan(
    project: Project,
    names: Collection[str],
    plan: StartPlan,
    before: Containers,
    now: Containers,
    failed: Collection[str] = (),
    leaders: Collection[str] = (),
) -> StartPlan:
    """Return what is left of a plan for `names` when its images are got and its containers are made.

    `before` are the containers that it was made from, `now` those that are there. Compose has kept what is as it should
    be, and has stopped what declares `restart: true` for a service that it recreated; others of those still run.
    `failed` are the services whose image or containers could not be got: each has a start left, which fails, also where
    the service runs as it was before. What needs one of them was not recreated either, and does not go on as it is.
    `leaders` are services that were recreated before this plan was made, and that these still have to follow.
    """
    made = plan.services(*MAKES)
    renewed = recreated(made, before, now)
    left: dict[str, StartAction] = {}
    for action in plan.actions:
        name, runs = action.service, all_run(now.get(action.service, ()))
        if name in failed:
            left[name] = StartAction(name, "start", action.cause)
        elif action.verb == "restart" and action.arguments:
            led = any(leader in renewed or _restarts(left, leader) for leader in action.arguments)
            left[name] = action if led else StartAction(name, "check", f"{action.arguments[0]} was kept as it is")
        elif action.verb in MAKES:
            left[name] = StartAction(name, "check" if runs else "start", action.cause)
        elif action.verb in IMAGES:
            left.setdefault(name, StartAction(name, "start", action.cause))
        else:
            left[name] = action
    if made:
        for name in names:
            if name not in left and all_run(before.get(name, ())) and not all_run(now.get(name, ())):
                left[name] = StartAction(name, "start", "Compose has stopped it, to follow what it depends on")
        for action in followers(project, names, {*renewed, *leaders}):
            if action.service not in left or left[action.service].verb == "check":
                left[action.service] = action
    _follow_starts(project, names, now, left, failed)
    outdated = plan.services("recreate")
    return connect(project, left.values(), {n: why for n, why in unable(project, failed).items() if n in outdated})


def plan_retry(
    project: Project,
    names: Collection[str],
    records: Mapping[str, Record],
    crashed: Collection[str],
    now: Containers,
    behind: Collection[str] = (),
) -> StartPlan:
    """Return what to do once more for `names` when some of them crashed after they were ready.

    Those, and what was skipped because of them, are started again; not what failed for reasons of its own, nor what
    can't do without that. Who shares something with those follows, and so do those that are `behind`. What its restart
    policy has started again is watched once more.
    """
    lost = [name for name in names if records[name].state in ("failed", "skipped")]
    failed = unable(project, [n for n in lost if n not in crashed and records[n].state == "failed"])
    sharers = {name for each in crashed for name in sharing.all_sharers(project, each)} | set(behind)
    again = [name for name in names if name in lost or name in sharers]
    actions = plan_start(project, [name for name in again if name not in failed], Facts(now)).actions
    planned = {action.service for action in actions}
    watched = [
        StartAction(name, "check", "it was ready, and has ended and started again")
        for name in crashed
        if name not in planned and name not in failed
    ]
    return connect(project, [*actions, *watched])


def followers(project: Project, names: Collection[str], renewed: Collection[str]) -> list[StartAction]:
    """Return the restarts that `depends_on … restart: true` asks for, after these services were recreated."""
    return [
        _follow(service.name, name)
        for name in sorted(renewed)
        for service, dependency in project.dependants(name)
        if dependency.restart and service.name in names and service.name not in renewed
    ]


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
    stopped = [container for container in containers if not container.running]
    if stopped:
        return StartAction(name, "start", f"it is {stopped[0].status}")
    waiting = [container for container in containers if container.health in ("starting", "unhealthy")]
    if waiting or project.is_one_shot(name):
        state = f"its health is {waiting[0].health}" if waiting else "it has not completed yet"
        return StartAction(name, "check", f"it runs, and {state}")
    return None


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
    not where that service waits for just the run that has completed, unless containers are `made` of what the migration
    depends on. By name it runs again where a start has seen it complete, or a service has gone on with that.
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


def crashed(
    project: Project,
    records: Mapping[str, Record],
    names: Collection[str],
    now: Containers,
    crashes: Mapping[str, int],
) -> list[str]:
    """Return which of these services were ready and no longer run, or have ended and started again since.

    `crashes` is how many runs of each service's containers have ended by themselves until now.
    """
    return [
        name
        for name in with_containers(project, names)
        if records[name].state in ("healthy", "running")
        and (not all_run(now.get(name, ())) or crashes.get(name, 0) > records[name].crashes)
    ]


def has_done_its_work(service: Service, record: Record, containers: Sequence[Container]) -> bool:
    """Return whether a service without a healthcheck that was ready has ended since, its work done.

    Where somebody sent it a signal, that is no end by itself; the caller knows.
    """
    return (
        service.may_end
        and record.state == "running"
        and bool(containers)
        and all(ended_well(each) for each in containers)
    )


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


def _follow_starts(
    project: Project, names: Collection[str], now: Containers, left: dict[str, StartAction], failed: Collection[str]
) -> None:
    """Add the restarts of what runs and shares a namespace with a service that is started: its container was kept."""
    for name in schedule.order(needs(project, names)):
        if project.services[name].shares and (name not in left or left[name].verb == "check"):
            launched = {n: a.verb for n, a in left.items() if a.verb in LAUNCHES and n not in failed}
            action = sharing.renewal(project, name, now, launched)
            if action and action.verb == "restart":
                left[name] = action


def _follow(name: str, leader: str) -> StartAction:
    return StartAction(name, "restart", f"{leader} was recreated, and {name} asks to follow it")


def _restarts(actions: Mapping[str, StartAction], name: str) -> bool:
    return name in actions and actions[name].verb == "restart"


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
