"""Who logs in where: to a Postgres server directly, and through the PgBouncers that lead to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stackhand.checks.check import NoAnswer
from stackhand.checks.connections import Client, names
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.pgbouncer_facts import (
    PGBOUNCER,
    SCHEMES,
    Bouncer,
    Mapped,
    bouncer_facts,
    is_verifier,
    passes,
)


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
                found[name] = bouncer_facts(context, name)
        except NoAnswer:
            continue  # told by its own check
    return found


def links(context: CheckContext, service: str) -> Links:
    """Return who connects to a Postgres service."""
    return connect(service, context.clients, bouncers(context), names(context.project))


def connect(server: str, clients: Iterable[Client], found: Mapping[str, Bouncer], services: Mapping[str, str]) -> Links:
    """Return who connects to a Postgres service, of all clients and PgBouncers of a project.

    `services` are the project's services by each name that they have on its networks.
    """
    known = list(clients)
    leading = {name: _Leads(server, name, bouncer, services) for name, bouncer in found.items()}
    logins: list[Login] = []
    for client in known:
        if not client.user or client.scheme not in SCHEMES:
            continue
        if client.server == server:
            port, database = client.port or 5432, client.database or client.user
            logins.append(Login(client.user, database, server, port, "", client.password, (client.service,)))
        elif client.server in leading and passes(client):
            logins += leading[client.server].logins_of(client)
    lookups = [each for leads in leading.values() for each in leads.lookups(known)]
    logins += [login for _, login in lookups]
    return Links(
        _merged(login for login in logins if not login.via),
        _merged(login for login in logins if login.via),
        {name: each.bouncer for name, each in leading.items() if any(map(each.here, each.bouncer.databases.values()))},
        tuple(dict.fromkeys(lookup for lookup, _ in lookups)),
    )


@dataclass(frozen=True)
class _Leads:
    """One PgBouncer, as far as it leads to one server."""

    server: str
    service: str
    bouncer: Bouncer
    services: Mapping[str, str]

    def here(self, mapped: Mapped) -> bool:
        """Return whether an entry leads to the server."""
        return any(self.services.get(host.strip()) == self.server for host in mapped.host.split(","))

    def logins_of(self, client: Client) -> list[Login]:
        """Return the login of a client to PgBouncer, and that of PgBouncer for it to the server."""
        database, via = client.database or client.user, self.service
        mapped = self.bouncer.leads(database)
        if mapped is None or not self.here(mapped):
            return []
        port = client.port or int(self.bouncer.in_file("listen_port"))
        role, password = (mapped.user, mapped.password) if mapped.user else (client.user, client.password)
        return [
            Login(client.user, database, via, port, via, client.password, (client.service,)),
            Login(role, mapped.database, self.server, mapped.port, "", password, (client.service,), (via,)),
        ]

    def lookups(self, known: Iterable[Client]) -> Iterable[tuple[AuthQuery, Login]]:
        """Yield what PgBouncer looks up passwords with, and as whom it logs in for that.

        `auth_dbname` is the database for all lookups: https://www.pgbouncer.org/config.html#auth_dbname
        """
        for mapped in self._entries(known):
            role = self.bouncer.auth_user(mapped)
            elsewhere = self.bouncer.setting("auth_dbname")
            target = (self.bouncer.leads(elsewhere) if elsewhere else None) or mapped
            if role and self.here(target) and target.database:
                entry, query = self.bouncer.users.get(role, ""), self.bouncer.setting("auth_query")
                password = "" if is_verifier(entry) else entry
                own = (self.service,)
                yield (
                    AuthQuery(self.service, role, target.database, query, entry),
                    Login(role, target.database, self.server, target.port, "", password, own, own),
                )

    def _entries(self, known: Iterable[Client]) -> list[Mapped]:
        """Return PgBouncer's entries; for `*`, which stands for any database, those that its clients ask for."""
        asked = [each.database or each.user for each in known if each.server == self.service and passes(each)]
        found = [each for each in self.bouncer.databases.values() if each.name != "*" or each.database]
        return found + [each for name in asked if (each := self.bouncer.leads(name)) and each.name == "*"]


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
