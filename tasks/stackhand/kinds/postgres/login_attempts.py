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
from stackhand.kinds.postgres.login_map import Login, login_map

# Until when PgBouncers may still refuse logins after a repair, in the context's scratch.
_RECOVERY = "pgbouncer.recovery"
# Seconds. A check has 30 for all of it.
_CONNECT_TIMEOUT, _LOGIN_TIMEOUT = 4.0, 6.0
_PAUSE = 0.5
_MAX_RECOVERY = 20.0
# Each takes a connection, and the application needs them as well.
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
# By the messages of the server, of libpq and of PgBouncer. The first that matches counts.
_TROUBLES: tuple[tuple[Trouble, str], ...] = (
    # PgBouncer tells what a server said up to `server_login_retry` seconds ago, which may be put right since.
    ("later", r"try again later|\(server_login_retry\)"),
    ("nologin", r"is not permitted to log in"),
    ("no_role", r'role ".*" does not exist'),
    ("no_database", r'database ".*" does not exist|no such database'),
    ("no_connect", r"permission denied for database"),
    ("not_admitted", r"no pg_hba\.conf entry|pg_hba\.conf rejects"),
    ("full", r"too many (clients|connections)|remaining connection slots"),
    ("starting", r"is starting up|is shutting down|recovery mode"),
    ("password", r"password authentication failed|SASL authentication failed|wrong password(?! type)"),
    ("silent", r"refused|timeout expired|could not translate|No route|server closed the connection|no answer"),
)

# These are wrong with the role or the database itself, wherever a login comes from.
_OF_THE_ROLE = ("no_role", "nologin", "no_database", "no_connect")


@dataclass(frozen=True)
class Attempt:
    """The outcome of a login; `trouble` is "" where it worked."""

    trouble: Trouble = ""
    message: str = ""


def attempts(context: CheckContext, service: str) -> Mapping[Login, Attempt]:
    """Return the outcomes of all logins to one Postgres service, tried once for several checks. Raises as `try_all`."""
    return context.cached(("postgres.logins", service), partial(try_all, context, service))


def try_all(context: CheckContext, service: str) -> Mapping[Login, Attempt]:
    """Try all logins to a Postgres service whose password is known. Raises NoAnswer where that is not possible."""
    known = login_map(context, service)
    tried = try_logins(context, service, [each for each in (*known.pooled, *known.direct) if each.password])
    if any(result.trouble == "later" and _works_directly(login, tried) for login, result in tried.items()):
        # Somebody else has put it right just now: a run that was killed, say.
        expect_recovery(context, service)
    while time.monotonic() < context.scratch.get((_RECOVERY, service), 0.0):
        waiting = [login for login, result in tried.items() if login.via and result.trouble in ("later", "silent")]
        if not waiting:
            break
        time.sleep(_PAUSE)
        tried |= try_logins(context, service, waiting)
    server = Server()
    with contextlib.suppress(NoAnswer):
        server = server_facts(context, service)
    return conclusive_attempts(tried, [each.name for each in server.cluster.roles if each.fingerprint])


def expect_recovery(context: CheckContext, service: str) -> None:
    """Have the next attempts wait for the PgBouncers of a server: they refuse logins for a while after one has failed.

    https://www.pgbouncer.org/config.html#server_login_retry
    """
    pauses = [each.setting("server_login_retry") for each in login_map(context, service).bouncers.values()]
    longest = max((float(each) for each in pauses if each.replace(".", "", 1).isdigit()), default=0.0)
    context.scratch[_RECOVERY, service] = time.monotonic() + min(longest, _MAX_RECOVERY) + 1


def try_logins(context: CheckContext, asker: str, logins: Sequence[Login]) -> dict[Login, Attempt]:
    """Try logins from a container with psql, a few side by side. Raises NoAnswer where there is no psql."""
    tries = {str(number): partial(_try_login, context, asker, each) for number, each in enumerate(logins)}
    results = schedule.gather(tries, workers=_AT_ONCE)
    return {each: results[str(number)] for number, each in enumerate(logins)}


def conclusive_attempts(tried: Mapping[Login, Attempt], protected: Collection[str]) -> dict[Login, Attempt]:
    """Return the attempts that prove something. `protected` are the roles that have a password in the server.

    A login that only a PgBouncer makes was tried from another address than PgBouncer's. That the server does not admit
    it from there proves nothing; nor does any other failure while clients get through PgBouncer. Only a failure that
    lies with the role itself counts even then: PgBouncer's open connections may hide it.
    """
    return {
        login: result
        for login, result in tried.items()
        if not login.behind or _is_conclusive(login, result, tried, protected)
    }


def _is_conclusive(login: Login, result: Attempt, tried: Mapping[Login, Attempt], protected: Collection[str]) -> bool:
    """Return whether the attempt of a login that only a PgBouncer makes proves something."""
    if result.trouble == "not_admitted":
        return False
    through = any(not other.trouble for pooled, other in tried.items() if _stands_behind(login, pooled))
    wrong = result.trouble in _OF_THE_ROLE or (result.trouble == "password" and login.role in protected)
    return not through or not result.trouble or wrong


def _works_directly(login: Login, tried: Mapping[Login, Attempt]) -> bool:
    return any(not each.via and each.role == login.role and not result.trouble for each, result in tried.items())


def _stands_behind(login: Login, pooled: Login) -> bool:
    """Return whether a login through PgBouncer needs this direct one: for the same client, or PgBouncer's own."""
    own = pooled.via in login.clients
    return pooled.via in login.behind and (own or bool(set(login.clients) & set(pooled.clients)))


def _try_login(context: CheckContext, asker: str, login: Login) -> Attempt:
    """Try one login. One exec without a shell, which could leave a process behind (see run_sql.sh)."""
    environment = {
        "PGHOST": login.host,
        "PGPORT": str(login.port),
        "PGUSER": login.role,
        "PGDATABASE": login.database,
        "PGPASSWORD": login.password,
        "PGCONNECT_TIMEOUT": f"{context.within(_CONNECT_TIMEOUT):.0f}",
        "PGAPPNAME": "stackhand",
    }
    answer = context.ask(asker, ["psql", "-XAtqw", "-c", "SELECT 1"], environment=environment, timeout=_LOGIN_TIMEOUT)
    if answer.not_found:
        raise NoAnswer(answer.last_error)
    return read_attempt(answer)


def read_attempt(answer: ExecResult) -> Attempt:
    """Return the outcome of a login by the answer of psql.

    >>> read_attempt(ExecResult(2, "", 'psql: FATAL: role "x" is not permitted to log in')).trouble
    'nologin'
    """
    if answer.ok:
        return Attempt()
    message = answer.last_error if answer.exit_code is None else " ".join(answer.stderr.split())
    return Attempt(classify(message), _short(message))


def classify(message: str) -> Trouble:
    """Return the trouble that a message of psql is about.

    >>> classify('psql: error: connection to server failed: FATAL:  password authentication failed for user "app"')
    'password'
    """
    return next((trouble for trouble, words in _TROUBLES if re.search(words, message)), "other")


def _short(message: str) -> str:
    return re.sub(r"^psql: (error: )?", "", message)
