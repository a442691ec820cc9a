"""Cleans up after a recreate that was killed half way: Compose first makes the new container beside the old one.

The new one, a draft, is named after the old one's id and name, and a label says what it replaces: an id in older
versions, since 2.3x a name or just the service and number (`web-1`). Then Compose stops and removes the old one and
renames the draft. A killed run leaves both. At its next try Compose itself fails on the name, or, since 2.3x, starts
the draft and leaves its name for good (docker/compose v5, pkg/compose/reconcile.go: planRecreateContainer; until v2 in
pkg/compose/convergence.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project

_DRAFT = re.compile(r"^[0-9a-f]{12}_(?=.)")


def half_made(containers: Sequence[Container]) -> list[Container]:
    """Return the drafts that never ran, and that were made to replace a container which is still there."""
    there = {(each.service, each.number) for each in containers if not _is_draft(each)}
    return [
        each
        for each in containers
        if _is_draft(each) and each.status == "created" and (each.service, each.number) in there
    ]


def unrenamed(containers: Sequence[Container]) -> dict[str, str]:
    """Return by id the name of each container that did not get it yet: its predecessor is gone."""
    half = half_made(containers)
    taken = {each.name for each in containers}
    names = {each.id: _DRAFT.sub("", each.name) for each in containers if _is_draft(each) and each not in half}
    return {key: name for key, name in names.items() if name not in taken}


def left(containers: Sequence[Container]) -> str | None:
    """Return in words what an interrupted run has left of these containers, or None."""
    if half_made(containers):
        return "an interrupted run has left it half made"
    return (
        "an interrupted run has left it under a draft's name; kept if nothing else changed"
        if unrenamed(containers)
        else None
    )


def _is_draft(container: Container) -> bool:
    return bool(container.replaces and _DRAFT.match(container.name))


def clear(engine: Engine, project: Project, names: Iterable[str]) -> None:
    """Remove containers of these services that are half made, and rename those that only lack their name."""
    for name in names:
        containers = engine.containers(project.name, name)
        for each in half_made(containers):
            engine.remove(each.id)
        for container, called in unrenamed(containers).items():
            engine.rename(container, called)
