"""The engine over its API: inspect, probe, read logs, listen. Every answer is a snapshot or a plain value."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from stackhand.engine.api import archive
from stackhand.engine.api import containers as facts
from stackhand.engine.api.events import Event, Listener
from stackhand.engine.api.exec import ExecResult, Probe, execute
from stackhand.engine.api.sdk import ContainerGone, errors, load
from stackhand.engine.compose import project as model
from stackhand.errors import EngineUnreachable, StackError

# The engine itself keeps this much of a probe's output.
_PROBE_OUTPUT = 4096
# More than any answer that is asked for; a program that never stops talking must not fill the memory.
_ANSWER = 4 * 1024 * 1024
# The engine's own, for a container that was made without one.
_STOP_PATIENCE = 10
# Networks whose addresses are all the engine's to give.
_OWN_ADDRESSES = frozenset({"bridge", "overlay"})


class Engine:
    """One engine, at the endpoint that the docker CLI would use.

    Every method raises EngineUnreachable when the engine does not answer, and ContainerGone when the container
    it is about no longer exists.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._connecting = threading.Lock()
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The SDK's low-level client, connected once. Raises EngineUnreachable, SocketPermission."""
        from stackhand.engine.api import endpoint

        with self._connecting:
            if self._api is None:
                self._api = endpoint.connect(endpoint.resolve(self._environ), self._environ)
            return self._api

    def answers(self, within: float | None = None) -> bool:
        """Return whether the engine answers now, within so many seconds where that is given."""
        said: list[bool] = []

        def ask() -> None:
            with contextlib.suppress(StackError), errors():
                said.append(bool(self.api.ping()))

        thread = threading.Thread(target=ask, name="ping", daemon=True)
        thread.start()
        thread.join(within)
        return any(said)

    def containers(self, project: str, service: str | None = None, *, brief: bool = False) -> list[facts.Container]:
        """Return the containers of a Compose project, or of one service; those of `compose run` are left out.

        With `brief`, of those that run only what the list of containers has (`facts.parse_listed`): one call for all.
        """
        labels = [f"{model.PROJECT_LABEL}={project}", f"{model.ONEOFF_LABEL}=False"]
        if service:
            labels.append(f"{model.SERVICE_LABEL}={service}")
        with errors():
            listed = self.api.containers(all=True, filters={"label": labels})
        found = []
        for entry in listed:
            with contextlib.suppress(ContainerGone):
                listed_only = facts.parse_listed(entry) if brief else None
                found.append(listed_only or self.inspect(entry["Id"]))
        return sorted(found, key=lambda container: (container.service, container.number))

    def one_offs(self, project: str, service: str) -> list[str]:
        """Return the names of the running containers that `docker compose run` made of a service."""
        labels = [
            f"{model.PROJECT_LABEL}={project}",
            f"{model.SERVICE_LABEL}={service}",
            f"{model.ONEOFF_LABEL}=True",
        ]
        with errors():
            return [str(entry["Names"][0]).lstrip("/") for entry in self.api.containers(filters={"label": labels})]

    def inspect(self, container: str) -> facts.Container:
        """Return a snapshot of one container."""
        with errors():
            return facts.parse(self.api.inspect_container(container))

    def image_id(self, name: str) -> str | None:
        """Return the id of a local image, or None."""
        found = self.image(name)
        return found.id if found else None

    def uids(self, container: str) -> frozenset[int]:
        """Return the users of a container's processes, by number as the engine's machine has them."""
        with errors():
            found = self.api.top(container, ps_args="-eo pid,uid")
        return frozenset(int(row[1]) for row in found.get("Processes") or () if row[1].isdecimal())

    def image(self, name: str) -> facts.Image | None:
        """Return what a local image says of itself, None where it is not here."""
        load()
        from docker.errors import NotFound

        try:
            with errors(keep=NotFound):
                return facts.parse_image(self.api.inspect_image(name))
        except NotFound:
            return None

    def logs(self, container: str, lines: int, since: datetime | None = None) -> list[str]:
        """Return a container's last log lines since a moment; none when its logging driver can't be read."""
        try:
            with errors():
                raw: bytes = self.api.logs(container, tail=lines, since=since.timestamp() if since else None)
        except EngineUnreachable:
            raise
        except StackError:
            return []
        return raw.decode("utf-8", "replace").splitlines()[-lines:]

    def probe(self, container: str, argv: Sequence[str], timeout: float) -> Probe:
        """Run a healthcheck's command inside a container, as the engine would, for `timeout` seconds at most."""
        code, streams, seconds = execute(self.api, container, argv, timeout, _PROBE_OUTPUT, demux=False)
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
        """Run a program inside a container and return what it said.

        A password goes into its `environment`: command lines are shown to everyone, in events too.
        """
        code, streams, seconds = execute(
            self.api, container, argv, timeout, _ANSWER, demux=True, environment=environment, user=user
        )
        return ExecResult(code, *streams, seconds=seconds)

    def read_folder(self, container: str, path: str) -> dict[str, str] | None:
        """Return the small text files below a folder of a container, running or not; None where there is none."""
        return archive.read_folder(self.api, container, path)

    def read_file(self, container: str, path: str) -> bytes | None:
        """Return what is in a file of a container, running or not; None where there is none."""
        return archive.read_file(self.api, container, path)

    def homes(self, container: str) -> list[str]:
        """Return the folders that a container's program works in: its working directory, and Python's search path."""
        with errors():
            config = self.api.inspect_container(container)["Config"]
        variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        return [path for path in (config.get("WorkingDir"), *variables.get("PYTHONPATH", "").split(":")) if path]

    def start(self, container: str) -> None:
        """Start a container; all of a start only where Compose adds nothing (`Project.starts_without_compose`)."""
        with errors():
            self.api.start(container)

    def restart(self, container: str) -> None:
        """Stop a container, with the patience that it was made with, and start it as it is."""
        with errors():
            patience = self.api.inspect_container(container)["Config"].get("StopTimeout")
            self.api.restart(container, timeout=_STOP_PATIENCE if patience is None else patience)

    def remove(self, container: str) -> None:
        """Remove a container that does not run; its volumes stay."""
        with errors():
            self.api.remove_container(container)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with errors():
            self.api.rename(container, name)

    def connect(self, container: str, network: str, options: Mapping[str, Any], aliases: Sequence[str]) -> None:
        """Attach a container to a network under these names; `options` is the service's entry for that network.

        Its `links` are pairs: a container, and what this one calls it. `gw_priority` is left out: the SDK has no word
        for it.
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
        """Return a network's address ranges, and the addresses in them that are taken: by containers and gateways.

        No ranges where others than the engine give out addresses as well: those of the LAN, with macvlan and ipvlan.
        """
        with errors():
            found = self.api.inspect_network(network)
        blocks = (found.get("IPAM") or {}).get("Config") or ()
        own = found.get("Driver") in _OWN_ADDRESSES
        ranges = [str(each["Subnet"]) for each in blocks if each.get("Subnet") and own]
        taken = [str(each["Gateway"]).partition("/")[0] for each in blocks if each.get("Gateway")]
        for each in (found.get("Containers") or {}).values():
            held = (each.get("IPv4Address"), each.get("IPv6Address"))
            taken += [address.partition("/")[0] for address in held if address]
        return ranges, taken

    def disconnect(self, container: str, network: str) -> None:
        """Take a container off a network."""
        with errors():
            self.api.disconnect_container_from_network(container, network)

    def memory(self, container: str) -> int:
        """Return the bytes of memory that a container uses, without what the kernel would give back at once."""
        with errors():
            found = self.api.stats(container, stream=False, one_shot=True).get("memory_stats") or {}
        details = found.get("stats") or {}
        spare = details.get("inactive_file", details.get("total_inactive_file", 0))
        return max(0, int(found.get("usage") or 0) - int(spare))

    def holder_of_port(self, port: int) -> str | None:
        """Return the name of the running container that publishes a port, or None."""
        with errors():
            for entry in self.api.containers():
                if any(published.get("PublicPort") == port for published in entry.get("Ports") or ()):
                    return str(entry["Names"][0]).lstrip("/")
        return None

    def listen(self, project: str, handle: Callable[[Event], None], lost: Callable[[], None]) -> Listener:
        """Call `handle` with every container event of a project from now on, and `lost` when events were missed.

        Both are called from a thread of the listener's own, and must return at once.
        """
        return Listener(lambda: self.api, project, handle, lost)
