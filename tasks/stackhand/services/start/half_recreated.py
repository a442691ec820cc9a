"""Cleans up after a recreate that was killed half way: Compose first makes the new container beside the old one.

The new one is named after the old one's id and name, and a label says which container it replaces. Then Compose stops
and removes the old one and renames the new one. A killed run leaves both, and Compose itself fails on the name at its
next try (docker/compose v5, pkg/compose/reconcile.go: planRecreateContainer; until v2 in
pkg/compose/convergence.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project

_DRAFT = re.compile(r"^[0-9a-f]{12}_(?P<name>.+)$")


def half_made(containers: Sequence[Container]) -> list[Container]:
    """Return the containers that never ran and were made to replace another one which is still there."""
    there = {word for each in containers for word in (each.id, each.name)}
    return [each for each in containers if each.replaces in there and each.status == "created"]


def unrenamed(containers: Sequence[Container]) -> dict[str, str]:
    """Return by id the name of each container that did not get it yet: its predecessor is gone."""
    half = half_made(containers)
    found = {each.id: _DRAFT.match(each.name) for each in containers if each.replaces and each not in half}
    taken = {each.name for each in containers}
    return {key: match["name"] for key, match in found.items() if match and match["name"] not in taken}


def clear(engine: Engine, project: Project, names: Iterable[str]) -> None:
    """Remove containers of these services that are half made, and rename those that only lack their name."""
    for name in names:
        containers = engine.containers(project.name, name)
        for each in half_made(containers):
            engine.remove(each.id)
        for container, called in unrenamed(containers).items():
            engine.rename(container, called)
