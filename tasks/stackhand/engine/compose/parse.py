"""Reads the project from the output of `docker compose config --format json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stackhand.engine.compose.project import Dependency, Port, Project, Service, Volume


def parse(document: Mapping[str, Any], directory: Path, files: Iterable[Path] = ()) -> Project:
    """Return the project of a `docker compose config --format json` document."""
    name = document["name"]
    secrets: Mapping[str, Any] = document.get("secrets") or {}
    configs: Mapping[str, Any] = document.get("configs") or {}
    networks: Mapping[str, Any] = document.get("networks") or {}
    return Project(
        name=name,
        directory=directory,
        services={key: _service(key, raw, name) for key, raw in (document.get("services") or {}).items()},
        networks={key: (raw or {}).get("name") or f"{name}_{key}" for key, raw in networks.items()},
        secret_files=_files(secrets, directory),
        config_files=_files(configs, directory),
        config_variables=_having(configs, "environment"),
        config_texts=_having(configs, "content"),
        volumes={key: _volume(key, raw or {}, name) for key, raw in (document.get("volumes") or {}).items()},
        secret_variables=_having(secrets, "environment"),
        network_hashes={key: network_hash(raw) for key, raw in networks.items() if raw and not raw.get("external")},
        files=tuple(files),
    )


def network_hash(raw: Mapping[str, Any]) -> str:
    """Return the hash that Compose, since 2.30, writes on a network that it makes: of its definition as Go prints JSON.

    `config` prints the definition with its keys in the same order (NetworkHash in
    https://github.com/docker/compose/blob/main/pkg/compose/hash.go).
    """
    text = json.dumps(raw, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()


def _volume(key: str, raw: Mapping[str, Any], project: str) -> Volume:
    labels = {str(name): str(value) for name, value in (raw.get("labels") or {}).items()}
    options = {str(name): str(value) for name, value in (raw.get("driver_opts") or {}).items()}
    name = raw.get("name") or f"{project}_{key}"
    return Volume(name, bool(raw.get("external")), labels, raw.get("driver") or "local", options)


def _files(entries: Mapping[str, Any], directory: Path) -> dict[str, Path]:
    return {key: directory / file for key, file in _having(entries, "file").items()}


def _having(entries: Mapping[str, Any], setting: str) -> dict[str, str]:
    return {key: entry[setting] for key, entry in entries.items() if (entry or {}).get(setting)}


def _service(name: str, raw: Mapping[str, Any], project: str) -> Service:
    deploy: Mapping[str, Any] = raw.get("deploy") or {}
    provider = str((raw.get("provider") or {}).get("type") or "")
    scale = 0 if provider else raw.get("scale", deploy.get("replicas"))
    return Service(
        name=name,
        # Compose's name for the image of a service that has only `build:`.
        image=raw.get("image") or f"{project}-{name}",
        depends_on=tuple(
            Dependency(
                service=key,
                condition=entry.get("condition", "service_started"),
                required=entry.get("required", True),
                restart=entry.get("restart", False),
            )
            for key, entry in (raw.get("depends_on") or {}).items()
        ),
        replicas=1 if scale is None else int(scale),
        profiles=tuple(raw.get("profiles") or ()),
        builds=bool(raw.get("build")),
        pull_policy=raw.get("pull_policy") or "",
        restart=raw.get("restart") or _restart_of(deploy),
        ports=tuple(_ports(raw.get("ports") or ())),
        networks=tuple(raw.get("networks") or ()),
        environment=dict(raw.get("environment") or {}),
        build_arguments=dict((raw.get("build") or {}).get("args") or {}),
        secrets=tuple(entry["source"] for entry in raw.get("secrets") or ()),
        configs=tuple(entry["source"] for entry in raw.get("configs") or ()),
        provider=provider,
        built_on=tuple(_built_on((raw.get("build") or {}).get("additional_contexts") or {})),
        raw=raw,
    )


def _built_on(contexts: Mapping[str, Any]) -> Iterable[str]:
    for context in contexts.values():
        kind, _, name = str(context).partition(":")
        if kind == "service":
            yield name


def _restart_of(deploy: Mapping[str, Any]) -> str:
    condition = (deploy.get("restart_policy") or {}).get("condition")
    return {"any": "always", "on-failure": "on-failure"}.get(condition or "", "no")


def _ports(entries: Iterable[Any]) -> Iterable[Port]:
    for entry in entries:
        published = str(entry.get("published") or "")
        # With a range ("8000-8010") the engine chooses the port.
        if published.isdigit():
            yield Port(int(published), entry.get("protocol") or "tcp")
