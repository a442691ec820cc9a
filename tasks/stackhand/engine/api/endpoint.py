"""Finds the engine that the docker CLI would use, and connects to it.

The order is the CLI's own (https://docs.docker.com/engine/manage-resources/contexts/): DOCKER_HOST, then
DOCKER_CONTEXT, then `currentContext` of `config.json`, then the default socket. In one case we do more: if the default
socket is missing, the socket of a rootless engine is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackhand.engine.api import sdk
from stackhand.engine.compose.plugin import config_folder
from stackhand.engine.messages import SOCKET_HINT
from stackhand.errors import ConfigError, EngineUnreachable, SocketPermission

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_SOCKET = Path("/var/run/docker.sock")
# More connections than threads that ever use the engine at once, so that connections are reused.
_POOL = 128
_CONNECT_SECONDS = 15
_CALL_SECONDS = 60
_ANY_API = "1.40"


@dataclass(frozen=True)
class Tls:
    """The certificate files for an engine behind TLS; `verify`: check the server's own certificate."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True)
class Endpoint:
    """The engine's address, and what chose it (`DOCKER_HOST`, `context NAME`, `default`, `rootless`)."""

    url: str
    source: str
    tls: Tls | None = None

    @property
    def socket(self) -> Path | None:
        """The path of the endpoint's Unix socket, or None."""
        return Path(self.url.removeprefix("unix://")) if self.url.startswith("unix://") else None

    @property
    def is_local(self) -> bool:
        """Whether the address says that the engine runs on this machine."""
        return self.url.startswith(("unix://", "npipe://"))


def resolve(
    environ: Mapping[str, str], *, default_socket: Path = DEFAULT_SOCKET, run_user: Path = Path("/run/user")
) -> Endpoint:
    """Return the endpoint in use. Raises ConfigError for a context that does not exist."""
    host = environ.get("DOCKER_HOST")
    if host:
        return Endpoint(host if "://" in host else f"tcp://{host}", "DOCKER_HOST", _tls_from_environment(environ, host))
    folder = config_folder(environ)
    context = environ.get("DOCKER_CONTEXT") or _current_context(folder)
    if context and context != "default":
        return _from_context(folder, context)
    if not default_socket.exists():
        runtime = [environ.get("XDG_RUNTIME_DIR"), str(run_user / str(os.getuid()))]
        for candidate in (Path(place, "docker.sock") for place in runtime if place):
            if candidate.exists():
                return Endpoint(f"unix://{candidate}", "rootless")
    return Endpoint(f"unix://{default_socket}", "default")


def for_cli(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the docker CLI uses the same engine as we do.

    The CLI does not find a rootless engine by its socket, so that one is named in DOCKER_HOST.
    """
    endpoint = resolve(environ)
    return {**environ, "DOCKER_HOST": endpoint.url} if endpoint.source == "rootless" else dict(environ)


def connect(endpoint: Endpoint, environ: Mapping[str, str]) -> APIClient:
    """Return a client whose engine has answered once. Many threads may use it.

    Raises EngineUnreachable, SocketPermission, and ConfigError for text that is not an address.
    """
    if endpoint.socket:
        _try_socket(endpoint, endpoint.socket)
    import requests

    ssh = endpoint.url.startswith("ssh://")
    if ssh:
        sdk.load_ssh()
    else:
        sdk.load()
    from docker import APIClient
    from docker.errors import DockerException
    from docker.tls import TLSConfig

    def client(version: str) -> APIClient:
        return APIClient(
            base_url=endpoint.url,
            version=version,
            timeout=_CONNECT_SECONDS,
            tls=_tls_config(endpoint.tls, TLSConfig) if endpoint.tls else False,
            use_ssh_client=ssh,
            num_pools=_POOL,
            max_pool_size=_POOL,
            credstore_env=dict(environ),
        )

    try:
        # Not `version="auto"`: if that fails, its connections stay open and cannot be closed. So we ask for the
        # version ourselves, on a path without a version in it.
        with contextlib.closing(client(_ANY_API)) as first:
            version = first.version(api_version=False)["ApiVersion"]
        connected = client(version)
    except (DockerException, requests.RequestException, OSError, ValueError, KeyError) as error:
        raise _explain(endpoint, error) from error
    connected.timeout = _CALL_SECONDS
    if endpoint.socket:
        _share_connections(connected, endpoint.socket)
    return connected


def _share_connections(client: APIClient, path: Path) -> None:
    """Make all calls of a client share the connections to a socket.

    The SDK has a pool of connections for each URL (docker/transport/unixconn.py), so each container would get new ones.
    """
    from docker.transport import UnixHTTPAdapter

    class OnePool(UnixHTTPAdapter):
        def get_connection(self, url: str | bytes, proxies: Mapping[str, str] | None = None) -> Any:
            return super().get_connection("", proxies)

    client.mount(
        "http+docker://", OnePool(f"http+unix://{path}", _CALL_SECONDS, pool_connections=1, max_pool_size=_POOL)
    )
    # No proxy is on the way to a socket: requests would look for one in the environment before each call.
    client.trust_env = False


def _current_context(folder: Path) -> str | None:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("currentContext")
    except (OSError, ValueError, AttributeError):
        return None  # the CLI, too, goes on with its defaults
    return found or None


def _from_context(folder: Path, name: str) -> Endpoint:
    """Return the endpoint of a docker context. Raises ConfigError if there is no such context."""
    # The CLI stores a context under the hash of its name (contextdirOf in docker/cli, cli/context/store).
    key = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((folder / "contexts" / "meta" / key / "meta.json").read_text(encoding="utf-8"))
        docker: Mapping[str, Any] = meta["Endpoints"]["docker"]
        url = docker["Host"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"the docker context {name!r} does not exist",
            "`docker context ls` shows them; DOCKER_CONTEXT or `docker context use NAME` chooses one",
        ) from None
    verify = not docker.get("SkipTLSVerify")
    tls = _files(folder / "contexts" / "tls" / key / "docker", verify=verify)
    return Endpoint(url, f"context {name}", tls if tls != Tls(verify=True) else None)


def _tls_from_environment(environ: Mapping[str, str], host: str) -> Tls | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if host.startswith(("unix://", "ssh://", "npipe://")) or not (verify or environ.get("DOCKER_TLS")):
        return None
    return _files(Path(environ.get("DOCKER_CERT_PATH") or config_folder(environ)), verify=verify)


def _files(folder: Path, *, verify: bool) -> Tls:
    ca, cert, key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
    return Tls(ca if ca.exists() else None, cert if cert.exists() else None, key if key.exists() else None, verify)


def _tls_config(tls: Tls, make: Any) -> Any:
    return make(
        client_cert=(str(tls.cert), str(tls.key)) if tls.cert and tls.key else None,
        ca_cert=str(tls.ca) if tls.ca and tls.verify else None,
        verify=tls.verify,
    )


def _try_socket(endpoint: Endpoint, path: Path) -> None:
    """Raise the error that tells why the socket cannot be used: missing, not permitted, or no engine behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise SocketPermission(f"no permission to use the engine's socket {path}", SOCKET_HINT) from None
        except FileNotFoundError:
            raise EngineUnreachable(f"no engine answers: {path} does not exist", _hint(endpoint)) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EngineUnreachable(f"no engine answers at {path}: {reason}", _hint(endpoint)) from None


def _explain(endpoint: Endpoint, error: Exception) -> ConfigError | EngineUnreachable:
    text = str(error)
    if "Invalid bind address" in text or "Invalid bind port" in text or "Invalid proto" in text:
        return ConfigError(
            f"{endpoint.source} is not the address of an engine: {endpoint.url}",
            "an address looks like unix:///var/run/docker.sock, tcp://host:2376 or ssh://user@host",
        )
    return EngineUnreachable(
        f"no engine answers at {endpoint.url} (from {endpoint.source}): {_root_cause(error)}",
        _hint(endpoint),
    )


def _hint(endpoint: Endpoint) -> str:
    if endpoint.source == "rootless":
        return "start the rootless engine: `systemctl --user start docker`"
    if endpoint.socket == DEFAULT_SOCKET:
        return "start or install one: `inv engine.install`; DOCKER_HOST and docker contexts can choose another"
    return (
        f"{endpoint.source} chose this engine: start it, or use the one on this machine: unset DOCKER_HOST, "
        "and `docker context use default`"
    )


def _root_cause(error: BaseException) -> str:
    """Return the operating system's reason, which lies below several messages of the HTTP libraries."""
    reason = str(error) or type(error).__name__
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            reason = below.strerror.lower()
        below = below.__cause__ or below.__context__
    return reason
