"""What has changed since the services were started, and what a restart has to do about it: decided from facts alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.model import Action, Plan
from stackhand.services.start.plan import Facts, completed, needs, rerun, service_action

# What makes a container begin anew without its being stopped before.
_BEGINS = ("create", "start")
_RENEWS = ("recreate", "restart")


@dataclass(frozen=True)
class Changes:
    """What only a restart looks for, by service and with the cause.

    `contexts`: its image has to be built anew, for the service that `builders` names. `files`: a file that it is given
    has changed. `texts`: a text has that is copied into its container when it is made. `owed`: a restart that was
    interrupted had not come to it. `named` are the services that the person named.
    """

    contexts: Mapping[str, str] = field(default_factory=dict)
    builders: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    owed: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    def restart(self, name: str) -> str | None:
        """Return why a service has to restart as it is, or None."""
        asked = "it was asked for by name" if name in self.named else None
        return self.files.get(name) or self.owed.get(name) or asked


def scope(project: Project, facts: Facts, names: Collection[str]) -> list[str]:
    """Return the services that a restart of `names` has to do with: what they need, and what asks to follow them."""
    wanted = project.closure(names)
    leaders = list(names)
    while leaders:
        for service, dependency in project.dependants(leaders.pop()):
            runs = any(each.running for each in facts.containers.get(service.name, ()))
            if dependency.restart and runs and service.name not in wanted:
                wanted.append(service.name)
                leaders.append(service.name)
    return wanted


def plan_restart(project: Project, names: Collection[str], facts: Facts, changes: Changes) -> Plan:
    """Return what to do about all that changed of the services `names`, in dependency order.

    What a service depends on is only started where it does not run; what else changed there is for another time. The
    dependants that declare `restart: true` follow. A completed one-shot runs again when itself has changed, or when
    what waits for it was stopped.
    """
    wanted = scope(project, facts, names)
    ordered = schedule.order(needs(project, wanted))
    actions: dict[str, list[Action]] = {}
    built: set[str] = set()
    for name in ordered:
        found = _own(project, name, facts, changes, built)
        if found:
            actions[name] = found
    _leave_alone(project, facts, actions, ordered, names)
    for name in ordered:
        _follow(project, name, facts, actions)
    begun = {name for name, some in actions.items() if some[-1].verb in _BEGINS}
    for name in reversed(ordered):
        again = rerun(project, name, facts, begun, ()) if name not in actions else None
        if again:
            begun.add(name)
            waiting = tuple(service.name for service, _ in project.dependants(name) if service.name in begun)
            actions[name] = [replace(again, arguments=waiting)]
    _check_what_is_waited_for(project, ordered, facts, actions)
    return Plan(tuple(action for name in ordered for action in actions.get(name, ())))


def changed(plan: Plan, first: Changes) -> list[tuple[str, str]]:
    """Return the services in which something has changed, with the cause; not those that only follow others."""
    found: dict[str, str] = {}
    for action in plan.actions:
        if action.verb == "check" or action.arguments:
            continue
        found.setdefault(action.service, first.contexts.get(action.service, action.cause))
    return list(found.items())


def _own(project: Project, name: str, facts: Facts, changes: Changes, built: set[str]) -> list[Action]:
    """Return what a service's own changes call for. `built` collects the images that are got already."""
    service = project.services[name]
    image = _image(service, facts, changes)
    get = [image] if image and service.image not in built else []
    if image:
        built.add(service.image)
    fresh = service.image in built
    if not fresh and completed(project, name, facts):
        cause = changes.restart(name)
        return [Action(name, "start", cause)] if cause else []
    action = service_action(service, facts, fresh)
    if action is None or action.verb == "check":
        cause = changes.restart(name) if facts.containers.get(name) else None
        action = Action(name, "restart", cause) if cause else action
        if name in changes.texts:
            action = Action(name, "recreate", changes.texts[name], force=True)
    return [*get, *([action] if action and not _idle(action, facts) else [])]


def _image(service: Service, facts: Facts, changes: Changes) -> Action | None:
    if facts.images is not None and facts.image_id(service) is None:
        missing = f"image {service.image} is not here"
        if service.builds or service.pull_policy not in ("never", "build"):
            return Action(service.name, "build" if service.builds else "pull", missing)
    cause = changes.contexts.get(service.name)
    return Action(changes.builders.get(service.name, service.name), "build", cause) if cause else None


def _idle(action: Action, facts: Facts) -> bool:
    """Return whether this only waits for what may never come: a service that is unhealthy has not changed."""
    mine = facts.containers.get(action.service, ())
    return action.verb == "check" and any(each.health == "unhealthy" for each in mine)


def _leave_alone(
    project: Project,
    facts: Facts,
    actions: dict[str, list[Action]],
    ordered: Collection[str],
    names: Collection[str],
) -> None:
    """Take out what changed in services that nobody named.

    Compose recreates what has drifted together with what needs it; so where it makes a container, that stays, and is
    told.
    """
    makes = any(some[-1].verb in ("create", "recreate") for name, some in actions.items() if name in names)
    for name in ordered:
        if name in names or name not in actions:
            continue
        last = actions[name][-1]
        if last.verb in ("create", "start", "check") or (last.verb == "recreate" and makes and len(actions[name]) == 1):
            continue
        del actions[name]
        as_it_is = service_action(project.services[name], Facts(facts.containers))
        if as_it_is and not completed(project, name, Facts(facts.containers, completed=facts.completed)):
            actions[name] = [as_it_is]


def _follow(project: Project, name: str, facts: Facts, actions: dict[str, list[Action]]) -> None:
    """Have a service follow those that it depends on with `restart: true`. Called in dependency order."""
    service = project.services[name]
    if name in actions and actions[name][-1].verb not in ("check", "restart"):
        return
    if not any(each.running for each in facts.containers.get(name, ())):
        return
    leaders = [
        entry.service
        for entry in service.depends_on
        if entry.restart and entry.service in actions and actions[entry.service][-1].verb in _RENEWS
    ]
    if not leaders:
        return
    anew = [each for each in leaders if actions[each][-1].verb == "recreate" and _shares(service, each)]
    if anew:
        # It lives in a namespace of the container, which goes with it.
        actions[name] = [
            Action(name, "recreate", f"it shares a namespace with {anew[0]}, which is made anew", (anew[0],))
        ]
    elif name not in actions or actions[name][-1].verb == "check":
        cause = f"{leaders[0]} is renewed, and {name} asks to follow it"
        actions[name] = [Action(name, "restart", cause, tuple(leaders))]


def _shares(service: Service, other: str) -> bool:
    modes = (service.raw.get(key) for key in ("network_mode", "ipc", "pid"))
    return f"service:{other}" in modes


def _check_what_is_waited_for(
    project: Project, ordered: Collection[str], facts: Facts, actions: dict[str, list[Action]]
) -> None:
    """Have a service watched that is not healthy yet where one that is renewed waits for its health."""
    for name in ordered:
        if name in actions:
            continue
        waiting = [
            service.name
            for service, entry in project.dependants(name)
            if entry.condition == "service_healthy" and service.name in actions
        ]
        mine = facts.containers.get(name, ())
        unhealthy = [each for each in mine if each.running and each.health == "unhealthy"]
        if waiting and unhealthy:
            actions[name] = [Action(name, "check", f"{waiting[0]} waits for it, and its health is unhealthy")]
