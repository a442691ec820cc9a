"""What the images that are here were built from, and whether that has changed since."""

from __future__ import annotations

import hashlib
import json
import secrets
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stackhand.engine.api import build_context
from stackhand.engine.api.build_context import BuildContext
from stackhand.engine.api.client import Engine
from stackhand.engine.compose.project import Project, Service
from stackhand.output.redact import MASK
from stackhand.output.secret_values import is_secret_name, passwords
from stackhand.state.folder import StateFolder

_MEMORY = "builds"
# Slow on purpose: a password among the build arguments must not be found by trying what gives the same digest.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}


@dataclass(frozen=True)
class Source:
    """What a build would be made from now.

    `definition` is a digest of the `build:` section without the secrets among its arguments, which are in `hidden`.
    """

    definition: str
    hidden: str
    context: BuildContext


@dataclass(frozen=True)
class BuildRecord:
    """What is remembered of a build: the image that came of it, and digests of what it was made from."""

    image: str
    definition: str
    listing: str
    content: str
    salt: str = ""
    hidden: str = ""


class Builds:
    """Knows what was built from what."""

    def __init__(self, engine: Engine, state: StateFolder) -> None:
        self._engine = engine
        self._state = state

    def sources(self, project: Project, names: Collection[str]) -> dict[str, Source]:
        """Return what would be built now, of these services and of what they are built on, from a folder here."""
        found: dict[str, Source] = {}
        known: dict[str, Source] = {}
        private = [*project.secret_files.values()]
        for name in _with_bases(project, names):
            service = project.services[name]
            if not service.builds:
                continue
            # api, worker and migrate are often one build: it is looked at once.
            key = json.dumps([service.image, service.raw.get("build")], sort_keys=True, default=str)
            if key not in known:
                source = _source(service, private)
                if source is None:
                    continue
                known[key] = source
            found[name] = known[key]
        return found

    def changed(
        self, project: Project, sources: Mapping[str, Source], images: Mapping[str, str | None]
    ) -> dict[str, str]:
        """Return the services whose image has to be built again, each with the cause."""
        memory = self._recall()
        causes: dict[str, str] = {}
        for name, source in sources.items():
            image = images.get(project.services[name].image)
            if not image:
                continue  # it is built because it is not here
            cause = rebuild_cause(source, memory.get(name), image, lambda n=name: self._created(project, n))  # type: ignore[misc]
            if cause:
                causes[name] = cause
        for name in sources:
            changed = [base for base in _with_bases(project, [name]) if base in causes and base != name]
            if changed and images.get(project.services[name].image):
                causes.setdefault(name, f"{changed[0]}, which it is built on: {causes[changed[0]]}")
        return causes

    def remember(self, project: Project, sources: Mapping[str, Source], images: Mapping[str, str | None]) -> None:
        """Remember that these images are what these sources give."""
        before = self._recall()
        memory = {name: record for name, record in before.items() if name in project.services}
        for name, source in sources.items():
            image = images.get(project.services[name].image)
            known = before.get(name)
            if image and not (known and known.image == image and _same(source, known)):
                memory[name] = record_of(source, image)
        if memory != before:
            self._state.remember(_MEMORY, {name: vars(each) for name, each in memory.items()})

    def remember_current(self, project: Project, sources: Mapping[str, Source]) -> None:
        """Remember that the images which are here now are what these sources give."""
        names = {project.services[name].image for name in sources}
        self.remember(project, sources, {name: self._engine.image_id(name) for name in names})

    def siblings(self, project: Project, names: Collection[str]) -> list[str]:
        """Return the services that are built exactly as one of these is, into the same image; these among them."""
        wanted = [(project.services[name].image, project.services[name].raw.get("build")) for name in names]
        return [
            name for name, service in project.services.items() if (service.image, service.raw.get("build")) in wanted
        ]

    def builder(self, project: Project, name: str) -> str:
        """Return for which of the services that share an image it is built: for the one that it was built for before.

        Compose labels an image with the service; built for another one it would be another image, from the same files.
        """
        image = self._engine.image(project.services[name].image)
        return image.built_for if image and image.built_for in self.siblings(project, [name]) else name

    def _created(self, project: Project, name: str) -> datetime | None:
        """Return when a service's image was made, by this machine's clock, as the times of its files are."""
        image = self._engine.image(project.services[name].image)
        return image.created - self._engine.clock_offset() if image and image.created else None

    def _recall(self) -> dict[str, BuildRecord]:
        found = self._state.recall(_MEMORY)
        memory: dict[str, BuildRecord] = {}
        for name, entry in found.items() if isinstance(found, dict) else ():
            try:
                memory[name] = BuildRecord(**entry)
            except TypeError:
                continue  # of another version: as if nothing were remembered
        return memory


def _with_bases(project: Project, names: Collection[str]) -> list[str]:
    """Return these services, and those whose images theirs are built on."""
    found: dict[str, None] = {}
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name not in found and name in project.services:
            found[name] = None
            queue += project.services[name].built_on
    return list(found)


def rebuild_cause(
    source: Source, known: BuildRecord | None, image: str, created: Callable[[], datetime | None]
) -> str | None:
    """Return why an image has to be built again, None where it is what its source gives.

    Where nothing is remembered of this image (Compose itself built it), the times decide: a file that is newer than the
    image counts as changed. At worst that costs a build from the cache, which gives the same image.
    """
    if known is None or known.image != image:
        made, newest = created(), source.context.newest
        if made and newest and newest.newest > made.timestamp():
            return f"{_name(newest)} is newer than its image, and nothing is remembered of its build"
        return None
    if known.definition != source.definition or _hidden(source.hidden, known.salt) != known.hidden:
        return "its build settings changed"
    if known.listing == source.context.listing or known.content == source.context.content:
        return None
    last = source.context.last_written
    return "its build context changed" + (f", last written: {_name(last)}" if last else "")


def record_of(source: Source, image: str) -> BuildRecord:
    """Return what to remember of a build."""
    salt = secrets.token_hex(16) if source.hidden else ""
    return BuildRecord(
        image=image,
        definition=source.definition,
        listing=source.context.listing,
        content=source.context.content,
        salt=salt,
        hidden=_hidden(source.hidden, salt),
    )


def _same(source: Source, known: BuildRecord) -> bool:
    return (
        known.definition == source.definition
        and known.listing == source.context.listing
        and _hidden(source.hidden, known.salt) == known.hidden
    )


def _hidden(text: str, salt: str) -> str:
    if not text:
        return ""
    return hashlib.scrypt(text.encode(), salt=salt.encode(), **_SCRYPT).hex()


def _name(entry: build_context.ContextEntry) -> str:
    name = entry.name.partition("/")[2] or entry.path.name
    return f"{name}/" if stat.S_ISDIR(entry.status.st_mode) else name


def _source(service: Service, private: Collection[Path]) -> Source | None:
    """Return what a service is built from; None where that is not a folder here (a git repository, say)."""
    build: Mapping[str, Any] = service.raw.get("build") or {}
    context = Path(build.get("context") or ".")
    if not context.is_dir():
        return None
    additional = build.get("additional_contexts") or {}
    folders = [context, *(Path(each) for _, each in sorted(additional.items()) if Path(each).is_dir())]
    inline = build.get("dockerfile_inline")
    dockerfile = None if inline else context / (build.get("dockerfile") or "Dockerfile")
    arguments: Mapping[str, Any] = build.get("args") or {}
    hidden = {key: value for key, value in arguments.items() if value and _is_secret(key, str(value))}
    public = {**build, "args": {key: MASK if key in hidden else value for key, value in arguments.items()}}
    text = json.dumps([service.image, service.raw.get("platform"), public], sort_keys=True, default=str)
    return Source(
        definition=hashlib.sha256(text.encode()).hexdigest(),
        hidden=json.dumps(hidden, sort_keys=True) if hidden else "",
        context=build_context.read(folders, dockerfile, private),
    )


def _is_secret(name: str, value: str) -> bool:
    return is_secret_name(name) or any(passwords(value))
