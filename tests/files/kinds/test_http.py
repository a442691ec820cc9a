"""Web services asked for real, with each tool that a container may have."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from builders import project, service
from shells import Shell, context, running

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.http import Url, request
from stackhand.engine.api.containers import Healthcheck
from stackhand.errors import StackError
from stackhand.kinds.caddy import sites
from stackhand.kinds.http import Http
from stackhand.kinds.ollama import Ollama
from stackhand.kinds.qdrant import Qdrant


class _Handler(BaseHTTPRequestHandler):
    loaded: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        answers = {
            "/api/version": (200, '{"version": "0.33.0"}'),
            "/readyz": (200, "all shards are ready"),
            "/a%20b": (200, "well"),
        }
        self._send(*answers.get(self.path, (404, "not here")))

    def do_POST(self) -> None:
        model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        self.loaded.append(model)
        self._send(*((200, '{"done": true}') if model == "tiny" else (404, f'{{"error": "model {model} not found"}}')))

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


TOOLS = ["curl", "python3", "node", "wget", "bash"]


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not shutil.which(name):
        pytest.skip(f"this machine has no {name}")
    return name


def _stage(tmp_path: Path, *programs: str, **environment: str) -> tuple[CheckContext, Shell]:
    shell = Shell(tmp_path / "bin", dict.fromkeys(programs), running("web", "beside"))
    made = project(service("web", environment=environment), service("beside"))
    return context(made, shell, tmp_path), shell


def test_every_tool_asks(tmp_path: Path, port: int, tool: str) -> None:
    stage, _ = _stage(tmp_path, tool)
    assert request(stage, "web", Url("http", "127.0.0.1", port, "/api/version")).status == 200
    missing = request(stage, "web", Url("http", "127.0.0.1", port, "/nothing"))
    assert missing.status == 404
    if tool != "wget":
        assert missing.line == "not here"


def test_no_tool_has_an_answer_where_nothing_listens(tmp_path: Path, tool: str) -> None:
    stage, _ = _stage(tmp_path, tool)
    with pytest.raises(NoAnswer, match=r"http://127.0.0.1:1/: .*(?i:refused|connect)"):
        request(stage, "web", Url("http", "127.0.0.1", 1))


class _Named(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers["Host"] == f"shop.test:{self.server.server_address[1]}"  # type: ignore[index]
        self.send_response(200 if known else 421)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=["http", "https"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Url]:
    """A server that knows one name only, in the handshake and in the request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Named)
    if request.param == "https":
        pem, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", key, "-out", pem, "-subj", "/CN=shop.test", "-days", "1"],
            check=True, capture_output=True,
        )  # fmt: skip
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(pem, key)
        secured.sni_callback = lambda _, name, __: None if name == "shop.test" else ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        server.socket = secured.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Url(request.param, "127.0.0.1", server.server_address[1], name="shop.test")
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_is_asked_for_its_name(tmp_path: Path, named: Url, tool: str) -> None:
    stage, _ = _stage(tmp_path, tool)
    if tool == "wget" or (tool, named.scheme) == ("bash", "https"):
        with pytest.raises(CannotAsk):
            request(stage, "web", named)
        return
    assert request(stage, "web", named).status == 200


CADDY = """#!/bin/sh
[ "$*" = "adapt --config /etc/caddy/Caddyfile --adapter caddyfile" ] || exit 1
cat ${0%/*}/adapted
"""


@pytest.mark.parametrize(("programs", "answer"), [(("python3",), "(200)"), ((), None)])
def test_a_caddy_is_asked_for_its_site(tmp_path: Path, named: Url, programs: tuple[str, ...], answer: str) -> None:
    server = {
        "listen": [f":{named.port}"],
        "routes": [{"match": [{"host": ["shop.test"]}]}],
        "automatic_https": {"disable": named.scheme == "http"},
    }
    shell = Shell(tmp_path / "bin", {**dict.fromkeys(programs), "caddy": CADDY}, running("web"))
    (shell.folder / "adapted").write_text(json.dumps({"apps": {"http": {"servers": {"srv0": server}}}}))
    stage = context(project(service("web", image="caddy:2", raw={"expose": ["1"]})), shell, tmp_path)
    (site,) = sites(stage, "web")
    assert (site.name, site.port, site.secure) == ("shop.test", named.port, named.scheme == "https")
    (finding,) = Http().check_responds(stage, "web")
    assert finding.status == ("ok" if answer else "skip")
    assert not answer or finding.summary.endswith(answer)


@pytest.mark.parametrize("adapted", ["", "[]", '{"apps": 1}', "not JSON"])
def test_a_caddy_that_does_not_tell_its_sites(tmp_path: Path, adapted: str) -> None:
    shell = Shell(tmp_path / "bin", {"caddy": CADDY}, running("web"))
    (shell.folder / "adapted").write_text(adapted)
    stage = context(project(service("web", image="caddy:2"), service("other", image="nginx")), shell, tmp_path)
    assert sites(stage, "web") == ()
    asked = len(shell.asked)
    assert sites(stage, "other") == ()
    assert len(shell.asked) == asked


def test_with_nothing_to_ask_with(tmp_path: Path) -> None:
    stage, shell = _stage(tmp_path)
    with pytest.raises(CannotAsk, match="has a program to ask with"):
        request(stage, "web", Url("http", "127.0.0.1", 1))
    assert [env["HOST"] for _, env in shell.asked] == ["127.0.0.1", "web"]


def test_a_guess_that_has_no_answer_is_no_failure(tmp_path: Path) -> None:
    stage, _ = _stage(tmp_path, "python3")
    with pytest.raises(CannotAsk, match="a guess"):
        Http().collect(stage, "web")
    assert [each.status for each in Http().check_responds(stage, "web")] == ["skip"]


SLOW = "#!/bin/sh\ncat >/dev/null\nprintf %s \"$TIMEOUT\" > ${0%/*}/patience\necho 'curl: (28) Operation timed out'\n"
REFUSED = "#!/bin/sh\necho 'curl: (7) Connection refused'\n"


@pytest.mark.parametrize(
    ("curl", "options", "health", "timeout", "patience", "status"),
    [
        (SLOW, "-f", "healthy", 3.0, "4", "fail"),
        (SLOW, "-f", "healthy", 7.0, "7", "fail"),
        (SLOW, "-f", "healthy", 30.0, "10", "skip"),
        (SLOW, "-f", "unhealthy", 30.0, "10", "fail"),
        (SLOW, "-H x:y", "healthy", 3.0, "4", "skip"),
        (REFUSED, "-f", "healthy", 30.0, None, "fail"),
        (REFUSED, "--unix-socket /x", "healthy", 30.0, None, "skip"),
    ],
)
def test_no_answer_where_the_healthcheck_has_one(
    tmp_path: Path, curl: str, options: str, health: str, timeout: float, patience: str | None, status: str
) -> None:
    probe = Healthcheck(("true",), timeout=timeout)
    shell = Shell(tmp_path / "bin", {"curl": curl}, running("web", health=health, healthcheck=probe))
    made = project(service("web", raw={"healthcheck": {"test": f"curl {options} http://localhost:1/"}}))
    assert [each.status for each in Http().check_responds(context(made, shell, tmp_path), "web")] == [status]
    if patience:
        assert (shell.folder / "patience").read_text() == patience


def test_each_of_several_containers_is_asked_itself_also_from_beside(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "bin", {}, [*running("web"), *running("web", number=2), *running("beside")])
    stage = context(project(service("web"), service("beside")), shell, tmp_path)
    for one in shell.containers("shop")[:2]:
        with pytest.raises(CannotAsk):
            request(stage.for_container(one), "web", Url("http", "127.0.0.1", 1))
    assert [env["HOST"] for _, env in shell.asked] == ["127.0.0.1", "shop-web-1", "127.0.0.1", "shop-web-2"]


def test_warm_ups(tmp_path: Path, port: int) -> None:
    shell = Shell(tmp_path / "bin", {"python3": None}, running("web"))
    stage = context(project(service("web", raw={"expose": [str(port)]})), shell, tmp_path)
    Http().warm(stage, "web", "/a b")
    with pytest.raises(StackError, match="/nothing answers 404: not here"):
        Http().warm(stage, "web", "nothing")


@pytest.mark.parametrize("program", ["curl", "python3", "node", "bash"])
def test_ollama(tmp_path: Path, port: int, program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"this machine has no {program}")
    stage, _ = _stage(tmp_path, program, OLLAMA_HOST=f"0.0.0.0:{port}")
    assert Ollama().collect(stage, "web").version == "0.33.0"
    Ollama().warm(stage, "web", "tiny")
    assert _Handler.loaded[-1] == "tiny"
    with pytest.raises(StackError, match="large could not be loaded: model large not found") as caught:
        Ollama().warm(stage, "web", "large")
    assert "models.pull large" in (caught.value.hint or "")


def test_qdrant(tmp_path: Path, port: int) -> None:
    stage, _ = _stage(tmp_path, "python3", QDRANT__SERVICE__HTTP_PORT=str(port))
    assert [each.status for each in Qdrant().check_responds(stage, "web")] == ["ok"]


def test_something_else_on_ollamas_port(tmp_path: Path) -> None:
    stage, _ = _stage(tmp_path, "python3", OLLAMA_HOST="http://0.0.0.0:1/")
    assert [each.status for each in Ollama().check_responds(stage, "web")] == ["fail"]
