"""The sites of a Caddy. It answers only a client that names one of them, in the handshake and in the request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stackhand.checks.context import CheckContext
from stackhand.checks.traits import Traits, traits

# Both are Caddy; the second has PHP built in.
_PROGRAMS = ("caddy", "frankenphp")
_CONFIG = "/etc/{}/Caddyfile"
_HTTP_PORT = 80
# How many names are asked for: not all of a large configuration.
_MOST = 4


@dataclass(frozen=True)
class Site:
    """A host name that a Caddy serves, and on which port; `secure` through TLS."""

    name: str
    port: int
    secure: bool


def sites(context: CheckContext, service: str) -> tuple[Site, ...]:
    """Return the named sites of a service, none where it is no Caddy or cannot tell. Raises NoAnswer."""
    return context.cached(("caddy", service), lambda: _ask(context, service))


def _ask(context: CheckContext, service: str) -> tuple[Site, ...]:
    shown = traits(context.project.services[service])
    program = next((each for each in _PROGRAMS if each in shown.images | shown.programs), None)
    if program is None:
        return ()
    config = _option(shown, "--config", "-c") or _CONFIG.format(program)
    adapter = _option(shown, "--adapter", "-a") or "caddyfile"
    # It fills in variables and what is imported. Where no file names an adapter, the file is JSON already.
    adapt = [program, "adapt", "--config", config, "--adapter", adapter]
    answer = context.ask(service, ["cat", config] if config.endswith(".json") else adapt)
    try:
        return tuple(parse(json.loads(answer.stdout)))[:_MOST] if answer.ok else ()
    except (ValueError, TypeError, AttributeError):
        return ()


def parse(document: Mapping[str, Any]) -> Iterable[Site]:
    """Yield the named sites of a configuration: https://caddyserver.com/docs/json/apps/http/servers/."""
    http = document.get("apps", {}).get("http", {})
    for server in http.get("servers", {}).values():
        automatic = server.get("automatic_https") or {}
        hosts = [
            host
            for route in server.get("routes") or ()
            for matcher in route.get("match") or ()
            for host in matcher.get("host") or ()
        ]
        for address in server.get("listen") or ():
            number = str(address).rpartition(":")[2]
            if not number.isdecimal():
                continue
            for host in hosts:
                plain = automatic.get("disable") or host in (automatic.get("skip") or ())
                secure = int(number) != http.get("http_port", _HTTP_PORT) and not plain
                if "{" not in host:
                    # A name that the pattern covers.
                    yield Site(host.replace("*", "www"), int(number), secure or "tls_connection_policies" in server)


def _option(shown: Traits, *names: str) -> str:
    for word, value in zip(shown.argv, [*shown.argv[1:], ""], strict=False):
        name, _, joined = word.partition("=")
        if name in names:
            return shown.interpolate(joined or value)
    return ""
