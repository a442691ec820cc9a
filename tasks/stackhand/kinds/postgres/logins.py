"""Who logs in where, directly and through a PgBouncer; and trying it, side by side."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from stackhand.checks import connections as clients
from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.engine.api.exec import ExecResult
from stackhand.graph import schedule
from stackhand.kinds.postgres.facts import Server
from stackhand.kinds.postgres.pgbouncer_facts import SCHEMES, Bouncer, Mapped, is_verifier, passes

POSTGRES, PGBOUNCER = "postgres", "pgbouncer"
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
class Login:
    """One way to log in that somebody in the project uses. `via` is the PgBouncer service that it goes through, or "".

    `clients` are the services that do. A password of "" is not known. `behind` are the PgBouncers that log in like this
    for their clients, where nobody does by himself: the server may admit it from their addresses alone.
    """

    role: str
    database: str
    host: str
    port: int
    via: str = ""
    password: str = field(default="", repr=False)
    clients: tuple[str, ...] = field(default=(), compare=False)
    behind: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Attempt:
    """What came of a login; `trouble` is "" where it worked."""

    trouble: Trouble = ""
    said: str = ""


@dataclass(frozen=True)
class Links:
    """Who connects to a Postgres server, directly and through which PgBouncers; `lookups` are those of the latter."""

    direct: tuple[Login, ...] = ()
    pooled: tuple[Login, ...] = ()
    bouncers: Mapping[str, Bouncer] = field(default_factory=dict)
    lookups: tuple[AuthQuery, ...] = ()

    @property
    def roles(self) -> list[str]:
        """All roles that log in to the server."""
        return list(dict.fromkeys([each.role for each in self.direct] + [each.role for each in self.lookups]))

    @property
    def databases(self) -> list[str]:
        """All databases that somebody logs in to."""
        return list(
            dict.fromkeys([*(each.database for each in self.direct), *(each.database for each in self.lookups)])
        )

    def pairs(self) -> list[tuple[str, str]]:
        """Return each role with each database that it uses; those that only look up passwords are left out."""
        own = {each.role for each in self.lookups}
        return list(dict.fromkeys((each.role, each.database) for each in self.direct if each.role not in own))


@dataclass(frozen=True)
class AuthQuery:
    """A PgBouncer that looks up its clients' passwords in a database, as `role`, with a query."""

    service: str
    role: str
    database: str
    query: str
    entry: str = field(default="", repr=False)


def bouncers(context: CheckContext) -> dict[str, Bouncer]:
    """Return the PgBouncers of the project that answer."""
    found: dict[str, Bouncer] = {}
    for name in context.kinds.services(PGBOUNCER):
        try:
            if context.running(name):
                found[name] = context.facts_of(PGBOUNCER, name)
        except NoAnswer:
            continue  # told by its own check
    return found


def links(context: CheckContext, service: str) -> Links:
    """Return who connects to a Postgres service."""
    places = clients.names(context.project)
    return connect(service, context.clients, bouncers(context), places)


def connect(
    service: str, known: Iterable[clients.Client], found: Mapping[str, Bouncer], places: Mapping[str, str]
) -> Links:
    """Return who connects to a Postgres service, of all clients and PgBouncers of a project."""

    def leads_here(mapped: Mapped | None) -> bool:
        return mapped is not None and any(places.get(host.strip()) == service for host in mapped.host.split(","))

    direct: list[Login] = []
    pooled: list[Login] = []
    clients_known = list(known)
    for each in clients_known:
        if not each.user or each.scheme not in SCHEMES:
            continue
        database = each.database or each.user
        if each.server == service:
            port = each.port or 5432
            direct.append(Login(each.user, database, service, port, "", each.password, (each.service,)))
        elif each.server in found and passes(each):
            bouncer = found[each.server]
            mapped = bouncer.leads(database)
            if mapped is None or not leads_here(mapped):
                continue
            port = each.port or int(bouncer.in_file("listen_port"))
            pooled.append(Login(each.user, database, each.server, port, each.server, each.password, (each.service,)))
            role, password = (mapped.user, mapped.password) if mapped.user else (each.user, each.password)
            behind = (each.server,)
            direct.append(
                Login(role, mapped.database, service, mapped.port, "", password, (each.service,), behind),
            )
    lookups: list[AuthQuery] = []
    for name, bouncer in found.items():
        for mapped in _entries(name, bouncer, clients_known):
            role = bouncer.auth_user(mapped)
            elsewhere = bouncer.setting("auth_dbname")
            target = (bouncer.leads(elsewhere) if elsewhere else None) or mapped
            if not role or not leads_here(target) or not target.database:
                continue
            entry = bouncer.users.get(role, "")
            lookups.append(AuthQuery(name, role, target.database, bouncer.setting("auth_query"), entry))
            password = "" if is_verifier(entry) else entry
            direct.append(Login(role, target.database, service, target.port, "", password, (name,), (name,)))
    here = {name: each for name, each in found.items() if any(leads_here(m) for m in each.databases.values())}
    return Links(_merged(direct), _merged(pooled), here, tuple(dict.fromkeys(lookups)))


def _entries(name: str, bouncer: Bouncer, known: Iterable[clients.Client]) -> list[Mapped]:
    """Return a PgBouncer's entries; for `*`, which stands for any database, those that its clients ask for."""
    asked = [each.database or each.user for each in known if each.server == name and passes(each)]
    found = [each for each in bouncer.databases.values() if each.name != "*" or each.database]
    return found + [each for database in asked if (each := bouncer.leads(database)) and each.name == "*"]


def _merged(logins: Iterable[Login]) -> tuple[Login, ...]:
    """Return each login once, with all the services that use it."""
    found: dict[Login, list[Login]] = {}
    for each in logins:
        found.setdefault(each, []).append(each)
    return tuple(
        replace(
            login,
            clients=tuple(dict.fromkeys(client for each in alike for client in each.clients)),
            behind=tuple(dict.fromkeys(name for each in alike for name in each.behind))
            if all(each.behind for each in alike)
            else (),
        )
        for login, alike in found.items()
    )


class Attempts(Kind[Mapping[Login, Attempt]]):
    """What came of all logins to one Postgres service: no kind of its own, but facts that several checks share."""

    name = "postgres.logins"

    def collect(self, context: CheckContext, service: str) -> Mapping[Login, Attempt]:
        """Try all logins whose password is known. Raises NoAnswer where nobody can try."""
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
            server = context.facts_of(POSTGRES, service)
        return evidence(tried, [each.name for each in server.cluster.roles if each.fingerprint])


ATTEMPTS = Attempts()


def recovers(context: CheckContext, service: str) -> None:
    """Have the PgBouncers of a server given time: after a login of theirs has failed, they try none for a while."""
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
