"""Whether a database still makes its data, and the server that answers its healthcheck is a temporary one.

At a first start the images of Postgres, MySQL, MariaDB and MongoDB run a server that does not listen on the network,
let it carry out the scripts of `/docker-entrypoint-initdb.d`, and end it. A healthcheck through the local socket
succeeds meanwhile. The processes tell: the temporary server has an option that the container's own command does not
have. So a server that listens nowhere on purpose, by its command or by its configuration, is not taken for one.

https://github.com/docker-library/postgres/blob/master/docker-entrypoint.sh: docker_temp_server_start
"""

from __future__ import annotations

import re
from typing import Literal

from stackhand.checks.exec import ASK_TIMEOUT, shell_argv
from stackhand.checks.traits import Traits, traits
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Service
from stackhand.errors import EngineUnreachable, StackError

Stage = Literal["initialising", "serving", "unknown"]
STILL_INITIALISES = "its data is still being made, and only a temporary server answers inside its container"

_IMAGES = frozenset(
    """
    citus clickhouse mariadb mongo mongodb mysql paradedb percona pgautoupgrade pgvecto pgvector postgis postgres
    postgresql timescaledb
    """.split()  # noqa: SIM905
)
_SERVERS = frozenset("clickhouse-server edb-postgres mariadbd mongod mysqld postgres postmaster".split())  # noqa: SIM905
_PROBES = ("pg_isready", "psql", "mysql", "mariadb", "mongo", "clickhouse")
_KINDS = frozenset({"postgres", "mysql", "mariadb", "mongodb"})

# One program for all processes, each with its name before it.
_LIST = "tail -n +1 /proc/[0-9]*/cmdline 2>/dev/null"
_PROCESS = re.compile(r"^==> /proc/(?P<number>\d+)/cmdline <==\n", re.MULTILINE)
# How a server is told not to listen on the network; between the words of a command line are NULs.
_UNREACHABLE = re.compile(
    r"""
    listen_addresses= (?: '' | "" )? (?= [\0\s'"] | $ )
    | --skip[-_]networking (?! =(?: 0 | off | false ) )
    | \0--fork\0
    | --listen_host=127\.
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What makes the data before there is a server at all. Bitnami's scripts: https://github.com/bitnami/containers
_MAKERS = frozenset({"initdb", "mariadb-install-db", "mysql_install_db"})
_MAKES = re.compile(r"\0--(?:initialize|bootstrap)|\0/opt/bitnami/scripts/[^/\0]+/setup\.sh(?=\0)")
# A server's program that is only asked, or works on the files alone.
_NO_SERVER = re.compile(r"\0(?:-C|-V|--(?:boot|check|help|single|version))(?=\0)")


def may_initialise(service: Service) -> bool:
    """Return whether a service's image may run a temporary server at its first start.

    >>> may_initialise(Service("db", "postgres:18")), may_initialise(Service("web", "nginx"))
    (True, False)
    """
    # Of shared processes nobody can tell whose they are.
    return not service.raw.get("pid") and _is_database(traits(service))


def initialises(engine: Engine, service: Service, container: Container) -> bool:
    """Ask whether a container of a service runs and still makes its data. Raises EngineUnreachable."""
    return container.running and may_initialise(service) and stage_of(engine, container.id) == "initialising"


def stage_of(engine: Engine, container: str) -> Stage:
    """Ask a running container how far its database is. Raises EngineUnreachable."""
    try:
        return stage(engine.ask(container, shell_argv(_LIST), timeout=ASK_TIMEOUT).stdout)
    except EngineUnreachable:
        raise
    except StackError:
        return "unknown"


def stage(listing: str) -> Stage:
    """Return how far a database is, from the command lines of all processes of its container.

    `serving` says that there is a server and that it is no temporary one, `unknown` that no server is seen.
    """
    numbers_and_lines = _PROCESS.split(listing)[1:]
    commands = dict(zip(numbers_and_lines[::2], numbers_and_lines[1::2], strict=True))
    own = _told_not_to_listen(commands.get("1", ""))
    servers = [command for command in commands.values() if _program(command) in _SERVERS]
    if any(_program(command) in _MAKERS or _MAKES.search(command) for command in commands.values()):
        return "initialising"
    if any(_told_not_to_listen(command) > own for command in servers):
        return "initialising"
    return "serving" if any(not _NO_SERVER.search(command) for command in servers) else "unknown"


def _is_database(shown: Traits) -> bool:
    if shown.label is not None:
        return bool(shown.label & _KINDS)
    if shown.is_client:
        return False
    return bool(shown.images & _IMAGES or shown.programs & _SERVERS) or (
        any(word in shown.probe for word in _PROBES) and shown.probes_itself
    )


def _told_not_to_listen(command: str) -> int:
    return len(_UNREACHABLE.findall(command))


def _program(command: str) -> str:
    return command.partition("\0")[0].rpartition("/")[2]
