"""Trying the logins that clients use, a few side by side, and what that proves."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.engine.api.exec import ExecResult
from stackhand.graph import schedule
from stackhand.kinds.postgres.facts import Server, server_facts
from stackhand.kinds.postgres.login_map import Login, links

RECOVERY = "pgbouncer.recovery"
_PATIENCE = 6.0
_PAUSE = 0.5
_LONGEST = 20.0  # seconds: a check has 30
_AT_ONCE = 4

Trouble = Literal[
    "",
    "password",
    "no_role",
    "nologin",
    "no_database",
    "no_connect",
    "not_admitted",
    "full",
    "silent",
    "starting",
    "later",
    "other",
]
_TROUBLES: tuple[tuple[Trouble, str], ...] = (
    ("nologin", r"is not permitted to log in"),
    ("no_role", r'role ".*" does not exist'),
    ("no_database", r'database ".*" does not exist|no such database'),
    ("no_connect", r"permission denied for database"),
    ("not_admitted", r"no pg_hba\.conf entry|pg_hba\.conf rejects"),
    ("full", r"too many (clients|connections)|remaining connection slots"),
    ("later", r"try again later"),
    ("starting", r"is starting up|is shutting down|recovery mode"),
    ("password", r"password authentication failed|SASL authentication failed|wrong password(?! type)"),
    ("silent", r"refused|timeout expired|could not translate|No route|server closed the connection|no answer"),
)

# What is wrong with a role itself, or its database, wherever one logs in from.
_ROLES = ("no_role", "nologin", "no_database", "no_connect")


@dataclass(frozen=True)
class Attempt:
    """What came of a login; `trouble` is "" where it worked."""

    trouble: Trouble = ""
    said: str = ""


def attempts(context: CheckContext, service: str) -> Mapping[Login, Attempt]:
    """Return what came of all logins to one Postgres service; several checks share it. Raises as `try_all`."""
    return context.cached(("postgres.logins", service), partial(try_all, context, service))


def try_all(context: CheckContext, service: str) -> Mapping[Login, Attempt]:
    """Try all logins to a Postgres service whose password is known. Raises NoAnswer where nobody can try."""
    known = links(context, service)
    tried = attempt(context, service, [each for each in (*known.pooled, *known.direct) if each.password])
    while time.monotonic() < context.scratch.get((RECOVERY, service), 0.0):
        waiting = [login for login, result in tried.items() if login.via and result.trouble in ("later", "silent")]
        if not waiting:
            break
        time.sleep(_PAUSE)
        tried |= attempt(context, service, waiting)
    server = Server()
    with contextlib.suppress(NoAnswer):
        server = server_facts(context, service)
    return evidence(tried, [each.name for each in server.cluster.roles if each.fingerprint])


def expect_recovery(context: CheckContext, service: str) -> None:
    """Give the PgBouncers of a server time: after a failed login, they try no other for `server_login_retry` seconds.

    https://www.pgbouncer.org/config.html#server_login_retry
    """
    pauses = [each.setting("server_login_retry") for each in links(context, service).bouncers.values()]
    longest = max((float(each) for each in pauses if each.replace(".", "", 1).isdigit()), default=0.0)
    context.scratch[RECOVERY, service] = time.monotonic() + min(longest, _LONGEST) + 1


def attempt(context: CheckContext, asker: str, logins: Sequence[Login]) -> dict[Login, Attempt]:
    """Try logins from a container with psql, a few side by side. Raises NoAnswer where there is no psql."""
    tries = {str(number): partial(_try, context, asker, each) for number, each in enumerate(logins)}
    # Each takes a connection, and the application needs them as well.
    results = schedule.gather(tries, workers=_AT_ONCE)
    return {each: results[str(number)] for number, each in enumerate(logins)}


def evidence(tried: Mapping[Login, Attempt], protected: Collection[str]) -> dict[Login, Attempt]:
    """Return what attempts prove; `protected` are the roles that have a password in the server.

    A login that only a PgBouncer makes is tried from another address than its. That the server does not admit it from
    there is no trouble of anybody's; nor is any other, as long as clients get through. Only a role that is not as it
    has to be is one still, which connections from before may hide.
    """
    return {
        login: result for login, result in tried.items() if not login.behind or _tells(login, result, tried, protected)
    }


def _tells(login: Login, result: Attempt, tried: Mapping[Login, Attempt], protected: Collection[str]) -> bool:
    if result.trouble == "not_admitted":
        return False
    through = any(not other.trouble for pooled, other in tried.items() if _stands_behind(login, pooled))
    wrong = result.trouble in _ROLES or (result.trouble == "password" and login.role in protected)
    return not through or not result.trouble or wrong


def _stands_behind(login: Login, pooled: Login) -> bool:
    """Return whether a direct login has to work for one through a PgBouncer: that of its client, or PgBouncer's own."""
    own = pooled.via in login.clients
    return pooled.via in login.behind and (own or bool(set(login.clients) & set(pooled.clients)))


def _try(context: CheckContext, asker: str, login: Login) -> Attempt:
    # One exec for each, and no shell that could leave a process behind (see sql.py).
    environment = {
        "PGHOST": login.host,
        "PGPORT": str(login.port),
        "PGUSER": login.role,
        "PGDATABASE": login.database,
        "PGPASSWORD": login.password,
        "PGCONNECT_TIMEOUT": "4",
        "PGAPPNAME": "stackhand",
    }
    answer = context.ask(asker, ["psql", "-XAtqw", "-c", "SELECT 1"], environment=environment, timeout=_PATIENCE)
    if answer.not_found:
        raise NoAnswer(answer.last_error)
    return read(answer)


def read(answer: ExecResult) -> Attempt:
    """Return what came of a login, of what psql said.

    >>> read(ExecResult(2, "", 'psql: FATAL: role "x" is not permitted to log in')).trouble
    'nologin'
    """
    if answer.ok:
        return Attempt()
    said = answer.last_error if answer.exit_code is None else " ".join(answer.stderr.split())
    return Attempt(understand(said), _short(said))


def understand(said: str) -> Trouble:
    """Return what is wrong, of what psql says.

    >>> understand('psql: error: connection to server failed: FATAL:  password authentication failed for user "app"')
    'password'
    """
    return next((trouble for trouble, words in _TROUBLES if re.search(words, said)), "other")


def _short(said: str) -> str:
    return re.sub(r"^psql: (error: )?", "", said)
