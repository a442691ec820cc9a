"""Decides where a start gets what containers are made from: images pulled or built, and what providers say."""

from __future__ import annotations

from collections.abc import Sequence

from stackhand.engine.compose.project import Project, Service
from stackhand.services.start.facts import NOT_PROVIDED, Facts, provided
from stackhand.services.start.plan import MAKES, StartAction


def image_actions(project: Project, names: Sequence[str], facts: Facts, rebuild: bool) -> dict[str, StartAction]:
    """Return whose image has to be got. What is built on an image that is built again, is built again, too."""
    images = {name: _image_action(project.services[name], facts, rebuild) for name in names}
    found = {name: action for name, action in images.items() if action}
    again = [name for name in found if found[name].verb == "build" and facts.image_id(project.services[name])]
    while again:
        base = again.pop()
        for name in names:
            if name not in found and base in project.services[name].built_on:
                found[name] = StartAction(name, "build", f"{base}, which it is built on, is built again")
                again.append(name)
    return found


def with_providers(
    project: Project, names: Sequence[str], facts: Facts, actions: Sequence[StartAction]
) -> list[StartAction]:
    """Add the asking of providers: where one has not said that it is ready, and where what depends on it is made.

    What a provider says goes into the environment of what depends on it, when Compose makes both in one call.
    """
    made = [action.service for action in actions if action.verb in MAKES]
    asked: dict[str, StartAction] = {}
    for name in names:
        if not project.services[name].provider:
            continue
        dependants = [service.name for service, _ in project.dependants(name) if service.name in names]
        maker = next((each for each in dependants if each in made), None)
        if not provided(project, name, facts.containers, facts.provided, facts.hashes.get(name, "")):
            asked[name] = StartAction(name, "create", NOT_PROVIDED)
            for each in dependants:
                if facts.of(each) and each not in made:
                    cause = f"the provider of {name} is asked; kept if it says the same"
                    asked[each] = StartAction(each, "recreate", cause, certain=False)
        elif maker:
            asked[name] = StartAction(name, "create", f"{maker} is made, and gets what its provider says")
    return [*(action for action in actions if action.service not in asked), *asked.values()]


def _image_action(service: Service, facts: Facts, rebuild: bool) -> StartAction | None:
    if service.replicas == 0:
        return None  # no container of it will need one
    here = facts.images is None or facts.image_id(service) is not None
    policy = service.pull_policy
    if service.builds and (rebuild or policy == "build" or not here):
        cause = "asked to rebuild" if rebuild else f"image {service.image} is not here"
        return StartAction(service.name, "build", "pull_policy: build" if policy == "build" else cause)
    if service.builds or policy in ("never", "build"):
        return None
    if policy == "always":
        return StartAction(service.name, "pull", "pull_policy: always")
    age, interval = facts.image_ages.get(service.image), service.pull_interval
    if age is not None and interval is not None and age > interval:
        return StartAction(service.name, "pull", f"pull_policy: {policy}, and image {service.image} is older")
    return None if here else StartAction(service.name, "pull", f"image {service.image} is not here")
