"""The graph of a start, and small looks at it: what needs what, what fell, what was made anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.services.start.record import Failure, Record


@dataclass(frozen=True)
class Node:
    """One half of bringing a service up: its containers run (`start`), it is ready (`ready`)."""

    service: str
    stage: Literal["start", "ready"]

    def __str__(self) -> str:
        return f"{self.service} {self.stage}"


def nodes(project: Project, busy: Collection[str]) -> tuple[dict[Node, list[Node]], dict[Node, list[Node]]]:
    """Return the graph of a start: what each node needs, and what it only waits for (`required: false`)."""
    hard: dict[Node, list[Node]] = {}
    weak: dict[Node, list[Node]] = {}
    for name in project.services:
        if name not in busy:
            continue
        start = Node(name, "start")
        hard[start], weak[start] = [], []
        hard[Node(name, "ready")] = [start]
        for dependency in project.services[name].depends_on:
            stage: Literal["start", "ready"] = "start" if dependency.condition == "service_started" else "ready"
            (hard if dependency.required else weak)[start].append(Node(dependency.service, stage))
    return hard, weak


def fell(record: Record, containers: Sequence[Container]) -> bool:
    """Return whether a service that was ready no longer runs."""
    if record.state in ("healthy", "running"):
        return not containers or not all(container.running for container in containers)
    return False


def recreated(
    names: Collection[str], before: Mapping[str, Sequence[Container]], now: Mapping[str, Sequence[Container]]
) -> set[str]:
    """Return which of these services have lost a container that they had before."""
    return {
        name
        for name in names
        if {each.id for each in before.get(name, ()) if each.status != "created"}
        - {each.id for each in now.get(name, ())}
    }


def impossible(project: Project, name: str, records: Mapping[str, Record]) -> Failure | None:
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
