"""The kinds http, ollama and qdrant: what to ask for, with which program, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest
from builders import service

from stackhand.checks.http import Reply, Url, parse, probed_url, url_of
from stackhand.checks.traits import traits
from stackhand.kinds.http import HttpFacts, evaluate_status, url_to_ask

API = (
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); "
    "c.request('GET', '/healthz'); exit(c.getresponse().status != 200)"
)


@pytest.mark.parametrize(
    ("test", "url"),
    [
        (
            ["CMD", "curl", "-fsS", "--cacert", "/ca.crt", "https://localhost:8443/health"],
            "https://localhost:8443/health",
        ),
        ("curl -f http://localhost/ || exit 1", "http://localhost:80/"),
        ("curl -f 'http://127.0.0.1:3000/api/health?full=1'", "http://127.0.0.1:3000/api/health?full=1"),
        ("curl -f http://it:8080/ping", "http://it:8080/ping"),
        ("wget -qO- localhost:8080/ping", "http://localhost:8080/ping"),
        ("wget --spider -q 127.0.0.1:9000 || exit 1", "http://127.0.0.1:9000/"),
        ("curl -f http://localhost:$PORT/health", "http://localhost:4000/health"),
        ("curl -f http://localhost:${PORT:-80}/health", "http://localhost:4000/health"),
        ("curl -f http://localhost:${OTHER:-81}/health", "http://localhost:81/health"),
        ("curl -f http://user:word@localhost/health", "http://localhost:80/health"),
        (["CMD", "python3", "-c", API], "http://127.0.0.1:8000/healthz"),
        ("node -e \"fetch('http://localhost:3000/ok').then(r => process.exit(!r.ok))\"", "http://localhost:3000/ok"),
        ("curl -f http://other:8080/ping", None),
        ("curl -f http://localhost:$UNKNOWN/", None),
        ("curl -f http://localhost:99999/", None),
        ("nc -z localhost 8080", None),
        ("pg_isready -h localhost", None),
    ],
)
def test_where_a_healthcheck_asks(test: Any, url: str | None) -> None:
    found = probed_url(traits(service("it", environment={"PORT": "4000"}, raw={"healthcheck": {"test": test}})))
    assert (str(found) if found else None) == url


@pytest.mark.parametrize(
    ("raw", "exposed", "url"),
    [
        ({}, (), "http://127.0.0.1:80/"),
        ({}, (443, 80, 2019), "http://127.0.0.1:80/"),
        ({"ports": [{"target": 8080}]}, (80,), "http://127.0.0.1:8080/"),
        ({"expose": ["8443"]}, (), "https://127.0.0.1:8443/"),
        ({"expose": ["9123"]}, (), "http://127.0.0.1:9123/"),
        ({}, (9123,), "http://127.0.0.1:9123/"),
    ],
)
def test_where_to_ask_without_a_healthcheck(raw: dict[str, Any], exposed: tuple[int, ...], url: str) -> None:
    assert str(url_to_ask(service("it", raw=raw), exposed)) == url


@pytest.mark.parametrize(
    ("test", "plain"),
    [
        ("curl -fsS http://localhost/ || exit 1", True),
        ("curl --fail --silent --max-time 3 -o /dev/null http://localhost/", True),
        ("wget -q -T 3 --spider http://localhost/", True),
        (["CMD", "python3", "-uc", API], True),
        ("curl -s https://localhost:9200 | grep -q 'missing authentication credentials'", False),
        ("curl -u elastic:word http://localhost/", False),
        ("curl -fsSu elastic:word http://localhost/", False),
        ("curl -f http://user:word@localhost/", False),
        ("curl -H 'Host: shop.example' http://localhost/", False),
        ("curl --header 'Authorization: x' http://localhost/", False),
        ("curl -X POST http://localhost/", False),
        ("curl -d '{}' http://localhost/", False),
        ("curl --data-raw '{}' http://localhost/", False),
        ("curl --unix-socket /run/it.sock http://localhost/", False),
        ("node -e \"fetch('http://localhost/', {method: 'POST'})\"", False),
    ],
)
def test_whether_a_healthcheck_asks_as_we_do(test: Any, plain: bool) -> None:
    found = probed_url(traits(service("it", raw={"healthcheck": {"test": test}})))
    assert found
    assert found.plain is plain


@pytest.mark.parametrize(
    ("status", "asked", "healthy", "verdict"),
    [
        (200, "given", True, "ok"),
        (302, "given", True, "ok"),
        (404, "given", True, "warn"),
        (404, "given", False, "fail"),
        (401, "given", True, "ok"),
        (403, "given", True, "ok"),
        (405, "given", True, "ok"),
        (401, "given", False, "fail"),
        (503, "given", True, "fail"),
        (400, "otherwise", True, "ok"),
        (503, "otherwise", True, "ok"),
        (401, "otherwise", False, "skip"),
        (404, "guessed", False, "ok"),
        (401, "guessed", True, "ok"),
        # A proxy that knows no such host.
        (503, "guessed", True, "skip"),
        (500, "guessed", True, "warn"),
        (502, "guessed", False, "warn"),
    ],
)
def test_judging_an_answer(status: int, asked: str, healthy: bool, verdict: str) -> None:
    url = Url("http", "localhost", 80, "/", given=asked != "guessed", plain=asked != "otherwise")
    finding = evaluate_status("web", HttpFacts(url, Reply(status, "first line"), healthy), str(url), ("db",))
    assert finding.status == verdict
    assert finding.blames == (("db",) if verdict in ("fail", "warn") and status >= 500 else ())
    if verdict != "ok":
        assert finding.evidence == f"http://localhost:80/: {status} first line"
        assert finding.remedy


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nwell\r\n", Reply(200, "well")),
        ("HTTP/2 204\r\n\r\n", Reply(204)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Reply(200, "hello")),
        # busybox
        ("Connecting to localhost (127.0.0.1:80)\n  HTTP/1.1 503 Down\nwget: server returned error: HTTP/1.1 503 Down",
         Reply(503)),
        ("curl: (7) Failed to connect to localhost port 80: Connection refused", None),
        ("", None),
    ],
)  # fmt: skip
def test_answers(text: str, reply: Reply | None) -> None:
    assert parse(text) == reply


@pytest.mark.parametrize("text", ["ftp://localhost/", "http:///x", "http://[::1/", "localhost", "http://h:port/"])
def test_no_url(text: str) -> None:
    assert url_of(text) is None


def test_an_ipv6_url() -> None:
    assert str(url_of("http://[::1]:80/")) == "http://[::1]:80/"
