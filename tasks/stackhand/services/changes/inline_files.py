"""Secrets and configs from `environment:` or `content:`, which Compose copies into a container as files.

The container has the text it was made with; it is compared with the text that it would get now, so nothing has to be
remembered. Only a new container gets the new text: neither a restart nor a start copies it (tried with Compose 2.26).
The syntax: https://docs.docker.com/reference/compose-file/secrets/ and …/configs/.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project


@dataclass(frozen=True)
class InlineFile:
    """One file that Compose writes into a container: which secret or config, its path there, and its text."""

    what: str
    target: str
    text: str = field(repr=False)


def inline_files_of(project: Project, name: str, environ: Mapping[str, str]) -> Iterator[InlineFile]:
    """Yield the files that a new container of a service would get. The start reports a variable that is not set."""
    raw = project.services[name].raw
    for what, folder, variables, written in (
        ("secret", "/run/secrets/", project.secret_variables, {}),
        ("config", "/", project.config_variables, project.config_texts),
    ):
        for entry in raw.get(f"{what}s") or ():
            key, target = entry["source"], entry.get("target") or entry["source"]
            text = written.get(key, environ.get(variables.get(key, "")))
            if text is not None:
                yield InlineFile(f"{what} {key}", target if target.startswith("/") else f"{folder}{target}", text)


def changed(
    project: Project,
    containers: Mapping[str, Collection[Container]],
    environ: Mapping[str, str],
    read: Callable[[str, str], bytes | None],
) -> dict[str, str]:
    """Return the services that run with an outdated text, each with the cause.

    `read` returns the content of a file in a container, None where there is no such file.
    """
    causes: dict[str, str] = {}
    for name in project.services:
        for given in inline_files_of(project, name, environ):
            for container in containers.get(name, ()):
                has = read(container.id, given.target) if container.running else None
                if has is not None and has != given.text.encode():
                    causes.setdefault(name, f"{given.what} changed since its start")
    return causes
