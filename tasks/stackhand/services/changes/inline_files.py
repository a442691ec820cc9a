"""Texts that Compose copies into a container that it makes: secrets and configs that are no files of the host.

What a container was given is in it; so it is compared with what it would be given now, and nothing is remembered.
Only a container that is made anew has the new text (tried with Compose 2.26: neither a restart nor a start copies it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project


@dataclass(frozen=True)
class Text:
    """One text that a service is given: what it is, and where it is in the container."""

    what: str
    target: str
    text: str = field(repr=False)


def texts(project: Project, name: str, environ: Mapping[str, str]) -> Iterator[Text]:
    """Yield the texts that a service would be given now; a variable that is not set is told by the start."""
    raw = project.services[name].raw
    for what, folder, variables, written in (
        ("secret", "/run/secrets/", project.secret_variables, {}),
        ("config", "/", project.config_variables, project.config_texts),
    ):
        for entry in raw.get(f"{what}s") or ():
            key, target = entry["source"], entry.get("target") or entry["source"]
            text = written.get(key, environ.get(variables.get(key, "")))
            if text is not None:
                yield Text(f"{what} {key}", target if target.startswith("/") else f"{folder}{target}", text)


def changed(
    project: Project,
    containers: Mapping[str, Collection[Container]],
    environ: Mapping[str, str],
    read: Callable[[str, str], bytes | None],
) -> dict[str, str]:
    """Return the services that run with a text which is another now, each with the cause.

    `read` returns what is in a file of a container, None where there is no such file.
    """
    causes: dict[str, str] = {}
    for name in project.services:
        for given in texts(project, name, environ):
            for container in containers.get(name, ()):
                has = read(container.id, given.target) if container.running else None
                if has is not None and has != given.text.encode():
                    causes.setdefault(name, f"{given.what} changed since its start")
    return causes
