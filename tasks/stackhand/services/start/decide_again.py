"""Decides what a start does on its way: pure functions to a new plan.

`replan` plans what is left once containers are made, of which Compose may have kept some. `plan_retry` is for what
crashed after it was ready.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.services.start import sharing
from stackhand.services.start.decide import follow, plan_start, with_containers
from stackhand.services.start.facts import (
    Containers,
    Facts,
    all_run,
    ended_well,
    recreated,
)
from stackhand.services.start.plan import IMAGES, LAUNCHES, MAKES, StartAction, StartPlan, connect, needs, unable
from stackhand.services.start.record import Record


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
    can't do without that. The sharers of those follow, and so do the services that are `behind`. A service that its
    restart policy has started again is watched once more.
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
        follow(service.name, name)
        for name in sorted(renewed)
        for service, dependency in project.dependants(name)
        if dependency.restart and service.name in names and service.name not in renewed
    ]


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

    The caller makes sure that nobody has sent it a signal: that would be no end by itself.
    """
    return (
        service.may_end
        and record.state == "running"
        and bool(containers)
        and all(ended_well(each) for each in containers)
    )


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


def _restarts(actions: Mapping[str, StartAction], name: str) -> bool:
    return name in actions and actions[name].verb == "restart"
