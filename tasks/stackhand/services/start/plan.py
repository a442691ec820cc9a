"""The plan of a start: nodes with a cause, and what each of them needs. A run carries out this plan and nothing else.

What is printed by `--dry` are the plan's actions; `str(plan)` prints the nodes, as tests compare them:

    pull db: image db is not here
    create db: it has no container <- pull db
    start db <- create db
    check db <- start db
    restart api: db was recreated, and api asks to follow it <- check db
    check api <- restart api

Modelled on Compose's own plan (docker/compose v5, pkg/compose/plan.go and reconcile.go), which ends where containers
are made; this one has the starts and the waiting too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stackhand.engine.compose.project import Project
from stackhand.graph import schedule
from stackhand.model import Action, Plan

Verb = Literal["pull", "build", "create", "recreate", "start", "restart", "check"]
"""What a node does to its service.

`pull`, `build`: get its image. `create`: make its containers. `recreate`: have Compose replace them; it keeps what is
as it should be. `start`, `restart`: have its containers running. `check`: watch them until they are ready.
"""
IMAGES: tuple[Verb, ...] = ("pull", "build")
MAKES: tuple[Verb, ...] = ("create", "recreate")
LAUNCHES: tuple[Verb, ...] = ("start", "restart")


@dataclass(frozen=True)
class StartAction(Action):
    """Something to do to a service, and why. `arguments` are the services whose restart it follows, if any."""

    verb: Verb


@dataclass(frozen=True)
class Node:
    """One step of a plan. Bringing a service up has two: its containers run (`start`), it is ready (`check`)."""

    verb: Verb
    service: str

    def __str__(self) -> str:
        return f"{self.verb} {self.service}"


@dataclass(frozen=True)
class StartPlan(Plan):
    """Actions in dependency order, and the graph of nodes that they come to.

    `needs` has for each node those that have to succeed before it. `after` has those that it only waits for, whatever
    becomes of them (`required: false`).
    """

    actions: tuple[StartAction, ...] = ()
    needs: Mapping[Node, tuple[Node, ...]] = field(default_factory=dict)
    after: Mapping[Node, tuple[Node, ...]] = field(default_factory=dict)

    def services(self, *verbs: Verb) -> list[str]:
        """Return the services that have something to do, or one of these things, in order."""
        return list(dict.fromkeys(a.service for a in self.actions if not verbs or a.verb in verbs))

    def __str__(self) -> str:
        causes = {(action.verb, action.service): action.cause for action in self.actions}
        lines = []
        for node, needs in self.needs.items():
            cause = causes.get((node.verb, node.service))
            line = f"{node}: {cause}" if cause else str(node)
            line += f" <- {', '.join(map(str, needs))}" if needs else ""
            weak = self.after.get(node)
            lines.append(line + (f" ~ {', '.join(map(str, weak))}" if weak else ""))
        return "\n".join(lines)


def connect(project: Project, actions: Iterable[StartAction], blocked: Mapping[str, str] | None = None) -> StartPlan:
    """Return the plan of these actions, in dependency order, with the nodes that they come to.

    `blocked` has services that may not go on without another one, which fails (`unable`): they come after it, also
    where what lies between the two has nothing to do.
    """
    blocked = blocked or {}
    ordered = _in_order(project, list(actions))
    images = {project.services[a.service].image: Node(a.verb, a.service) for a in ordered if a.verb in IMAGES}
    launches = {a.service: _launch(a) for a in ordered if a.verb in (*MAKES, *LAUNCHES)}
    checks = {a.service: Node("check", a.service) for a in ordered if a.verb not in IMAGES}
    hard: dict[Node, tuple[Node, ...]] = {}
    weak: dict[Node, tuple[Node, ...]] = {}
    for action in ordered:
        service, node = project.services[action.service], Node(action.verb, action.service)
        if action.verb in IMAGES:
            hard[node] = ()
            continue
        needed: list[Node] = []
        if action.verb in MAKES:
            hard[node] = (images[service.image],) if service.image in images else ()
            needed = [node]
        awaited: list[Node] = []
        for dependency in service.depends_on:
            ends = launches if dependency.condition == "service_started" else checks
            if dependency.service in ends:
                (needed if dependency.required else awaited).append(ends[dependency.service])
        blocker = launches.get(blocked.get(service.name, ""))
        if blocker and blocker.service != service.name and blocker not in needed:
            needed.append(blocker)
        check = checks[service.name]
        first = launches.get(service.name, check)
        hard[first] = tuple(needed)
        if awaited:
            weak[first] = tuple(awaited)
        if first != check:
            hard[check] = (first,)
    return StartPlan(tuple(ordered), hard, weak)


def _in_order(project: Project, actions: Sequence[StartAction]) -> list[StartAction]:
    """Sort actions so that each service comes after what it depends on, and an image before all that use it."""
    ordered = schedule.order(needs(project, {action.service for action in actions}))
    images = [project.services[name].image for name in ordered]

    def place(action: StartAction) -> tuple[int, int]:
        if action.verb in IMAGES:
            return images.index(project.services[action.service].image), 0
        return ordered.index(action.service), 1

    return sorted(actions, key=place)


def _launch(action: StartAction) -> Node:
    return Node("restart" if action.verb == "restart" else "start", action.service)


def needs(project: Project, names: Collection[str]) -> dict[str, list[str]]:
    """Return each of the services with those among them that it depends on."""
    return {
        name: [entry.service for entry in project.services[name].depends_on if entry.service in names]
        for name in project.services
        if name in names
    }


def unable(project: Project, failed: Collection[str]) -> dict[str, str]:
    """Return the failed services and all that can't do without them, each with the failed one."""
    lost = {name: name for name in failed}
    graph = {
        name: [entry.service for entry in service.depends_on if entry.required]
        for name, service in project.services.items()
    }
    for name in schedule.order(graph):
        cause = next((lost[need] for need in graph[name] if need in lost), None)
        if cause:
            lost.setdefault(name, cause)
    return lost
