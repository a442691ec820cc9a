"""The Docker engine through its API: inspect, exec, logs, events. Answers are snapshots or plain values."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from stackhand.engine.api import archive, containers, events
from stackhand.engine.api.containers import Container, Image
from stackhand.engine.api.events import Event, Listener
from stackhand.engine.api.exec import ExecResult, Probe, execute
from stackhand.engine.api.helper import Helper
from stackhand.engine.api.helper import run as run_helper
from stackhand.engine.api.sdk import ContainerGone, errors, load
from stackhand.engine.compose.labels import ONEOFF_LABEL, PROJECT_LABEL, SERVICE_LABEL
from stackhand.engine.host.load import CpuLoad, read
from stackhand.errors import EngineUnreachable, StackError

# Bytes. The engine keeps as much of a healthcheck's output (maxOutputLen in moby's daemon/health.go).
_MAX_PROBE_OUTPUT = 4096
# Bytes. More than any program that we run prints; one that never stops must not fill our memory.
_MAX_OUTPUT = 4 * 1024 * 1024
# Seconds. The engine's default for a container without a stop timeout of its own.
_STOP_TIMEOUT = 10
# The time that the answer takes, and the whole seconds of one that comes in an HTTP header.
_SAME_CLOCK = timedelta(seconds=2)
# Seconds. To ask for it takes the engine 7 ms, which would add up: each container that already runs is asked about.
_CLOCK_ASKED_EVERY = 30.0
# Drivers of networks whose addresses are given out by the engine alone.
_ENGINE_ASSIGNS = frozenset({"bridge", "overlay"})


class Engine:
    """One engine, at the endpoint that the docker CLI would use.

    Every method raises EngineUnreachable when the engine does not answer, and ContainerGone when its container no
    longer exists.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._connecting = threading.Lock()
        self._api: Any = None
        self._clock: tuple[datetime, float] | None = None

    @property
    def api(self) -> Any:
        """The SDK's low-level client, connected once. Raises EngineUnreachable, SocketPermission."""
        from stackhand.engine.api import endpoint

        with self._connecting:
            if self._api is None:
                self._api = endpoint.connect(endpoint.resolve(self._environ), self._environ)
            return self._api

    def connect_ahead(self) -> None:
        """Begin to connect, on a thread of its own. What goes wrong is told when the engine is first asked."""

        def connect() -> None:
            with contextlib.suppress(Exception):
                self.api  # noqa: B018

        # A daemon: an interrupted run does not wait for an engine that does not answer.
        threading.Thread(target=connect, name="connect", daemon=True).start()

    def answers(self, within: float | None = None) -> bool:
        """Return whether the engine answers now. With `within`, a later answer (in seconds) counts as none."""
        pongs: list[bool] = []

        def ask() -> None:
            with contextlib.suppress(StackError), errors():
                pongs.append(bool(self.api.ping()))

        thread = threading.Thread(target=ask, name="ping", daemon=True)
        thread.start()
        thread.join(within)
        return any(pongs)

    def cpu_load(self) -> CpuLoad | None:
        """Return how busy the engine's machine is, None where that is another than this one."""
        from stackhand.engine.api import endpoint

        return read() if endpoint.resolve(self._environ).is_local else None

    def now(self) -> datetime:
        """Return the time by the engine's clock, as all its times are. This machine's clock may tell another."""
        known, moment = self._clock, time.monotonic()
        if known is None or moment - known[1] > _CLOCK_ASKED_EVERY:
            known = self._clock = (self._asked_time(), time.monotonic())
        return known[0] + timedelta(seconds=max(0.0, moment - known[1]))

    def _asked_time(self) -> datetime:
        with contextlib.suppress(StackError), errors():  # a proxy may refuse it
            told = containers.parse_time(self.api.info().get("SystemTime"))
            if told:
                return told
        with errors():
            # To the second.
            return parsedate_to_datetime(self.api._get(self.api._url("/_ping")).headers["Date"])

    def clock_offset(self) -> timedelta:
        """Return how far the engine's clock is ahead of this machine's; zero where it can't be told from the same.

        Times of files are by this machine's clock, times of containers and images by the engine's.
        """
        offset = self.now() - datetime.now(timezone.utc)
        return offset if abs(offset) > _SAME_CLOCK else timedelta()

    def was_signalled(self, container: Container) -> bool | None:
        """Return whether somebody sent a signal to a container before it ended: see `events`."""
        if container.started_at is None:
            return None
        # The exact time: events of the last milliseconds count, and until a later moment the engine would listen.
        heard = events.between(self.api, container.started_at, self._asked_time())
        return events.was_signalled(heard, container.id, self._stop_timeout(container.id))

    def containers(self, project: str, service: str | None = None, *, brief: bool = False) -> list[Container]:
        """Return the containers of a Compose project, or of one service, without those of `docker compose run`.

        With `brief`, running containers come from the engine's list alone, which is one call for all: see
        `parse_listed` for what they lack.
        """
        labels = [f"{PROJECT_LABEL}={project}", f"{ONEOFF_LABEL}=False"]
        if service:
            labels.append(f"{SERVICE_LABEL}={service}")
        with errors():
            listed = self.api.containers(all=True, filters={"label": labels})
        found = []
        for entry in listed:
            with contextlib.suppress(ContainerGone):
                listed_only = containers.parse_listed(entry) if brief else None
                found.append(listed_only or self.inspect(entry["Id"]))
        return sorted(found, key=lambda container: (container.service, container.number))

    def one_offs(self, project: str, service: str) -> list[str]:
        """Return the names of the running containers that `docker compose run` made of a service."""
        labels = [
            f"{PROJECT_LABEL}={project}",
            f"{SERVICE_LABEL}={service}",
            f"{ONEOFF_LABEL}=True",
        ]
        with errors():
            return [str(entry["Names"][0]).lstrip("/") for entry in self.api.containers(filters={"label": labels})]

    def inspect(self, container: str) -> Container:
        """Return a snapshot of one container."""
        with errors():
            return containers.parse(self.api.inspect_container(container))

    def labels(self, container: str) -> Mapping[str, str] | None:
        """Return the labels of a container, by its id or name, or None if there is none."""
        try:
            with errors():
                return dict(self.api.inspect_container(container)["Config"]["Labels"] or {})
        except ContainerGone:
            return None

    def image_id(self, name: str) -> str | None:
        """Return the id of a local image, or None."""
        found = self.image(name)
        return found.id if found else None

    def uids(self, container: str) -> frozenset[int]:
        """Return the user ids that a container's processes have on the engine's machine."""
        with errors():
            found = self.api.top(container, ps_args="-eo pid,uid")
        return frozenset(int(row[1]) for row in found.get("Processes") or () if row[1].isdecimal())

    def user_shift(self) -> tuple[int, int] | None:
        """Return how far the users and groups of containers are shifted on the engine's machine; (0, 0) is usual.

        With `userns-remap`, the engine's folder is named by the first user and group of its containers
        (https://docs.docker.com/engine/security/userns-remap/). None for an engine without root: it does not say.
        """
        with errors():
            info = self.api.info()
        options = info.get("SecurityOptions") or ()
        if any(each.startswith("name=rootless") for each in options):
            return None
        if not any(each.startswith("name=userns") for each in options):
            return 0, 0
        first = re.search(r"/(\d+)\.(\d+)$", info.get("DockerRootDir") or "")
        return (int(first[1]), int(first[2])) if first else None

    def image(self, name: str) -> Image | None:
        """Return a local image, or None."""
        load()
        from docker.errors import NotFound

        try:
            with errors(keep=NotFound):
                return containers.parse_image(self.api.inspect_image(name))
        except NotFound:
            return None

    def tag(self, image: str, name: str) -> None:
        """Give an image another name, which no other image has from then on."""
        with errors():
            self.api.tag(image, *containers.split_image_name(name))

    def untag(self, name: str) -> None:
        """Take a name from an image, also where a container uses it."""
        with errors():
            self.api.remove_image(name, force=True, noprune=True)

    def logs(self, container: str, lines: int, since: datetime | None = None) -> list[str]:
        """Return a container's last log lines, those since a time if given; [] if its logging driver can't be read."""
        try:
            with errors():
                raw: bytes = self.api.logs(container, tail=lines, since=since.timestamp() if since else None)
        except EngineUnreachable:
            raise
        except StackError:
            return []
        return raw.decode("utf-8", "replace").removesuffix("\n").split("\n")[-lines:] if raw else []

    def probe(self, container: str, argv: Sequence[str], timeout: float) -> Probe:
        """Run a healthcheck's command inside a container as the engine would, for at most `timeout` seconds."""
        code, streams, seconds = execute(self.api, container, argv, timeout, _MAX_PROBE_OUTPUT, demux=False)
        return Probe(code, streams[0].strip(), seconds)

    def ask(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> ExecResult:
        """Run a program inside a container, for at most `timeout` seconds, and return its output.

        Pass passwords in `environment`: everybody can read command lines, in the engine's events too.
        """
        code, streams, seconds = execute(
            self.api, container, argv, timeout, _MAX_OUTPUT, demux=True, environment=environment, user=user
        )
        return ExecResult(code, *streams, seconds=seconds)

    def run_helper(self, helper: Helper, timeout: float | None = None) -> ExecResult:
        """Run a program in a container that is made for it, and removed after it. Raises StackError."""
        return run_helper(self.api, helper, timeout)

    def read_folder(self, container: str, path: str) -> dict[str, str] | None:
        """Return the text of each small file below a folder of a container, running or not: see `archive`."""
        return archive.read_folder(self.api, container, path)

    def read_file(self, container: str, path: str) -> bytes | None:
        """Return the content of a file of a container, running or not: see `archive`."""
        return archive.read_file(self.api, container, path)

    def code_folders(self, container: str) -> list[str]:
        """Return where a container's own code probably lies: its working directory, and its PYTHONPATH."""
        with errors():
            config = self.api.inspect_container(container)["Config"]
        variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        return [path for path in (config.get("WorkingDir"), *variables.get("PYTHONPATH", "").split(":")) if path]

    def start(self, container: str) -> None:
        """Start a container.

        This is the whole start only where Compose adds nothing to it: see `Project.starts_without_compose`.
        """
        with errors():
            self.api.start(container)

    def stop(self, container: str) -> None:
        """Stop a container, with its own stop timeout."""
        with errors():
            self.api.stop(container)

    def restart(self, container: str) -> None:
        """Stop a container, with its own stop timeout, and start it as it is."""
        timeout = self._stop_timeout(container)
        with errors():
            self.api.restart(container, timeout=timeout)

    def _stop_timeout(self, container: str) -> int:
        """Return how many seconds a container has between the signal to end and the one that kills it."""
        with errors():
            timeout: int | None = self.api.inspect_container(container)["Config"].get("StopTimeout")
        return _STOP_TIMEOUT if timeout is None else timeout

    def remove(self, container: str) -> None:
        """Remove a stopped container; its volumes stay."""
        with errors():
            self.api.remove_container(container)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with errors():
            self.api.rename(container, name)

    def connect(self, container: str, network: str, options: Mapping[str, Any], aliases: Sequence[str]) -> None:
        """Attach a container to a network under these names; `options` is the service's entry for that network.

        `links` in it are pairs of a container and its name for this one. `gw_priority` is not passed on: the SDK does
        not support it.
        """
        with errors():
            self.api.connect_container_to_network(
                container,
                network,
                aliases=list(aliases),
                ipv4_address=options.get("ipv4_address"),
                ipv6_address=options.get("ipv6_address"),
                link_local_ips=options.get("link_local_ips"),
                driver_opt=options.get("driver_opts"),
                links=options.get("links") or None,
                mac_address=options.get("mac_address"),
            )

    def addresses(self, network: str) -> tuple[list[str], list[str]]:
        """Return a network's address ranges, and the addresses in use by containers and gateways.

        There are no ranges for networks in which others give out addresses, too (macvlan and ipvlan join the LAN).
        """
        with errors():
            found = self.api.inspect_network(network)
        blocks = (found.get("IPAM") or {}).get("Config") or ()
        assigned = found.get("Driver") in _ENGINE_ASSIGNS
        ranges = [str(block["Subnet"]) for block in blocks if block.get("Subnet") and assigned]
        used = [str(block["Gateway"]) for block in blocks if block.get("Gateway")]
        for container in (found.get("Containers") or {}).values():
            used += [address for address in (container.get("IPv4Address"), container.get("IPv6Address")) if address]
        return ranges, [address.partition("/")[0] for address in used]

    def disconnect(self, container: str, network: str) -> None:
        """Detach a container from a network."""
        with errors():
            self.api.disconnect_container_from_network(container, network)

    def memory(self, container: str) -> int:
        """Return the memory that a container uses, in bytes, without page cache that the kernel can drop at once.

        `docker stats` counts the same: https://docs.docker.com/reference/cli/docker/container/stats/
        """
        with errors():
            found = self.api.stats(container, stream=False, one_shot=True).get("memory_stats") or {}
        details = found.get("stats") or {}
        cache = details.get("inactive_file", details.get("total_inactive_file", 0))
        return max(0, int(found.get("usage") or 0) - int(cache))

    def holder_of_port(self, port: int, protocol: str = "") -> str | None:
        """Return the name of the running container that publishes a port (with any protocol if none is given)."""

        def matches(published: dict[str, Any]) -> bool:
            return published.get("PublicPort") == port and protocol in ("", published.get("Type"))

        with errors():
            for entry in self.api.containers():
                if any(map(matches, entry.get("Ports") or ())):
                    return str(entry["Names"][0]).lstrip("/")
        return None

    def listen(self, project: str, handle: Callable[[Event], None], lost: Callable[[], None]) -> Listener:
        """Call `handle` with each container event of a project from now on, and `lost` when some may be missing.

        Both are called from the listener's thread and must return at once.
        """
        return Listener(lambda: self.api, project, handle, lost)
