"""Where a Postgres server listens inside its own container, and what no answer from there means."""

from __future__ import annotations

import re

from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Service

# For a shell: port and socket as the server itself has written them down, read without a process of its own.
FOUND = """if [ -r "$PGDATA/postmaster.pid" ]; then
    { read -r _; read -r _; read -r _; read -r port; read -r folder; } < "$PGDATA/postmaster.pid"
    if [ -n "$port" ]; then export PGPORT="$port" PGHOST="${folder:-localhost}"; fi
fi
"""
_SERVER_PORT = re.compile(r"(?:^|\s)(?:-p\s*|(?:-c\s*|--)port\s*=\s*)(\d+)")
_SERVER_FOLDER = re.compile(r"(?:^|\s)(?:-k\s*|(?:-c\s*|--)unix[-_]socket[-_]directories\s*=\s*)(/[^\s,]*)")
_SERVER_DATA = re.compile(r"(?:^|\s)(?:-D\s*|(?:-c\s*|--)data[-_]directory\s*=\s*|--pgdata[= ])(/\S*)")
_PROBED_PORT = re.compile(r"(?:^|\s)(?:-p\s*|--port[= ]\s*)['\"]?(\d+)")
_PROBED_FOLDER = re.compile(r"(?:^|\s)(?:-h\s*|--host[= ]\s*)['\"]?(/[^\s'\"]*)")
_SILENCE = re.compile(
    r"refused|no answer|timeout expired|could not translate|No route|reset by peer|No such file|closed the connection"
)


def where(service: Service) -> dict[str, str]:
    """Return what psql has to be told to find the server, as far as the compose file says it.

    Of these, what the server has written down itself (FOUND) comes first.

    >>> where(Service("db", "postgres", raw={"command": ["postgres", "-c", "port=5433", "-k", "/sockets"]}))
    {'PGHOST': '/sockets', 'PGPORT': '5433'}
    """
    shown = traits(service)
    line, host = " ".join(shown.argv), shown.environment.get("PGHOST", "")
    folder = _first(_SERVER_FOLDER, line) or (host if shown.is_me(host) else "") or _first(_PROBED_FOLDER, shown.probe)
    port = _first(_SERVER_PORT, line) or shown.environment.get("PGPORT", "") or _first(_PROBED_PORT, shown.probe)
    # The host of another server, which a file of variables for all services may name, is not the one to administer.
    found = {"PGHOST": folder} if folder or host else {}
    return found | {key: value for key, value in (("PGPORT", port), ("PGDATA", _first(_SERVER_DATA, line))) if value}


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def silent(complaint: str) -> bool:
    """Return whether a complaint is about no answer at all, and not one that a server has given."""
    return bool(_SILENCE.search(complaint))


def content(context: CheckContext, service: str) -> bool:
    """Return whether the container's own healthcheck is content: where it is, no answer may be a wrong question."""
    return context.container(service).health == "healthy" or service in context.verified_healthy
