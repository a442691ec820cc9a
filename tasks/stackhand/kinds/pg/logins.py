"""Who logs in where, directly and through a PgBouncer; and trying it, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from stackhand.engine.execution import Answer
from stackhand.graph import schedule
from stackhand.kinds import clients
from stackhand.kinds.kind import Kind, Unanswered
from stackhand.kinds.pg.bouncer import Bouncer, Mapped, is_verifier
from stackhand.kinds.scene import Scene

POSTGRES, PGBOUNCER = "postgres", "pgbouncer"
_SCHEMES = ("", "postgres", "postgresql")
_PATIENCE = 6.0
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
    "other",
]
_TROUBLES: tuple[tuple[Trouble, str], ...] = (
    ("nologin", r"is not permitted to log in"),
    ("no_role", r'role ".*" does not exist'),
    ("no_database", r'database ".*" does not exist|no such database'),
    ("no_connect", r"permission denied for database"),
    ("not_admitted", r"no pg_hba\.conf entry"),
    ("full", r"too many (clients|connections)|remaining connection slots"),
    ("starting", r"is starting up|is shutting down|recovery mode"),
    ("password", r"password authentication failed|SASL authentication failed|wrong password(?! type)"),
    ("silent", r"refused|timeout expired|could not translate|No route|server closed the connection|no answer"),
)


@dataclass(frozen=True)
class Login:
    """One way to log in that somebody in the project uses. `via` is the PgBouncer service that it goes through, or "".

    `clients` are the services that do. A password of "" is not known.
    """

    role: str
    database: str
    host: str
    port: int
    via: str = ""
    password: str = field(default="", repr=False)
    clients: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Attempt:
    """What came of a login; `trouble` is "" where it worked."""

    trouble: Trouble = ""
    said: str = ""


UNTRIED = Attempt("other", "not tried: it cannot work before logging in directly does")


@dataclass(frozen=True)
class Links:
    """Who connects to a Postgres server, directly and through which PgBouncers; `lookups` are those of the latter."""

    direct: tuple[Login, ...] = ()
    pooled: tuple[Login, ...] = ()
    bouncers: Mapping[str, Bouncer] = field(default_factory=dict)
    lookups: tuple[Lookup, ...] = ()

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
class Lookup:
    """A PgBouncer that looks up its clients' passwords in a database, as `role`, with a query."""

    service: str
    role: str
    database: str
    query: str
    entry: str = field(default="", repr=False)


def bouncers(scene: Scene) -> dict[str, Bouncer]:
    """Return the PgBouncers of the project that answer."""
    found: dict[str, Bouncer] = {}
    for name in scene.kinds.services(PGBOUNCER):
        kind = next(kind for kind in scene.kinds.of(name) if kind.name == PGBOUNCER)
        try:
            if scene.running(name):
                found[name] = scene.facts(kind, name)
        except Unanswered:
            continue  # told by its own check
    return found


def links(scene: Scene, service: str) -> Links:
    """Return who connects to a Postgres service."""
    places = clients.names(scene.project)
    return connect(service, scene.clients, bouncers(scene), places)


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
        if not each.user or each.scheme not in _SCHEMES:
            continue
        database = each.database or each.user
        if each.server == service:
            port = each.port or 5432
            direct.append(Login(each.user, database, service, port, "", each.password, (each.service,)))
        elif each.server in found:
            bouncer = found[each.server]
            mapped = bouncer.leads(database)
            if mapped is None or not leads_here(mapped):
                continue
            port = each.port or int(bouncer.in_file("listen_port"))
            pooled.append(Login(each.user, database, each.server, port, each.server, each.password, (each.service,)))
            role, password = (mapped.user, mapped.password) if mapped.user else (each.user, each.password)
            direct.append(Login(role, mapped.database, service, mapped.port, "", password, (each.service,)))
    lookups: list[Lookup] = []
    for name, bouncer in found.items():
        for mapped in _entries(name, bouncer, clients_known):
            role = bouncer.auth_user(mapped)
            elsewhere = bouncer.setting("auth_dbname")
            target = (bouncer.leads(elsewhere) if elsewhere else None) or mapped
            if not role or not leads_here(target) or not target.database:
                continue
            entry = bouncer.users.get(role, "")
            lookups.append(Lookup(name, role, target.database, bouncer.setting("auth_query"), entry))
            password = "" if is_verifier(entry) else entry
            direct.append(Login(role, target.database, service, target.port, "", password, (name,)))
    here = {name: each for name, each in found.items() if any(leads_here(m) for m in each.databases.values())}
    return Links(_merged(direct), _merged(pooled), here, tuple(dict.fromkeys(lookups)))


def _entries(name: str, bouncer: Bouncer, known: Iterable[clients.Client]) -> list[Mapped]:
    """Return a PgBouncer's entries; for `*`, which stands for any database, those that its clients ask for."""
    asked = [each.database or each.user for each in known if each.server == name and each.user]
    found = [each for each in bouncer.databases.values() if each.name != "*" or each.database]
    return found + [each for database in asked if (each := bouncer.leads(database)) and each.name == "*"]


def _merged(logins: Iterable[Login]) -> tuple[Login, ...]:
    """Return each login once, with all the services that use it."""
    found: dict[Login, tuple[str, ...]] = {}
    for each in logins:
        found[each] = (*found.get(each, ()), *each.clients)
    return tuple(
        Login(each.role, each.database, each.host, each.port, each.via, each.password, tuple(dict.fromkeys(users)))
        for each, users in found.items()
    )


class Attempts(Kind[Mapping[Login, Attempt]]):
    """What came of all logins to one Postgres service: no kind of its own, but facts that several checks share."""

    name = "postgres.logins"

    def look(self, scene: Scene, service: str) -> Mapping[Login, Attempt]:
        """Try all logins whose password is known. Raises Unanswered where nobody can try."""
        known = links(scene, service)
        return attempt(scene, service, [each for each in (*known.direct, *known.pooled) if each.password])


ATTEMPTS = Attempts()


def attempt(scene: Scene, asker: str, logins: Sequence[Login]) -> dict[Login, Attempt]:
    """Try logins from a container with psql: all direct ones side by side, then those through a PgBouncer.

    Of the latter only those for which the direct login of the role, and PgBouncer's own, have worked: it keeps a client
    waiting whose server login fails. Raises Unanswered where there is no psql.
    """
    direct = [each for each in logins if not each.via]
    results = _side_by_side(scene, asker, direct)
    failed = [each for each in direct if results[each].trouble]
    doomed = [each for each in logins if each.via and any(_leads_to(other, each) for other in failed)]
    results |= dict.fromkeys(doomed, UNTRIED)
    return results | _side_by_side(scene, asker, [each for each in logins if each not in results])


def _side_by_side(scene: Scene, asker: str, logins: Sequence[Login]) -> dict[Login, Attempt]:
    tries = {str(number): partial(_try, scene, asker, each) for number, each in enumerate(logins)}
    # A few at a time: each takes a connection, and the application needs them as well.
    results = schedule.gather(tries, workers=_AT_ONCE)
    return {each: results[str(number)] for number, each in enumerate(logins)}


def _try(scene: Scene, asker: str, login: Login) -> Attempt:
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
    answer = scene.ask(asker, ["psql", "-XAtqw", "-c", "SELECT 1"], environment=environment, timeout=_PATIENCE)
    if answer.missing:
        raise Unanswered(answer.complaint)
    return read(answer)


def _leads_to(direct: Login, pooled: Login) -> bool:
    """Return whether a direct login has to work for one through a PgBouncer: of the same role, or PgBouncer's own."""
    return direct.role == pooled.role or pooled.via in direct.clients


def read(answer: Answer) -> Attempt:
    """Return what came of a login, of what psql said.

    >>> read(Answer(2, "", 'psql: FATAL: role "x" is not permitted to log in')).trouble
    'nologin'
    """
    if answer.ok:
        return Attempt()
    said = answer.complaint if answer.exit_code is None else " ".join(answer.stderr.split())
    return Attempt(understand(said), _short(said))


def understand(said: str) -> Trouble:
    """Return what is wrong, of what psql says.

    >>> understand('psql: error: connection to server failed: FATAL:  password authentication failed for user "app"')
    'password'
    """
    return next((trouble for trouble, words in _TROUBLES if re.search(words, said)), "other")


def _short(said: str) -> str:
    return re.sub(r"^psql: (error: )?", "", said)
