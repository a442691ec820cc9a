"""Decides what a restart does about all that changed since the services were started: pure, from facts and changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from stackhand.engine.compose.project import Project, Service
from stackhand.graph import schedule
from stackhand.services.start import sharing
from stackhand.services.start.decide import rerun, service_action, with_folder
from stackhand.services.start.facts import Facts, completed, with_network_users
from stackhand.services.start.plan import MAKES, StartAction, StartPlan, connect, needs

Decided = Mapping[str, list[StartAction]]
"""What was decided so far, by service."""


@dataclass(frozen=True)
class Changes:
    """What only a restart looks for, by service and with the cause.

    `contexts`: its image has to be built again, for the service that `builders` names. `files`: a mounted file changed.
    `inline_files`: the text of a secret or config changed that Compose copies into a new container. `interrupted`: a
    restart was interrupted before it came to this service. `named` are the services that the person named.
    """

    contexts: Mapping[str, str] = field(default_factory=dict)
    builders: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    inline_files: Mapping[str, str] = field(default_factory=dict)
    interrupted: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()

    def restart(self, name: str) -> str | None:
        """Return why a service has to restart as it is, or None."""
        asked = "it was asked for by name" if name in self.named else None
        return self.files.get(name) or self.interrupted.get(name) or asked


def scope(project: Project, facts: Facts, names: Collection[str]) -> list[str]:
    """Return the services that a restart of `names` has to do with: what they need, and what asks to follow them."""
    wanted = project.closure(names)
    leaders = list(names)
    while leaders:
        for service, dependency in project.dependants(leaders.pop()):
            runs = any(container.running for container in facts.of(service.name))
            follows = dependency.restart or dependency.service in service.shares
            if follows and runs and service.name not in wanted:
                wanted.append(service.name)
                leaders.append(service.name)
    return with_network_users(project, wanted, facts)


def plan_restart(project: Project, names: Collection[str], facts: Facts, changes: Changes) -> StartPlan:
    """Return what to do about all that changed of the services `names`.

    A service that they depend on is only started where it does not run; what else changed there is for another time.
    The dependants that declare `restart: true` follow. A completed one-shot runs again when it has itself changed, or
    when a service that waits for it was stopped.
    """
    return _Planner(project, names, facts, changes).plan()


def changed(plan: StartPlan, first: Changes) -> list[tuple[str, str]]:
    """Return the services in which something has changed, with the cause; not those that only follow others."""
    found: dict[str, str] = {}
    for action in plan.actions:
        if action.verb == "check" or action.arguments:
            continue
        found.setdefault(action.service, first.contexts.get(action.service, action.cause))
    return list(found.items())


class _Planner:
    """Decides service by service: in dependency order for itself, then against it for what others need of it."""

    def __init__(self, project: Project, names: Collection[str], facts: Facts, changes: Changes) -> None:
        self._project = project
        self._names = names
        self._facts = facts
        self._changes = changes
        self._ordered = schedule.order(needs(project, scope(project, facts, names)))
        images = [self._image(project.services[name]) for name in self._ordered]
        # The image of several services is got once, for the first of them.
        self._images: dict[str, StartAction] = {}
        for name, image in zip(self._ordered, images, strict=True):
            if image:
                self._images.setdefault(project.services[name].image, image)
        own = {name: self._own(name) for name in self._ordered}
        # Compose recreates what has drifted together with what needs it.
        self._compose_makes = any(action and action.verb in MAKES for name, action in own.items() if name in names)

    def plan(self) -> StartPlan:
        decided: dict[str, list[StartAction]] = {}
        for name in self._ordered:
            actions = self._decide(name, decided)
            if actions:
                decided[name] = actions
        for name in reversed(self._ordered):
            action = None if name in decided else self._needed_by_others(name, decided)
            if action:
                decided[name] = [action]
        actions = [action for name in self._ordered for action in decided.get(name, ())]
        return connect(self._project, [with_folder(action, self._facts) for action in actions])

    def _decide(self, name: str, decided: Decided) -> list[StartAction]:
        """Return what a service needs for itself, given what was decided for those that it depends on."""
        action, image = self._own(name), self._images.get(self._project.services[name].image)
        get = [image] if image and not any(image in actions for actions in decided.values()) else []
        if name not in self._names and not self._is_told(action, gets_image=bool(get)):
            action, get = self._as_it_is(name) if action else None, []
        action = self._follow(name, action, decided) or action
        return [*get, action] if action else get

    def _own(self, name: str) -> StartAction | None:
        """Return what a service's own changes call for."""
        fresh = self._project.services[name].image in self._images
        cause = self._changes.restart(name)
        if not fresh and completed(self._project, name, self._facts):
            return StartAction(name, "start", cause) if cause else None
        action = service_action(self._project, name, self._facts, image_changes=fresh)
        if action is None or action.verb == "check":
            if name in self._changes.inline_files:
                return StartAction(name, "recreate", self._changes.inline_files[name], force=True)
            if cause and self._facts.of(name):
                return StartAction(name, "restart", cause)
        return self._unless_unhealthy(action)

    def _image(self, service: Service) -> StartAction | None:
        if service.replicas == 0:
            return None  # no container of it will need one
        facts, changes = self._facts, self._changes
        if facts.images is not None and facts.image_id(service) is None:
            missing = f"image {service.image} is not here"
            if service.builds or service.pull_policy not in ("never", "build"):
                return StartAction(service.name, "build" if service.builds else "pull", missing)
        cause = changes.contexts.get(service.name)
        return StartAction(changes.builders.get(service.name, service.name), "build", cause) if cause else None

    def _is_told(self, action: StartAction | None, *, gets_image: bool) -> bool:
        """Return whether what a service that was not named needs belongs to the plan.

        It is started where it does not run. Where Compose makes a container for one that was named, it recreates what
        has drifted here; so that stays, and is told.
        """
        if action is None:
            return False
        return action.verb in ("create", "start", "check") or (
            action.verb == "recreate" and self._compose_makes and not gets_image
        )

    def _as_it_is(self, name: str) -> StartAction | None:
        """Return what a service needs to be ready as it was made."""
        facts = Facts(self._facts.containers, completed=self._facts.completed)
        if completed(self._project, name, facts):
            return None
        return self._unless_unhealthy(service_action(self._project, name, facts))

    def _unless_unhealthy(self, action: StartAction | None) -> StartAction | None:
        """Return an action, None where it only waits for an unhealthy service: that may never become healthy."""
        if action and action.verb == "check":
            unhealthy = any(container.health == "unhealthy" for container in self._facts.of(action.service))
            return None if unhealthy else action
        return action

    def _follow(self, name: str, action: StartAction | None, decided: Decided) -> StartAction | None:
        """Return how a service follows what it shares something with, or depends on with `restart: true`; or None."""
        service = self._project.services[name]
        verbs = {each: actions[-1].verb for each, actions in decided.items()}
        if service.shares and (action is None or action.verb not in MAKES):
            shared = sharing.renewal(self._project, name, self._facts.containers, verbs)
            if shared:
                return shared
        if action and action.verb not in ("check", "restart"):
            return None
        if not any(container.running for container in self._facts.of(name)):
            return None
        leaders = {
            entry.service: verbs[entry.service]
            for entry in service.depends_on
            if entry.restart and entry.service in verbs
        }
        renewed = tuple(leader for leader, verb in leaders.items() if verb in ("recreate", "restart"))
        if renewed and (action is None or action.verb == "check"):
            return StartAction(name, "restart", f"{renewed[0]} is renewed, and {name} asks to follow it", renewed)
        return None

    def _needed_by_others(self, name: str, decided: Decided) -> StartAction | None:
        """Return what a service that needs nothing for itself has to do for its dependants."""
        begun = {other for other, actions in decided.items() if actions[-1].verb in ("create", "start")}
        again = rerun(self._project, name, self._facts, begun, ())
        dependants = self._project.dependants(name)
        if again:
            return replace(again, arguments=tuple(service.name for service, _ in dependants if service.name in begun))
        waiting = [s.name for s, entry in dependants if entry.condition == "service_healthy" and s.name in decided]
        unhealthy = any(each.running and each.health == "unhealthy" for each in self._facts.of(name))
        if waiting and unhealthy:
            return StartAction(name, "check", f"{waiting[0]} waits for it, and its health is unhealthy")
        return None
