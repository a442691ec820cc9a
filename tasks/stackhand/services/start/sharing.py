"""Sharers follow the container that they share: `network_mode`, `ipc`, `pid` of `service:NAME`, `volumes_from`. Pure.

A namespace ends with the main process of its container. A sharer that runs on is in a namespace that nobody else has
any more, without a network for example: it has to restart. If the container is replaced, its sharers still have the id
of the old one: they need new containers. Compose makes these by itself when it is asked to create both.
https://docs.docker.com/reference/compose-file/services/#network_mode
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Shared
from stackhand.services.start.facts import Containers, all_run
from stackhand.services.start.plan import LAUNCHES, MAKES, StartAction, StartPlan, Verb

_GONE = "whose container is gone"


def renewal(
    project: Project, name: str, containers: Containers, planned: Mapping[str, Verb] | None = None
) -> StartAction | None:
    """Return what a service has to do to share again what it is configured to share; None if that is nothing.

    `planned` has what is done to other services. `containers` has to have those of the services that `name` shares.
    """
    actions: list[StartAction] = []
    for leader, what in sorted(project.services[name].shares.items()):
        verb_of_leader = (planned or {}).get(leader)
        found = _after(what, containers.get(name, ()), containers.get(leader, ()), verb_of_leader)
        if found:
            verb, why = found
            cause = f"it shares the {' and '.join(sorted(what))} of {leader}, {why}"
            # A new container of the leader that is only planned may turn out to be the old one, kept.
            actions.append(StartAction(name, verb, cause, (leader,) if verb_of_leader else (), force=why == _GONE))
    # A new container is started, too; and one that surely needs to be new comes before one that perhaps does.
    return min(actions, key=lambda action: (action.verb != "recreate", not action.force), default=None)


def outdated(project: Project, names: Collection[str], containers: Containers, plan: StartPlan) -> list[str]:
    """Return the services other than `names` that run and would share something that is gone after this plan."""
    planned = verbs(plan)
    return [
        service.name
        for name in project.services
        if name in names
        for service in project.sharers(name)
        if service.name not in names
        and all_run(containers.get(service.name, ()))
        and renewal(project, service.name, containers, planned)
    ]


def behind(project: Project, names: Collection[str], containers: Containers) -> list[str]:
    """Return which of these services run and share something that is gone."""
    return [
        name
        for name in project.services
        if name in names and all_run(containers.get(name, ())) and renewal(project, name, containers)
    ]


def left_behind(project: Project, name: str, containers: Containers, ran: Collection[str]) -> list[str]:
    """Return who has to follow a service that was renewed: who is `behind`, and who of those that `ran` has ended.

    A container ends with the one whose pid namespace it is in.
    """
    sharers = all_sharers(project, name)
    late = behind(project, sharers, containers)
    return [each for each in sharers if each in late or (each in ran and not all_run(containers.get(each, ())))]


def running_sharers(project: Project, name: str, containers: Containers) -> list[str]:
    """Return which of those that share something of a service run, to be given to `left_behind` later."""
    return [each for each in all_sharers(project, name) if all_run(containers.get(each, ()))]


def all_sharers(project: Project, name: str) -> list[str]:
    """Return the services that share something of this one, or of one that does, in the order in which they follow."""
    found = [name]
    for each in found:
        found += [sharer.name for sharer in project.sharers(each) if sharer.name not in found]
    return found[1:]


def verbs(plan: StartPlan) -> dict[str, Verb]:
    """Return what a plan does to each service's containers."""
    return {action.service: action.verb for action in plan.actions if action.verb in (*MAKES, *LAUNCHES)}


def _after(
    what: frozenset[Shared], own: Sequence[Container], theirs: Sequence[Container], planned: Verb | None
) -> tuple[Verb, str] | None:
    """Return what a sharer has to do, and why, given what is `planned` for the containers that it shares (`theirs`)."""
    runs = what != {"volumes"} and any(container.running for container in own)
    if any(_is_gone(container, what, theirs) for container in own):
        return "recreate", _GONE
    if own and planned in MAKES:
        return "recreate", "which gets a new container"
    if runs and planned in LAUNCHES:
        return "restart", f"which {planned}s"
    if any(_has_restarted(container, what, theirs) for container in own):
        return "restart", "which has restarted since"
    return None


def _is_gone(container: Container, what: frozenset[Shared], theirs: Iterable[Container]) -> bool:
    """Return whether a container shares something of another one that is not among `theirs`."""
    known = {key for each in theirs for key in (each.id, each.name)}
    return any((others := _shared_with(container, one)) and not others & known for one in what)


def _has_restarted(container: Container, what: frozenset[Shared], theirs: Iterable[Container]) -> bool:
    """Return whether the container whose namespace this one shares, one of `theirs`, has started after it."""
    others = {other for one in what if one != "volumes" for other in _shared_with(container, one)}
    return any(has_started_after(each, container) for each in theirs if {each.id, each.name} & others)


def has_started_after(leader: Container, container: Container) -> bool:
    """Return whether of two running containers the first has started after the second."""
    times = leader.started_at, container.started_at
    return leader.running and container.running and None not in times and times[0] > times[1]  # type: ignore[operator]


def _shared_with(container: Container, what: Shared) -> set[str]:
    return {other for one, other in container.shares if one == what}
