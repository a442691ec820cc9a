"""A cache of the names of a project's services, and of what they depend on: listing tasks need not ask Compose.

Only listing, completion and the task objects use it. A start always reads the project itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stackhand.engine.compose.files import chosen_files, state_directory
from stackhand.errors import StateFolderUnwritable
from stackhand.state.folder import StateFolder

if TYPE_CHECKING:
    from stackhand.engine.compose.project import Project

Catalogue = dict[str, list[str]]
"""Each service with the services it depends on, as `[condition, required, name]` joined by blanks."""

_MENTIONED = re.compile(r"(?:\$\{[^}]*\}|[^\s\"'\[\],{}])+\.ya?ml")


def read(directory: Path, environ: Mapping[str, str], whole: Callable[[], Project], *, dry: bool = False) -> Catalogue:
    """Return every service of the project in this folder, whatever its profile, with its dependencies.

    `whole` reads the project with all its profiles; it is called, and may raise, when nothing is remembered. Where
    `dry`, nothing is written.
    """
    state = StateFolder(state_directory(directory, environ), environ)
    key = fingerprint(directory, environ)
    remembered = state.recall("catalogue")
    try:
        services: Catalogue = remembered["services"]
        # As Compose has it; anything else would be no name that it let pass.
        if key and remembered["key"] == key and all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in services):
            return services
    except (KeyError, TypeError):
        pass  # not what we have written
    services = of(whole())
    if key and not dry:
        # A project that can't be written to is simply read every time.
        with contextlib.suppress(StateFolderUnwritable):
            state.remember("catalogue", {"key": key, "services": services})
    return services


def of(project: Project) -> Catalogue:
    """Return the catalogue of a project."""
    return {
        name: [f"{d.condition} {int(d.required)} {d.service}" for d in service.depends_on]
        for name, service in project.services.items()
    }


def fingerprint(directory: Path, environ: Mapping[str, str]) -> str:
    """Return a key that changes when the compose files do, or "" if that is not certain.

    Files that a compose file mentions (`include`, `extends`) count as well: every word that ends like a YAML file
    and is one. A mention with a variable in it can't be followed, so such a project is always read afresh.
    """
    parts = [f"{name}={value}" for name, value in sorted(environ.items()) if name.startswith("COMPOSE_")]
    queue = [directory / name for name in (*chosen_files(directory, environ), ".env")]
    seen: set[Path] = set()
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            stat = path.stat()
            text = path.read_text(encoding="utf-8", errors="replace") if path.suffix != "" else ""
        except OSError:
            continue
        parts.append(f"{path}:{stat.st_mtime_ns}:{stat.st_size}")
        mentioned = _MENTIONED.findall(text) if path.name != ".env" else []
        if any("$" in word for word in mentioned):
            return ""
        queue.extend(_files(path.parent, mentioned))
    return hashlib.sha256("\0".join(sorted(parts)).encode()).hexdigest()


def _files(folder: Path, words: Iterable[str]) -> Iterable[Path]:
    return (folder / word for word in words if (folder / word).is_file())
