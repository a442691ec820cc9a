"""What Docker's and Compose's messages mean. The texts are real: Compose 2.26 and 5.5, engine 20.10 and 29."""

from __future__ import annotations

import pytest

from stackhand.engine.messages import classify, container_is_gone, last_error_line, port_in, raise_for
from stackhand.errors import (
    CommandFailed,
    DependencyCycle,
    EngineUnreachable,
    InvalidComposeFile,
    SocketPermission,
    UnknownService,
)

DRIVER = "Error response from daemon: driver failed programming external connectivity on endpoint m-a-1 (f1b9fd9650): "


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Container 269 is not running", True),
        ("cannot exec in a stopped state: unknown", True),
        ("cannot join network of a non running container: bfa7", True),
        ("cannot join network namespace of a non running container: container web is exited", True),
        ("joining network namespace of container: No such container: 2695", True),
        ("Container 269 is paused, unpause the container before exec", False),
    ],
)
def test_a_container_that_is_gone(text: str, gone: bool) -> None:
    assert container_is_gone(text) is gone


@pytest.mark.parametrize(
    ("text", "port"),
    [
        # Engine 28.5.
        ("failed to bind host port for 127.0.0.1:80:172.17.0.2:8080/tcp: address already in use", (80, "tcp")),
        ("failed to bind host port for [::1]:80:172.17.0.2:8080/tcp: address already in use", (80, "tcp")),
        ("failed to bind host port for 0.0.0.0:53:172.17.0.2:53/udp: address already in use", (53, "udp")),
        ("failed to bind host port 81 for [::]:80-90:172.17.0.2:8080/tcp: address already in use", (81, "tcp")),
        ("failed to bind host port for [::]:80:[fd00::2]:8080/tcp: address already in use", (80, "tcp")),
        ("failed to bind host port 0.0.0.0:80/tcp: address already in use", (80, "tcp")),
        ("Bind for 0.0.0.0:80 failed: port is already allocated", (80, "")),
        # Engine 20.10.
        ("Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use", (80, "tcp")),
        ("Error starting userland proxy: listen tcp6 [::1]:80: bind: address already in use", (80, "tcp")),
        ("Error starting userland proxy: listen udp4 0.0.0.0:53: bind: address already in use", (53, "udp")),
        ("Bind for :::80 failed: port is already allocated", (80, "")),
        ("address already in use", None),
    ],
)
def test_the_port_that_is_taken(text: str, port: tuple[int, str] | None) -> None:
    assert port_in(f"driver failed programming external connectivity on endpoint a-1 (f1b9): {text}") == port


@pytest.mark.parametrize(
    ("text", "kind", "retry"),
    [
        (
            DRIVER + "Error starting userland proxy: listen tcp4 127.0.0.1:45555: bind: address already in use",
            "port_in_use",
            False,
        ),
        (DRIVER + "Bind for 127.0.0.1:45555 failed: port is already allocated", "port_in_use", False),
        (
            "Error response from daemon: failed to set up container networking: driver failed programming external "
            "connectivity on endpoint m-a-1 (f1b9): failed to bind host port for 127.0.0.1:45555:172.18.0.2:80/tcp: "
            "address already in use",
            "port_in_use",
            False,
        ),
        (
            " Container m-a-1  Creating\n"
            "Error response from daemon: no such image: stackhand-none/none:1: No such image: stackhand-none/none:1",
            "image_not_found",
            False,
        ),
        ("Error response from daemon: manifest for redis:none not found: manifest unknown", "image_not_found", False),
        (
            ' a Pulling \n a Error failed to resolve reference "127.0.0.1:80/a:2": 127.0.0.1:80/a:2: not found\n'
            'Error response from daemon: failed to resolve reference "127.0.0.1:80/a:2": 127.0.0.1:80/a:2: not found',
            "image_not_found",
            False,
        ),
        (
            "Error response from daemon: pull access denied for nosuch, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied",
            "image_not_found",
            False,
        ),
        (
            ' a Pulling \n a Error Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on '
            "10.255.255.53:53: no such host\nError response from daemon: Get "
            '"https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.255.255.53:53: '
            "no such host",
            "registry_unreachable",
            False,
        ),
        (
            'Error response from daemon: Get "http://127.0.0.1:5999/v2/": dial tcp 127.0.0.1:5999: connect: '
            "connection refused",
            "registry_unreachable",
            False,
        ),
        (
            "Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: "
            'unable to start container process: exec: "nosuchcmd": executable file not found in $PATH: unknown',
            "command_not_found",
            False,
        ),
        (
            "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
            'create failed: runc create failed: unable to start container process: exec: "/entry.sh": permission '
            "denied: unknown",
            "command_not_found",
            False,
        ),
        (
            'Error response from daemon: invalid mount config for type "bind": bind source path does not exist: '
            "/tmp/w/m/nope.txt",
            "mount_missing",
            False,
        ),
        ("network n declared as external, but could not be found", "network_missing", False),
        ('external volume "data" not found', "volume_missing", False),
        ('environment variable "NOSECRET" required by file "m_s" is not set', "variable_missing", False),
        ("Error response from daemon: Minimum memory limit allowed is 6MB", "bad_configuration", False),
        ("write /var/lib/docker/overlay2/x: no space left on device", "no_space", False),
        ("error during connect: Post \"http://docker/v1.41/containers/x/start\": EOF", "engine_gone", True),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
         "engine_gone", True),
        ("Error response from daemon: something nobody has seen yet", "unknown", True),
        ("", "unknown", True),
    ],
)  # fmt: skip
def test_what_a_message_means(text: str, kind: str, retry: bool) -> None:
    message = classify(text)
    assert (message.kind, message.retry) == (kind, retry)
    assert "Error response from daemon" not in message.detail
    assert "\n" not in message.detail
    assert message.hint or kind == "unknown"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" Network m_default  Creating\n Container m-a-1  Starting\nError response from daemon: oh\n", "oh"),
        ("Error: oh\nsome more words", "oh"),
        ("only this", "only this"),
        ("", ""),
    ],
)
def test_the_line_that_counts(text: str, line: str) -> None:
    assert last_error_line(text) == line


def failed(text: str, *words: str) -> CommandFailed:
    return CommandFailed(["docker", "compose", *(words or ("config",))], 1, text)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("yaml: line 4: could not find expected ':'", InvalidComposeFile, "line 4"),
        (
            "validating /m/c.yaml: services.a Additional property imag is not allowed",
            InvalidComposeFile,
            "Additional property imag",
        ),
        (
            "env file /m/nope.env not found: stat /m/nope.env: no such file or directory",
            InvalidComposeFile,
            "/m/nope.env",
        ),
        ('service "a" depends on undefined service "zz": invalid compose project', InvalidComposeFile, '"zz"'),
        ('service "a" refers to undefined volume nov: invalid compose project', InvalidComposeFile, "nov"),
        (
            "error while interpolating services.a.image: required variable NOPE is missing a value: must be set",
            InvalidComposeFile,
            "NOPE",
        ),
        ("open /m/zzz.yaml: no such file or directory", InvalidComposeFile, "zzz.yaml"),
        ("services.a.ports must be a list", InvalidComposeFile, "services.a.ports"),
        ("dependency cycle detected: a -> b -> a", DependencyCycle, "a → b → a"),
        ("dependency cycle detected: a -> b", DependencyCycle, "a → b → a"),
        ("dependency cycle detected: a -> a", DependencyCycle, "a → a"),
        ("no such service: nosuch", UnknownService, "nosuch"),
        (
            "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
            EngineUnreachable,
            "127.0.0.1:1",
        ),
        (
            "failed to connect to the docker API at unix:///nope.sock; check if the path is correct and if the daemon "
            "is running: dial unix /nope.sock: connect: no such file or directory",
            EngineUnreachable,
            "nope.sock",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
            'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.45/containers/json": dial unix /var/run/docker.sock: connect: '
            "permission denied",
            SocketPermission,
            "no permission",
        ),
        (
            "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
            SocketPermission,
            "no permission",
        ),
    ],
)
def test_a_better_error(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        raise_for(failed(text))
    assert says in str(caught.value)
    assert caught.value.hint  # type: ignore[attr-defined]


def unset(*names: str) -> str:
    warning = 'level=warning msg="The \\"{}\\" variable is not set. Defaulting to a blank string."\n'
    return "".join(warning.format(name) for name in names)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            unset("DATA", "MEDIA", "DATA") + "invalid spec: :/srv/data: empty section between colons",
            "no value is set for DATA, MEDIA: set it in the environment or in .env",
        ),
        (
            unset(*"ABCDEF") + "services.a.volumes.0: invalid spec: :/x: empty section between colons",
            "no value is set for A, B, C, D and 2 more: set it in the environment or in .env",
        ),
        (
            "validating /m/c.yml: (root) Additional property shop is not allowed",
            "services belong under `services:`; at the top level only what Compose knows, and `x-` names, may stand",
        ),
        # A word that Compose does not know has nothing to do with variables.
        (
            unset("DATA") + "validating /m/c.yml: services.a Additional property imag is not allowed",
            "`docker compose config` shows the same; correct the file and try again",
        ),
    ],
)
def test_the_hint_names_what_is_to_be_written(text: str, hint: str) -> None:
    with pytest.raises(InvalidComposeFile) as caught:
        raise_for(failed(text))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text",
    ["container exited: no such file or directory", "yaml: line 4: could not find expected ':'"],
)
def test_the_words_of_a_container_do_not_blame_the_compose_file(text: str) -> None:
    raise_for(failed(text, "up", "-d"))
