"""The Compose project as data, from the output of `docker compose config --format json`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
NUMBER_LABEL = "com.docker.compose.container-number"
# Settings of a service that are complete in the engine once the container is created.
_MADE_AT_CREATION = frozenset(
    """
    annotations blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_count
    cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset depends_on deploy
    device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose extra_hosts
    group_add healthcheck hostname image init isolation labels logging mac_address mem_limit mem_reservation
    mem_swappiness memswap_limit networks oom_kill_disable oom_score_adj pids_limit platform ports privileged profiles
    pull_policy read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal
    storage_opt sysctls tmpfs tty ulimits user userns_mode uts volumes working_dir
    """.split()  # noqa: SIM905  seventy lines otherwise
)

# Namespaces are settled, too, if they are not of another service.
_NAMESPACES = {"network_mode", "ipc", "pid"}
_OWN_NAMESPACES = {"none", "host", "bridge", "default", "private", "shareable"}

# A label of our own: names the kind of a service that cannot be recognised.
KIND_LABEL = "stackhand.kind"
_OF = "service:"
ONEOFF_LABEL = "com.docker.compose.oneoff"
HASH_LABEL = "com.docker.compose.config-hash"
REPLACE_LABEL = "com.docker.compose.replace"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NETWORK_LABEL = "com.docker.compose.network"
# The folder and the files that a container was made from, as paths of the machine on which Compose ran.
FOLDER_LABEL = "com.docker.compose.project.working_dir"
FILES_LABEL = "com.docker.compose.project.config_files"


@dataclass(frozen=True)
class Dependency:
    """One `depends_on` entry: https://docs.docker.com/reference/compose-file/services/#depends_on."""

    service: str
    condition: Condition = "service_started"
    required: bool = True
    restart: bool = False


Shared = Literal["network", "ipc", "pid", "volumes"]
"""What a container can have of another one: one of its namespaces, or its volumes."""


@dataclass(frozen=True)
class Port:
    """One published port of a service."""

    published: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class Volume:
    """One named volume of the compose file: its name in the engine, whether it is external, and what it is made of."""

    name: str
    external: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "local"
    driver_opts: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the engine's machine that it stands for, if its options name one; else empty."""
        return self.driver_opts.get("device", "") if "bind" in self.driver_opts.get("o", "").split(",") else ""


@dataclass(frozen=True)
class Service:
    """One service, as Compose resolved it.

    `replicas` is the number of its containers: none where a `provider` brings it up, a program that Compose runs
    (https://docs.docker.com/compose/how-tos/provider-services/). `built_on` are the services whose images are build
    contexts of its own (`service:NAME`). `raw` is Compose's own JSON, for settings that only
    one module needs.
    """

    name: str
    image: str
    depends_on: tuple[Dependency, ...] = ()
    replicas: int = 1
    profiles: tuple[str, ...] = ()
    builds: bool = False
    pull_policy: str = ""
    restart: str = "no"
    ports: tuple[Port, ...] = ()
    networks: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    build_arguments: Mapping[str, str | None] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    provider: str = ""
    built_on: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pull_interval(self) -> float | None:
        """After how many seconds its image is pulled again: `daily`, `weekly`, `every_1d12h`. None: not by time.

        https://docs.docker.com/reference/compose-file/services/#pull_policy
        """
        named = {"daily": "1d", "weekly": "1w"}
        text = named.get(self.pull_policy, self.pull_policy.removeprefix("every_"))
        if text == self.pull_policy or not re.fullmatch(r"(\d+(ms|[wdhms]))+", text):
            return None
        return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[wdhms])", text))

    @property
    def may_end(self) -> bool:
        """Whether its containers stay down once they have exited with 0: its restart policy starts them no more."""
        return self.restart.partition(":")[0] in ("", "no", "on-failure")

    @cached_property
    def shares(self) -> Mapping[str, frozenset[Shared]]:
        """The services of which it has a namespace or the volumes, each with what that is.

        From `network_mode`, `ipc`, `pid`, `volumes_from`: https://docs.docker.com/reference/compose-file/services/.
        """
        modes: tuple[tuple[Shared, Any], ...] = (
            ("network", self.raw.get("network_mode")),
            ("ipc", self.raw.get("ipc")),
            ("pid", self.raw.get("pid")),
        )
        found = [(str(mode)[len(_OF) :], what) for what, mode in modes if str(mode).startswith(_OF)]
        # `NAME` or `NAME:ro`; `container:NAME` is no service.
        entries = [str(entry) for entry in self.raw.get("volumes_from") or ()]
        found += [(entry.partition(":")[0], "volumes") for entry in entries if not entry.startswith("container:")]
        return {name: frozenset(what for other, what in found if other == name) for name, _ in found}


@dataclass(frozen=True)
class Project:
    """A whole Compose project. All mappings have the keys of the compose file.

    `networks` has the networks' names in the engine, `network_hashes` the hashes of those that Compose makes. Secrets
    and configs come from files (`secret_files`, `config_files`), from environment variables (`secret_variables`,
    `config_variables`), or have their text in the compose file itself (`config_texts`). `files` are the compose files
    that it was read from, where that is known.
    """

    name: str
    directory: Path
    services: Mapping[str, Service]
    networks: Mapping[str, str] = field(default_factory=dict)
    secret_files: Mapping[str, Path] = field(default_factory=dict)
    secret_variables: Mapping[str, str] = field(default_factory=dict)
    config_files: Mapping[str, Path] = field(default_factory=dict)
    config_variables: Mapping[str, str] = field(default_factory=dict)
    config_texts: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    network_hashes: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def files_of(self, name: str) -> list[tuple[str, str, Path]]:
        """Return the secrets and configs of a service that come from files, as (`secret` or `config`, key, file)."""
        service = self.services[name]
        return [
            (what, key, files[key])
            for what, keys, files in (
                ("secret", service.secrets, self.secret_files),
                ("config", service.configs, self.config_files),
            )
            for key in keys
            if key in files
        ]

    def starts_without_compose(self, name: str) -> bool:
        """Return whether the engine alone can start this service's containers.

        At a start, Compose copies in secrets and configs from `environment:` or `content:`, and runs hooks. This is
        true only if all settings of the service are known to be complete when its container is created; so it is false
        for a setting that a newer Compose brings.
        """
        service = self.services[name]
        settled = {key for key in _NAMESPACES if service.raw.get(key) in _OWN_NAMESPACES}
        return (
            _MADE_AT_CREATION.union(settled).issuperset(service.raw)
            and all(key in self.secret_files for key in service.secrets)
            and all(key in self.config_files for key in service.configs)
        )

    def closure(self, names: Iterable[str], *, required_only: bool = False) -> list[str]:
        """Return `names` and all their direct and indirect dependencies, in no particular order.

        With `required_only`, dependencies with `required: false` are left out.
        """
        found: dict[str, None] = {}
        queue = list(names)
        while queue:
            name = queue.pop()
            if name in found or name not in self.services:
                continue
            found[name] = None
            entries = self.services[name].depends_on
            queue.extend(entry.service for entry in entries if entry.required or not required_only)
        return list(found)

    def dependants(self, name: str) -> list[tuple[Service, Dependency]]:
        """Return the services that directly depend on `name`, each with its `depends_on` entry."""
        return [
            (service, dependency)
            for service in self.services.values()
            for dependency in service.depends_on
            if dependency.service == name
        ]

    def sharers(self, name: str) -> list[Service]:
        """Return the services that have a namespace or the volumes of this one's container."""
        return [service for service in self.services.values() if name in service.shares]

    def is_one_shot(self, name: str) -> bool:
        """Return whether a service waits for this one to complete."""
        return any(entry.condition == "service_completed_successfully" for _, entry in self.dependants(name))


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
