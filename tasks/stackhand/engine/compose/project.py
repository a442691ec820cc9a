"""The Compose project as data, as Compose resolves it; `parse.py` makes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]

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
_OF = "service:"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


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
