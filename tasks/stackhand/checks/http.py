"""One request to a service from inside its container, with whatever program is there for it; or from beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import Traits
from stackhand.engine.api.exec import ExecResult

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
_LATE = re.compile(r"timed out|timeout|no answer within", re.IGNORECASE)
_REQUEST = re.compile(r"request\(\s*[\"']\w+[\"']\s*,\s*[\"'](?P<path>[^\"']+)[\"']")

# Prints the answer as it came: status line, headers, body. What is asked comes in variables: it is not
# for a list of processes. Answers are read up to 4 kB. https is not verified: the kind tls does that.
SCRIPT = r"""
set -f
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
if command -v curl >/dev/null 2>&1; then
  printf 'url = "%s"\n' "$URL" | curl -K - -qgsSki --noproxy '*' --http1.1 -m "$PATIENCE" -X "$METHOD" \
    ${BODY:+-H 'Content-Type: application/json' --data-raw "$BODY"} 2>&1 | head -c 4096
  exit 0
fi
for python in python3 python; do
  command -v $python >/dev/null 2>&1 || continue
  exec $python -ISc '
import os, socket, sys
url, seconds, body = os.environ["URL"], float(os.environ["PATIENCE"]), os.environ["BODY"].encode()
scheme, _, rest = url.partition("://")
address, slash, path = rest.partition("/")
host, port = os.environ["HOST"], int(os.environ["PORT"])
try:
    sock = socket.create_connection((host, port), seconds)
    if scheme == "https":
        import ssl
        context = ssl._create_unverified_context()
        sock = context.wrap_socket(sock, server_hostname=host)
    head = "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: stackhand\r\nAccept: */*\r\nConnection: close\r\n" % (
        os.environ["METHOD"], slash + path or "/", address)
    if body:
        head += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    sock.settimeout(seconds)
    sock.sendall(head.encode() + b"\r\n" + body)
    got = b""
    while len(got) < 4096:
        more = sock.recv(4096)
        if not more:
            break
        got += more
        if b"\r\n\r\n" in got and got.partition(b"\r\n\r\n")[2]:
            break
    sys.stdout.write(got.decode("latin-1"))
except Exception as error:
    print("%s: %s" % (type(error).__name__, error))
'
done
if command -v node >/dev/null 2>&1; then
  exec node -e '
const e = process.env, u = new URL(e.URL), m = require(u.protocol === "https:" ? "https" : "http");
const r = m.request(u, {method: e.METHOD, rejectUnauthorized: false, timeout: e.PATIENCE * 1000,
  headers: e.BODY ? {"Content-Type": "application/json"} : {}}, a => {
  console.log("HTTP/" + a.httpVersion + " " + a.statusCode + " " + a.statusMessage + "\r\n\r");
  let n = 0; a.on("data", d => { process.stdout.write(d); n += d.length; if (n > 4096) process.exit(0); });
});
r.on("timeout", () => r.destroy(new Error("timed out"))); r.on("error", x => { console.log(String(x)); });
r.end(e.BODY);'
fi
if [ "$METHOD" = GET ] && command -v wget >/dev/null 2>&1; then
  certificates=; case $URL in https:*) certificates=--no-check-certificate;; esac
  said=$(wget -S -O - -T "$PATIENCE" $certificates "$URL" 2>&1 | head -c 4096)
  if [ -n "$said" ]; then printf '%s\n' "$said"; exit 0; fi
fi
case $URL in https:*) exit 127;; esac
command -v bash >/dev/null 2>&1 || exit 127
exec bash -c 'rest=${URL#*://}; address=${rest%%/*}; path=/; case $rest in */*) path=/${rest#*/};; esac
exec 3<>"/dev/tcp/$HOST/$PORT" || exit 0
printf "%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s" "$METHOD" "$path" "$address" "${#BODY}" "$BODY" >&3
read -t "${PATIENCE%.*}" -r line <&3 && printf "%s\n" "$line" && head -c 4096 <&3' 2>&1
"""


class Late(NoAnswer):
    """There was no answer in time."""


@dataclass(frozen=True)
class Url:
    """Where to ask, as seen from inside the container.

    `given` is whether the service's own healthcheck asks there, `plain` whether it does so as we do: with a bare GET,
    and no look at what comes.
    """

    scheme: str
    host: str
    port: int
    path: str = "/"
    given: bool = False
    plain: bool = True

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
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
    probe = shown.asked
    texts = _URL.findall(probe) + [f"http://{found['url']}" for found in _BARE.finditer(probe)]
    client = _CLIENT.search(probe)
    if client:
        path = _REQUEST.search(probe)
        texts.append(f"{client['scheme'].lower()}://{client['host']}:{client['port']}{path['path'] if path else '/'}")
    found = (url_of(text.rstrip(",."), given=True) for text in texts if "$" not in text)
    url = next((url for url in found if url and shown.is_me(url.host)), None)
    # A user and password in the URL are left out when we ask.
    otherwise = _OTHERWISE.search(probe) or any("@" in text.partition("?")[0] for text in texts)
    return replace(url, plain=False) if url and otherwise else url


def request(
    context: CheckContext, service: str, url: Url, *, method: str = "GET", body: str = "", seconds: float = TIMEOUT
) -> Reply:
    """Ask a service for a path, from inside its container, else from one on its networks.

    Raises NoAnswer with what came instead of an HTTP answer, Late where nothing came within `seconds`, CannotAsk where
    nothing is there to ask with.
    """
    for place in context.neighbours(service):
        host = url.host if place == service else _name(context, service)
        there = Url(url.scheme, host, url.port, url.path)
        environment = {
            "URL": str(there),
            "HOST": host,
            "PORT": str(url.port),
            "METHOD": method,
            "BODY": body,
            "PATIENCE": f"{seconds:g}",
        }
        answer = context.shell(place, SCRIPT, environment=environment, timeout=seconds + 1)
        if answer.not_found:
            continue
        reply = _reply(answer)
        if isinstance(reply, Reply):
            return reply
        if place != service:
            # A server that listens on the loopback address only is none of a neighbour's business.
            raise CannotAsk(f"{service} has no program to ask with, and from {place} there is no answer: {reply}")
        raise (Late if _LATE.search(reply) else NoAnswer)(f"{context.redact(str(url))}: {reply}")
    raise CannotAsk("no container on its networks has a program to ask with (curl, wget, python3, node, bash)")


def _name(context: CheckContext, service: str) -> str:
    """Return what leads to the container that is asked: of several, the service's name leads to any."""
    running = [each for each in context.containers() if each.service == service and each.running]
    return context.container(service).name if len(running) > 1 else service


def _reply(answer: ExecResult) -> Reply | str:
    """Return the HTTP answer in what the script printed; what it said instead where that is none."""
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
    """Return the JSON object that an answer begins with, an empty one where it is none."""
    import json

    try:
        found = json.loads(reply.line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
