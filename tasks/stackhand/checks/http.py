"""One HTTP request to a service, with a program of its own container, else of a neighbour's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer, time_ran_out
from stackhand.checks.exec import first_able
from stackhand.checks.traits import Traits
from stackhand.engine.api.exec import ExecResult

# Seconds.
TIMEOUT = 4.0
# Web servers and proxies, by the words of their images.
SERVERS = frozenset(
    "apache apache2 caddy envoy haproxy httpd lighttpd nginx openresty traefik".split()  # noqa: SIM905
)
_URL = re.compile(r"https?://[^\s\"'`;)|>]+")
# curl and wget take an address without a scheme.
_BARE = re.compile(
    r"\b(?:curl|wget)\b[^|;&]*?\s(?P<url>(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?(?:/[^\s\"'`;)|>]*)?)"
)
# Python's http.client: HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz')
_CLIENT = re.compile(
    r"(?P<scheme>HTTPS?)Connection\(\s*[\"'](?P<host>[^\"']+)[\"']\s*,\s*(?:port\s*=\s*)?(?P<port>\d+)"
)
# What makes a probe ask otherwise than we do, or look at more than the status.
_OTHERWISE = re.compile(
    r"""
    (?<!\|) \| (?!\|)
    | \b(?:curl|wget)\b .* \s-[a-zA-Z]*[uHXdFI]
    | \s--(?:user|head|request|data|json|form|cert|key|unix-socket|resolve|connect-to|post-|body-|method|http-user)
    | \b(?:POST|PUT|HEAD|OPTIONS)\b | \bheaders\b | \.(?:text|json)\(
    """,
    re.VERBOSE,
)
_REQUEST = re.compile(r"request\(\s*[\"']\w+[\"']\s*,\s*[\"'](?P<path>[^\"']+)[\"']")


class Late(NoAnswer):
    """There was no answer in time."""


@dataclass(frozen=True)
class Url:
    """Where to ask, as seen from inside the container.

    `given` is whether the service's own healthcheck asks there, `plain` whether it does so as we do: with a bare GET,
    without a look at the body. With a `name` the server is asked for that one, in the handshake and in the request; it
    is still `host` that the connection goes to.
    """

    scheme: str
    host: str
    port: int
    path: str = "/"
    given: bool = False
    plain: bool = True
    name: str = ""

    def __str__(self) -> str:
        asked = self.name or self.host
        host = f"[{asked}]" if ":" in asked else asked
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: its status, and the first line of its body."""

    status: int
    line: str = ""


def url_of(text: str, *, given: bool = False) -> Url | None:
    """Return the parts of an http(s) URL, without a user and password in it; None for anything else.

    >>> str(url_of("http://localhost/health?full=1"))
    'http://localhost:80/health?full=1'
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.hostname:
        return None
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Url(url.scheme, url.hostname, port or (443 if url.scheme == "https" else 80), path, given)


def probed_url(shown: Traits) -> Url | None:
    """Return the URL of the service itself that its healthcheck asks for, or None.

    >>> str(probed_url(Traits(probe="curl -f http://localhost:8000/health || exit 1")))
    'http://localhost:8000/health'
    """
    probe = shown.healthcheck
    texts = _URL.findall(probe) + [f"http://{found['url']}" for found in _BARE.finditer(probe)]
    client = _CLIENT.search(probe)
    if client:
        path = _REQUEST.search(probe)
        texts.append(f"{client['scheme'].lower()}://{client['host']}:{client['port']}{path['path'] if path else '/'}")
    found = (url_of(text.rstrip(",."), given=True) for text in texts if "$" not in text)
    url = next((url for url in found if url and shown.is_own_host(url.host)), None)
    # A user and password in the URL are left out when we ask.
    otherwise = _OTHERWISE.search(probe) or any("@" in text.partition("?")[0] for text in texts)
    return replace(url, plain=False) if url and otherwise else url


def request(
    context: CheckContext, service: str, url: Url, *, method: str = "GET", body: str = "", seconds: float = TIMEOUT
) -> Reply:
    """Ask a service for a path, from inside its container, else from one on its networks.

    Raises NoAnswer with what came instead of an HTTP answer, Late where nothing came in time, CannotAsk where
    nothing is there to ask with.
    """
    words = [scripts.read(__package__, "http_probe.py"), scripts.read(__package__, "http_probe.js")]

    def ask(place: str) -> ExecResult:
        host = url.host if place == service else _name(context, service)
        environment = {
            "URL": str(Url(url.scheme, host, url.port, url.path, name=url.name)),
            "NAME": url.name,
            "HOST": host,
            "PORT": str(url.port),
            "METHOD": method,
            "BODY": body,
            "TIMEOUT": f"{context.within(seconds):g}",
        }
        script = scripts.read(__package__, "http_probe.sh")
        return context.shell(place, script, *words, environment=environment, timeout=seconds + 1)

    answer = first_able(context.neighbours(service), ask)
    if answer is None:
        raise CannotAsk("no container on its networks has a program to ask with (curl, wget, python3, node, bash)")
    reply = _reply(answer.result)
    if isinstance(reply, Reply):
        return reply
    if answer.place != service:
        # A server may listen on the loopback address only, which no neighbour reaches.
        raise CannotAsk(f"{service} has no program to ask with, and from {answer.place} there is no answer: {reply}")
    raise (Late if time_ran_out(reply) else NoAnswer)(f"{context.redact(str(url))}: {reply}")


def _name(context: CheckContext, service: str) -> str:
    """Return the name that leads to the container that is asked: of several, the service's name may lead to another."""
    running = [each for each in context.containers() if each.service == service and each.running]
    return context.container(service).name if len(running) > 1 else service


def _reply(answer: ExecResult) -> Reply | str:
    """Return the HTTP answer that the script printed, or what it said instead."""
    if answer.exit_code is None:
        return f"no answer within {answer.seconds:.0f} s"
    return parse(answer.stdout) or answer.last_error


def parse(text: str) -> Reply | None:
    """Return the HTTP answer in a text, None where there is none. wget prints the headers indented, curl does not.

    >>> parse("HTTP/1.1 503 Service Unavailable\\r\\nServer: x\\r\\n\\r\\nno database\\n")
    Reply(status=503, line='no database')
    """
    found = re.search(r"HTTP/\d(?:\.\d)? (\d{3})", text)
    if not found:
        return None
    head, _, body = text[found.start() :].replace("\r\n", "\n").partition("\n\n")
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    if lines and re.search(r"^transfer-encoding:\s*chunked", head, re.IGNORECASE | re.MULTILINE):
        lines = lines[1:]  # the length of the first chunk
    return Reply(int(found[1]), lines[0][:200] if lines else "")


def json_of(reply: Reply) -> Mapping[str, object]:
    """Return the JSON object that an answer begins with, an empty one for anything else."""
    import json

    try:
        found = json.loads(reply.line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
