"""Classifies the error messages of Docker and Compose: the reason, whether a retry can help, and a hint.

The engine and Compose report errors as text only. No other module interprets that text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stackhand.errors import (
    CommandFailed,
    DependencyCycle,
    EngineUnreachable,
    InvalidComposeFile,
    SocketPermission,
    StackError,
    UnknownService,
)


@dataclass(frozen=True)
class EngineMessage:
    """A classified message. `detail` is its decisive line; `retry` says whether trying again can help."""

    kind: str
    detail: str
    retry: bool
    hint: str


# kind, pattern, whether a retry can help, hint. The first match counts.
_TABLE: tuple[tuple[str, str, bool, str], ...] = (
    (
        "port_in_use",
        r"port is already allocated|address already in use|bind: .*in use",
        False,
        "stop what holds the port, or publish another one",
    ),
    (
        # What to do depends on whose container it is: services/start/failures.py asks.
        "name_in_use",
        r"container name \S+ is already in use",
        False,
        "",
    ),
    (
        "image_not_found",
        r"manifest unknown|no such image|pull access denied|repository does not exist|manifest for \S+ not found"
        # The image store of containerd: `failed to resolve reference "host/web:1": host/web:1: not found`
        r"|name unknown|not found: manifest|failed to resolve reference .*: not found$",
        False,
        "check the image's name and tag, or build it; a private registry needs `docker login`",
    ),
    (
        "registry_unreachable",
        r"lookup \S+.*(no such host|server misbehaving)|/v2/.*(connection refused|i/o timeout|no route|"
        r"request canceled|tls handshake timeout)",
        False,
        "the registry cannot be reached: check the network, or build or load the image here",
    ),
    (
        "no_space",
        r"no space left on device",
        False,
        "free space on the engine's disk: `docker system df` shows what uses it",
    ),
    (
        "command_not_found",
        r"executable file not found|exec: .*no such file or directory|exec format error"
        r"|exec: .*permission denied",
        False,
        "correct the service's command or entrypoint, or its image",
    ),
    (
        "mount_missing",
        r"bind source path does not exist|error while creating mount source path|not a directory: unknown"
        r"|are you trying to mount a directory onto a file",
        False,
        "create the file or folder that the service mounts",
    ),
    (
        "network_missing",
        r"declared as external, but could not be found|network \S+ not found",
        False,
        "create the external network, or let Compose own it",
    ),
    (
        "volume_missing",
        r"external volume .* not found",
        False,
        "create the external volume, or let Compose own it",
    ),
    (
        "variable_missing",
        r"environment variable .* required by .* is not set",
        False,
        "set the environment variable that the secret or config is read from",
    ),
    (
        "hook_failed",
        r"hook exited with status",
        True,
        "correct the service's `post_start` hook; its command with `docker compose exec` shows what it says",
    ),
    (
        "engine_gone",
        r"cannot connect to the docker daemon|error during connect|connection reset by peer|\bEOF\b|"
        r"is the docker daemon running|broken pipe",
        True,
        "check that the engine runs: `inv engine.check`",
    ),
    (
        "bad_configuration",
        r"invalid mount config|invalid reference format|minimum memory limit|invalid .* configuration|"
        r"invalid argument|unknown (log|runtime|capability)|range of cpus|could not select device driver",
        False,
        "correct the service's settings in the compose file",
    ),
)

_INTERPOLATION = re.compile(r"invalid interpolation format for (?P<place>\S+?)\.?(\s|$)")
# Compose warns of these, and goes on with an empty text: `:/data` is then no volume, `shop/web:` no image.
_UNSET = re.compile(r'The \\?"(?P<name>\w+)\\?" variable is not set')
# The file of Compose's first format has its services at the top level.
_NO_SERVICES = re.compile(r"\(root\) additional property", re.IGNORECASE)
_CYCLE = re.compile(r"dependency cycle detected: (?P<cycle>[^\n]+)")
_NO_SERVICE = re.compile(r"no such service: (?P<name>\S+)")
# The last two: of another container that a new one would join (engine 28; 20.10 says 404 to the first).
_GONE = re.compile(
    r"is not running|cannot exec in a stopped|namespace of container: no such container|of a non running container",
    re.IGNORECASE,
)
_NO_PERMISSION = re.compile(r"permission denied while trying to connect to the docker", re.IGNORECASE)
_NO_ENGINE = re.compile(
    r"cannot connect to the docker daemon|error during connect|is the docker daemon running|"
    r"failed to connect to the docker api",
    re.IGNORECASE,
)
_INVALID = re.compile(
    r"yaml: |validating |invalid compose project|env file .* not found|error while interpolating|"
    r"no such file or directory|is not allowed|must be a|unsupported|undefined (service|volume|network|secret|"
    r"config)|cannot unmarshal|empty compose file|invalid (interpolation|proto|type|spec)|top-level object must be|"
    r"required by file",
    re.IGNORECASE,
)
# Where a message names the port that is taken. The protocol is missing where another container of the engine has it.
_PORTS = tuple(
    re.compile(pattern)
    for pattern in (
        # Engine 28: `host port for 0.0.0.0:80:172.18.0.2:80/tcp`; of a range, `host port 81 for [::]:80-90:…/tcp`
        r"host port (?P<port>\d+) for \S+/(?P<protocol>tcp|udp)",
        r"host port (?:for )?(?:\[\S*?\]|[^\s:]*):(?P<port>\d+)\S*/(?P<protocol>tcp|udp)",
        # Engine 20.10, with and without its proxy.
        r"listen (?P<protocol>tcp|udp)\d? \S*:(?P<port>\d+): bind",
        r"Bind for \S*:(?P<port>\d+)(?P<protocol>) failed",
    )
)
_NAME = re.compile(r'container name "/?(?P<name>[^"]+)" is already in use', re.IGNORECASE)
SOCKET_HINT = "add yourself to the group `docker` (then log in again), or use a rootless engine"


def classify(text: str) -> EngineMessage:
    """Return what a message of the engine or of Compose means. An unknown one is of kind `unknown`, worth a retry."""
    line = last_error_line(text)
    for kind, pattern, retry, hint in _TABLE:
        if re.search(pattern, line, re.IGNORECASE):
            return EngineMessage(kind, line, retry, hint)
    return EngineMessage("unknown", line, True, "")


def port_in(text: str) -> tuple[int, str] | None:
    """Return the port that a message of the kind `port_in_use` is about, and its protocol or an empty text.

    >>> port_in("failed to bind host port for 127.0.0.1:8080:172.18.0.2:80/tcp: address already in use")
    (8080, 'tcp')
    """
    for pattern in _PORTS:
        found = pattern.search(text)
        if found:
            return int(found["port"]), found["protocol"]
    return None


def name_in(text: str) -> str | None:
    """Return the name that a message of the kind `name_in_use` is about."""
    found = _NAME.search(text)
    return found["name"] if found else None


def last_error_line(text: str) -> str:
    """Return the line of a program's output that says what went wrong, without `Error response from daemon:`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if re.match(r"(Error|error)\b", line)]
    line = (marked or lines or [""])[-1]
    line = re.sub(r"^(Error response from daemon|Error|error):\s*", "", line)
    # The engine repeats some messages: `no such image: x: No such image: x`.
    return re.sub(r"^(?P<text>.+): (?P=text)$", r"\g<text>", line, flags=re.IGNORECASE)


def raise_for(error: CommandFailed) -> None:
    """Raise a more exact error if the text of `error` tells one: cycle, unknown service, no engine, bad file."""
    text = error.stderr
    found = _INTERPOLATION.search(text)
    if found:
        # The rest of Compose's message is the value, which may be a password with a `$` in it.
        raise InvalidComposeFile(
            f"the compose file is not valid: {found['place']} has a `$` that starts no variable",
            "write $$ for a plain $",
        ) from error
    found = _CYCLE.search(text)
    if found:
        raise DependencyCycle(_closed(found["cycle"].strip().split(" -> "))) from error
    found = _NO_SERVICE.search(text)
    if found:
        raise UnknownService(found["name"], ()) from error
    unreachable = engine_error(text)
    if unreachable:
        raise unreachable from error
    # Only `config` checks the file; in the output of other commands, the same words can come from a container.
    if "config" in error.argv and _INVALID.search(text):
        line = last_error_line(text)
        raise InvalidComposeFile(f"the compose file is not valid: {line}", _hint_for(text), foreign=line) from error


def container_is_gone(text: str) -> bool:
    """Return whether an engine's refusal means that the container does not exist or does not run any more."""
    return _GONE.search(text) is not None


def engine_error(text: str) -> StackError | None:
    """Return the error if the text says that the engine does not answer or is not permitted, else None."""
    if _NO_PERMISSION.search(text):
        return SocketPermission("no permission to use the engine's socket", SOCKET_HINT)
    if _NO_ENGINE.search(text):
        line = last_error_line(text)
        return EngineUnreachable(
            f"no engine answers: {line}",
            "start it, or install one: `inv engine.install`; DOCKER_HOST and docker contexts can choose another",
            foreign=line,
        )
    return None


def _closed(cycle: list[str]) -> list[str]:
    return cycle if cycle[0] == cycle[-1] else [*cycle, cycle[0]]


def _hint_for(text: str) -> str:
    if "env file" in text:
        return "create the env file, or mark it `required: false`"
    if "is missing a value" in text:
        return "set the variable in the environment or in .env"
    if _NO_SERVICES.search(text):
        return "services belong under `services:`; at the top level only what Compose knows, and `x-` names, may stand"
    unset = list(dict.fromkeys(_UNSET.findall(text)))
    if unset and "additional property" not in text.lower():
        more = f" and {len(unset) - 4} more" if len(unset) > 4 else ""
        return f"no value is set for {', '.join(unset[:4])}{more}: set it in the environment or in .env"
    return "`docker compose config` shows the same; correct the file and try again"
