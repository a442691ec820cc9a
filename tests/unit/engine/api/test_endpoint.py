"""Which engine is meant, and what is said when it is not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from stackhand.engine.api.endpoint import DEFAULT_SOCKET, Endpoint, Tls, connect, for_cli, resolve
from stackhand.errors import ConfigError, EngineUnreachable, SocketPermission


def add_context(config: Path, name: str, **docker: Any) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts/meta" / key
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": docker}}))
    return config / "contexts/tls" / key / "docker"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "home/.docker"
    folder.mkdir(parents=True)
    return folder


def resolved(tmp_path: Path, **environ: str) -> Endpoint:
    return resolve(
        {"HOME": str(tmp_path / "home"), **environ},
        default_socket=tmp_path / "default.sock",
        run_user=tmp_path / "run",
    )


@pytest.mark.parametrize(
    ("environ", "url", "source"),
    [
        ({"DOCKER_HOST": "tcp://ci:2375", "DOCKER_CONTEXT": "far"}, "tcp://ci:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "ci:2375"}, "tcp://ci:2375", "DOCKER_HOST"),
        ({"DOCKER_HOST": "ssh://me@ci"}, "ssh://me@ci", "DOCKER_HOST"),
        (
            {"DOCKER_HOST": "unix:///run/x.sock", "DOCKER_TLS_VERIFY": "1"},
            "unix:///run/x.sock",
            "DOCKER_HOST",
        ),
        ({"DOCKER_CONTEXT": "far"}, "ssh://far", "context far"),
        ({}, "unix:///near.sock", "context near"),
        ({"DOCKER_HOST": ""}, "unix:///near.sock", "context near"),
        ({"DOCKER_CONTEXT": "default"}, "unix://{tmp}/default.sock", "default"),
    ],
)
def test_the_order_is_that_of_the_docker_cli(
    tmp_path: Path, config: Path, environ: dict[str, str], url: str, source: str
) -> None:
    add_context(config, "far", Host="ssh://far")
    add_context(config, "near", Host="unix:///near.sock")
    (config / "config.json").write_text('{"currentContext": "near"}')

    assert resolved(tmp_path, **environ) == Endpoint(url.format(tmp=tmp_path), source)


def test_docker_config_moves_the_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    add_context(elsewhere, "near", Host="unix:///near.sock")
    (elsewhere / "config.json").write_text('{"currentContext": "near"}')

    assert resolved(tmp_path, DOCKER_CONFIG=str(elsewhere)).source == "context near"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currentContext": ""}', "{}"])
def test_a_config_file_that_says_nothing_means_the_default(tmp_path: Path, config: Path, text: str) -> None:
    (config / "config.json").write_text(text)

    assert resolved(tmp_path).source == "default"


def test_an_unknown_context_is_bad_configuration(tmp_path: Path, config: Path) -> None:
    with pytest.raises(ConfigError, match="'nowhere' does not exist") as caught:
        resolved(tmp_path, DOCKER_CONTEXT="nowhere")
    assert caught.value.exit_code == 2
    assert "docker context ls" in (caught.value.hint or "")


def test_certificates_of_a_context(tmp_path: Path, config: Path) -> None:
    tls = add_context(config, "far", Host="tcp://far:2376", SkipTLSVerify=False)
    tls.mkdir(parents=True)
    for name in ("ca", "cert", "key"):
        (tls / f"{name}.pem").touch()

    assert resolved(tmp_path, DOCKER_CONTEXT="far").tls == Tls(tls / "ca.pem", tls / "cert.pem", tls / "key.pem")


def test_certificates_from_the_environment(tmp_path: Path, config: Path) -> None:
    (config / "ca.pem").touch()
    tcp = {"DOCKER_HOST": "tcp://far:2376"}

    assert resolved(tmp_path, **tcp).tls is None
    assert resolved(tmp_path, **tcp, DOCKER_TLS_VERIFY="1").tls == Tls(config / "ca.pem")
    assert resolved(tmp_path, **tcp, DOCKER_TLS="1").tls == Tls(config / "ca.pem", verify=False)
    assert resolved(tmp_path, **tcp, DOCKER_TLS="1", DOCKER_CERT_PATH="/none").tls == Tls(verify=False)


def test_a_rootless_engine_is_found_where_the_default_socket_is_missing(tmp_path: Path) -> None:
    runtime = tmp_path / "run" / str(os.getuid())
    runtime.mkdir(parents=True)
    (runtime / "docker.sock").touch()
    session = tmp_path / "session"
    session.mkdir()

    assert resolved(tmp_path) == Endpoint(f"unix://{runtime}/docker.sock", "rootless")
    assert resolved(tmp_path, XDG_RUNTIME_DIR=str(session)).url == f"unix://{runtime}/docker.sock"
    (session / "docker.sock").touch()
    assert resolved(tmp_path, XDG_RUNTIME_DIR=str(session)).url == f"unix://{session}/docker.sock"
    (tmp_path / "default.sock").touch()
    assert resolved(tmp_path).source == "default"


def test_the_cli_is_told_of_a_rootless_engine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://ci:2375"}
    assert for_cli(environ) == environ

    rootless = Endpoint("unix:///run/user/7/docker.sock", "rootless")
    monkeypatch.setattr("stackhand.engine.api.endpoint.resolve", lambda _: rootless)
    assert for_cli({"A": "b"}) == {"A": "b", "DOCKER_HOST": rootless.url}


def test_local_or_not() -> None:
    assert Endpoint("unix:///a.sock", "default").is_local
    assert Endpoint("unix:///a.sock", "default").socket == Path("/a.sock")
    assert not Endpoint("ssh://host", "DOCKER_HOST").is_local
    assert Endpoint("ssh://host", "DOCKER_HOST").socket is None


def test_a_missing_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable, match=r"/no\.sock does not exist") as caught:
        connect(Endpoint(f"unix://{tmp_path}/no.sock", "default"), {})
    assert caught.value.exit_code == 3
    assert (caught.value.hint or "").startswith("default chose this engine")


def test_what_to_do_depends_on_which_engine_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    hints = {}
    for url, source in (
        (f"unix://{DEFAULT_SOCKET}", "default"),
        ("unix:///run/user/1/docker.sock", "rootless"),
        ("unix:///far.sock", "context far"),
    ):
        with pytest.raises(EngineUnreachable) as caught:
            connect(Endpoint(url, source), {})
        hints[source] = caught.value.hint or ""
    assert "engine.install" in hints["default"]
    assert "systemctl --user" in hints["rootless"]
    assert "context far chose" in hints["context far"]


def test_a_socket_that_nobody_serves(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))

    with pytest.raises(EngineUnreachable, match="connection refused"):
        connect(Endpoint(f"unix://{path}", "default"), {})


def test_a_socket_that_we_may_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(SocketPermission, match="no permission") as caught:
        connect(Endpoint("unix:///run/x.sock", "default"), {})
    assert caught.value.exit_code == 3
    assert "group `docker`" in (caught.value.hint or "")


def test_a_host_that_refuses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineUnreachable, match=r"\(from DOCKER_HOST\): connection refused"):
        connect(Endpoint(f"tcp://127.0.0.1:{port}", "DOCKER_HOST"), {})


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="is not the address of an engine: gopher://x") as caught:
        connect(Endpoint("gopher://x", "DOCKER_HOST"), {})
    assert caught.value.exit_code == 2


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"ApiVersion": "1.41", "Id": "it"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Engine(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Answers)
        self.connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        connection, _ = super().get_request()
        return connection, ("here", 0)


def test_calls_about_several_containers_share_a_connection() -> None:
    # The path of a socket is short.
    with tempfile.TemporaryDirectory() as folder, _Engine(Path(folder, "s")) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        with contextlib.closing(connect(Endpoint(f"unix://{folder}/s", "default"), {})) as client:
            before = engine.connections
            for name in ("one", "two", "three"):
                assert client.inspect_container(name)["Id"] == "it"
            assert engine.connections - before == 1
        engine.shutdown()
