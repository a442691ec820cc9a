"""Where a Postgres server listens inside its own container, and what it means when nothing answers there."""

from __future__ import annotations

import re

from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Service

_SERVER_PORT = re.compile(r"(?:^|\s)(?:-p\s*|(?:-c\s*|--)port\s*=\s*)(\d+)")
_SERVER_FOLDER = re.compile(r"(?:^|\s)(?:-k\s*|(?:-c\s*|--)unix[-_]socket[-_]directories\s*=\s*)(/[^\s,]*)")
_SERVER_DATA = re.compile(r"(?:^|\s)(?:-D\s*|(?:-c\s*|--)data[-_]directory\s*=\s*|--pgdata[= ])(/\S*)")
_PROBED_PORT = re.compile(r"(?:^|\s)(?:-p\s*|--port[= ]\s*)['\"]?(\d+)")
_PROBED_FOLDER = re.compile(r"(?:^|\s)(?:-h\s*|--host[= ]\s*)['\"]?(/[^\s'\"]*)")
_NO_ANSWER = re.compile(
    r"refused|no answer|timeout expired|could not translate|No route|reset by peer|No such file|closed the connection"
)


def server_address(service: Service) -> dict[str, str]:
    """Return the environment by which psql finds the server, as far as the compose file says it.

    What the server itself has written down (server_address.sh) is used rather than this.

    >>> server_address(Service("db", "postgres", raw={"command": ["postgres", "-c", "port=5433", "-k", "/sockets"]}))
    {'PGHOST': '/sockets', 'PGPORT': '5433'}
    """
    shown = traits(service)
    line, host = " ".join(shown.argv), shown.environment.get("PGHOST", "")
    own = host if shown.is_own_host(host) else ""
    folder = _first(_SERVER_FOLDER, line) or own or _first(_PROBED_FOLDER, shown.probe)
    port = _first(_SERVER_PORT, line) or shown.environment.get("PGPORT", "") or _first(_PROBED_PORT, shown.probe)
    # A file of variables for all services may name the host of another server: that one is not to be administered.
    found = {"PGHOST": folder} if folder or host else {}
    return found | {key: value for key, value in (("PGPORT", port), ("PGDATA", _first(_SERVER_DATA, line))) if value}


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def is_no_answer(error: str) -> bool:
    """Return whether an error says that nothing answered; any other was given by a server."""
    return bool(_NO_ANSWER.search(error))


def healthcheck_passes(context: CheckContext, service: str) -> bool:
    """Return whether a service's healthcheck passes: if nothing answers even so, it was asked at the wrong address."""
    return context.container(service).health == "healthy" or service in context.verified_healthy
