"""Snapshots of containers and images: the engine's answer at one moment, as frozen data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from stackhand.engine.compose.labels import (
    FILES_LABEL,
    FOLDER_LABEL,
    HASH_LABEL,
    NUMBER_LABEL,
    REPLACE_LABEL,
    SERVICE_LABEL,
)
from stackhand.engine.compose.project import Shared

Health = Literal["none", "starting", "healthy", "unhealthy"]

_NANOSECONDS = 1e9
# Seconds. The engine's defaults: https://docs.docker.com/reference/dockerfile/#healthcheck
_DEFAULT_INTERVAL = 30.0
_DEFAULT_TIMEOUT = 30.0
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Healthcheck:
    """A container's healthcheck: the argv to run inside it; all times in seconds.

    For `start_period` after a start the engine runs it every `start_interval`, which engines before 25 do not know (0):
    https://docs.docker.com/reference/dockerfile/#healthcheck
    """

    argv: tuple[str, ...]
    interval: float = _DEFAULT_INTERVAL
    timeout: float = _DEFAULT_TIMEOUT
    start_period: float = 0.0
    start_interval: float = 0.0

    def every(self, up: float) -> float:
        """Return how often the engine runs it where a container that has no verdict yet has run for `up` seconds."""
        return self.start_interval if self.start_interval and up < self.start_period else self.interval


@dataclass(frozen=True)
class Attachment:
    """A container on a network: its address, and the names that resolve to it (None: not read).

    `network_id` is the network that it was attached to, empty as long as the container has not run.
    """

    address: str = ""
    aliases: frozenset[str] | None = None
    network_id: str = ""


@dataclass(frozen=True)
class Container:
    """One container of a service.

    `health` is the engine's verdict about this run of the container; one from before its last start counts as
    `starting`. `exit_code` is valid once the container has stopped. `exposed` are the TCP ports that the image and the
    compose file declare. `replaces` is the container (id or name) that Compose made this one to replace.
    `shares` has what it was made to have of other containers, each with that container's id or name: a namespace, or
    volumes. `made_in` and `made_from` are the folder and the compose files that Compose made it from (`a,b`).
    `memory_limit` is in bytes, `cpus` in cores; 0 means no limit.
    """

    id: str
    name: str
    service: str
    number: int = 1
    status: str = "created"
    created_at: datetime | None = None
    health: Health = "none"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restart_count: int = 0
    config_hash: str = ""
    image_id: str = ""
    healthcheck: Healthcheck | None = None
    probe_output: str = ""
    networks: frozenset[str] = field(default_factory=frozenset)
    attachments: Mapping[str, Attachment] = field(default_factory=dict, hash=False)
    exposed: frozenset[int] = field(default_factory=frozenset)
    replaces: str = ""
    shares: tuple[tuple[Shared, str], ...] = ()
    made_in: str = ""
    made_from: str = ""
    memory_limit: int = 0
    cpus: float = 0.0

    @property
    def running(self) -> bool:
        """Whether its main process runs; that of a paused container does not."""
        return self.status == "running"

    @property
    def run_key(self) -> str:
        """The identity of this run of the container: its id and start time. It changes with every restart."""
        return f"{self.id} {self.started_at.isoformat() if self.started_at else ''}"

    @property
    def stopped(self) -> bool:
        """Whether it has run, and has ended."""
        return self.status in ("exited", "dead")


@dataclass(frozen=True)
class Image:
    """One image. `built_for` is the service that Compose built it for, or empty; `user` is the user that its containers
    run as, empty for root. `tagged` is when it got its name: when it was built or pulled. `content` is a digest of what
    a container gets of it. `in_containerd`: it is in containerd's image store, where its id counts more than its
    content.
    """

    id: str
    created: datetime | None = None
    built_for: str = ""
    user: str = ""
    tagged: datetime | None = None
    content: str = ""
    in_containerd: bool = False


def split_image_name(name: str) -> tuple[str, str]:
    """Return the repository and the tag in the name of an image, which is `latest` where it names none.

    >>> split_image_name("localhost:5000/shop/api:1"), split_image_name("localhost:5000/shop/api")
    (('localhost:5000/shop/api', '1'), ('localhost:5000/shop/api', 'latest'))
    """
    folder, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{folder}{slash}{repository}", tag or "latest"


def parse_image(document: Mapping[str, Any]) -> Image:
    """Return the image of an engine's inspect document."""
    config: Mapping[str, Any] = document.get("Config") or {}
    built_for = (config.get("Labels") or {}).get(SERVICE_LABEL, "")
    parts = [document.get(key) for key in ("RootFS", "Config", "Os", "Architecture", "Variant")]
    return Image(
        id=document["Id"],
        created=parse_time(document.get("Created")),
        built_for=built_for,
        user=config.get("User") or "",
        tagged=parse_time((document.get("Metadata") or {}).get("LastTagTime")),
        content=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        in_containerd="Descriptor" in document,
    )


def parse(document: Mapping[str, Any]) -> Container:
    """Return the container of an engine's inspect document."""
    state, config = document["State"], document["Config"]
    networks: Mapping[str, Any] = (document.get("NetworkSettings") or {}).get("Networks") or {}
    host: Mapping[str, Any] = document.get("HostConfig") or {}
    labels: Mapping[str, str] = config.get("Labels") or {}
    started = parse_time(state.get("StartedAt"))
    health = state.get("Health") or {}
    log = health.get("Log") or []
    return Container(
        id=document["Id"],
        name=document["Name"].lstrip("/"),
        service=labels.get(SERVICE_LABEL, ""),
        number=int(labels.get(NUMBER_LABEL) or 1),
        status=state["Status"],
        created_at=parse_time(document.get("Created")),
        health=_health(health, log, started),
        started_at=started,
        finished_at=parse_time(state.get("FinishedAt")),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        restart_count=int(document.get("RestartCount") or 0),
        config_hash=labels.get(HASH_LABEL, ""),
        replaces=labels.get(REPLACE_LABEL, ""),
        image_id=document.get("Image", ""),
        healthcheck=_healthcheck(config),
        probe_output=(log[-1].get("Output") or "").strip() if log else "",
        networks=frozenset(networks),
        attachments={name: _attachment(entry or {}) for name, entry in networks.items()},
        exposed=frozenset(_tcp(config.get("ExposedPorts") or ())),
        shares=tuple(_shares(host)),
        made_in=labels.get(FOLDER_LABEL, ""),
        made_from=labels.get(FILES_LABEL, ""),
        memory_limit=int(host.get("Memory") or 0),
        cpus=(host.get("NanoCpus") or 0) / _NANOSECONDS,
    )


def _shares(host: Mapping[str, Any]) -> Iterable[tuple[Shared, str]]:
    modes: tuple[tuple[Shared, str], ...] = (("network", "NetworkMode"), ("ipc", "IpcMode"), ("pid", "PidMode"))
    for what, key in modes:
        kind, _, other = str(host.get(key) or "").partition(":")
        if kind == "container" and other:
            yield what, other
    for entry in host.get("VolumesFrom") or ():
        yield "volumes", str(entry).partition(":")[0]


def _attachment(entry: Mapping[str, Any]) -> Attachment:
    # Since API 1.44 the container's own name and id stand in DNSNames, no longer in Aliases:
    # https://docs.docker.com/reference/api/engine/version-history/
    names = [*(entry.get("Aliases") or ()), *(entry.get("DNSNames") or ())]
    return Attachment(entry.get("IPAddress") or "", frozenset(names), entry.get("NetworkID") or "")


def _tcp(ports: Iterable[str]) -> Iterable[int]:
    """Yield the numbers of TCP ports from the engine's notation, `6432/tcp`."""
    for port in ports:
        number, _, protocol = port.partition("/")
        if protocol in ("", "tcp") and number.isdigit():
            yield int(number)


def parse_listed(entry: Mapping[str, Any]) -> Container | None:
    """Return a container from an entry of the engine's list, or None if it does not run.

    An entry has no start time and no healthcheck. The list has all containers in one call, though.
    """
    if entry.get("State") != "running":
        return None
    labels: Mapping[str, str] = entry.get("Labels") or {}
    health = re.search(r"\((?:health: )?(?P<health>starting|healthy|unhealthy)\)", entry.get("Status") or "")
    return Container(
        id=entry["Id"],
        name=str(entry["Names"][0]).lstrip("/"),
        service=labels.get(SERVICE_LABEL, ""),
        number=int(labels.get(NUMBER_LABEL) or 1),
        status="running",
        health=health["health"] if health else "none",  # type: ignore[arg-type]
        config_hash=labels.get(HASH_LABEL, ""),
        replaces=labels.get(REPLACE_LABEL, ""),
        image_id=entry.get("ImageID", ""),
        networks=frozenset((entry.get("NetworkSettings") or {}).get("Networks") or ()),
        made_in=labels.get(FOLDER_LABEL, ""),
        made_from=labels.get(FILES_LABEL, ""),
    )


def parse_time(text: str | None) -> datetime | None:
    """Return one of the engine's timestamps in UTC, to the microsecond; None for its "never".

    >>> parse_time("2026-11-23T15:46:07.640747292Z")
    datetime.datetime(2026, 11, 23, 15, 46, 7, 640747, tzinfo=datetime.timezone.utc)
    """
    if not text or text == _NEVER:
        return None
    text = re.sub(r"\.(\d{1,6})\d*", lambda found: "." + found[1].ljust(6, "0"), text).replace("Z", "+00:00")
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def _health(health: Mapping[str, Any], log: list[Mapping[str, Any]], started: datetime | None) -> Health:
    status = health.get("Status") or "none"
    if status not in ("healthy", "unhealthy"):
        return "starting" if status == "starting" else "none"
    # After a restart the log still has the probes of the run before.
    probed = parse_time(log[-1].get("Start")) if log else None
    if started and probed and probed < started:
        return "starting"
    return "healthy" if status == "healthy" else "unhealthy"


def _healthcheck(config: Mapping[str, Any]) -> Healthcheck | None:
    raw = config.get("Healthcheck") or {}
    test = list(raw.get("Test") or ())
    if not test or test[0] == "NONE":
        return None
    if test[0] == "CMD-SHELL":
        shell = config.get("Shell") or ["/bin/sh", "-c"]
        argv = (*shell, *test[1:])
    else:
        argv = tuple(test[1:])
    if not argv:
        return None

    def seconds(key: str) -> float:
        return float((raw.get(key) or 0) / _NANOSECONDS)

    return Healthcheck(
        argv=argv,
        interval=seconds("Interval") or _DEFAULT_INTERVAL,
        timeout=seconds("Timeout") or _DEFAULT_TIMEOUT,
        start_period=seconds("StartPeriod"),
        start_interval=seconds("StartInterval"),
    )
