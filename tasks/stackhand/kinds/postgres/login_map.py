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
    DatabaseEntry,
    bouncer_facts,
    is_verifier,
    logs_in_through,
)


@dataclass(frozen=True)
class Login:
    """One way in which services of the project log in. `via` is the PgBouncer service that it goes through, or "".

    `clients` are the services that log in so. A password of "" is not known. `behind` are the PgBouncers that log in so
    for their clients, where no client does it itself: the server may admit it from their addresses alone.
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
class LoginMap:
    """Who connects to a Postgres server: directly, through its PgBouncers, and to look up passwords for them."""

    direct: tuple[Login, ...] = ()
    pooled: tuple[Login, ...] = ()
    bouncers: Mapping[str, Bouncer] = field(default_factory=dict)
    auth_queries: tuple[AuthQuery, ...] = ()

    @property
    def roles(self) -> list[str]:
        """All roles that log in to the server."""
        return list(dict.fromkeys([each.role for each in self.direct] + [each.role for each in self.auth_queries]))

    @property
    def databases(self) -> list[str]:
        """All databases that a service logs in to."""
        return list(
            dict.fromkeys([*(each.database for each in self.direct), *(each.database for each in self.auth_queries)])
        )

    def pairs(self) -> list[tuple[str, str]]:
        """Return each role with each database that it uses, without the roles that only look up passwords."""
        own = {auth_query.role for auth_query in self.auth_queries}
        return list(dict.fromkeys((login.role, login.database) for login in self.direct if login.role not in own))


@dataclass(frozen=True)
class AuthQuery:
    """How a PgBouncer looks up its clients' passwords: in a database, as `role`, with a query.

    `entry` is the role's own entry in the auth_file. https://www.pgbouncer.org/config.html#auth_query
    """

    service: str
    role: str
    database: str
    query: str
    entry: str = field(default="", repr=False)


def answering_bouncers(context: CheckContext) -> dict[str, Bouncer]:
    """Return the PgBouncers of the project that answer."""
    found: dict[str, Bouncer] = {}
    for name in context.kinds.services(PGBOUNCER):
        try:
            if context.running(name):
                found[name] = bouncer_facts(context, name)
        except NoAnswer:
            continue  # its own check says so
    return found


def login_map(context: CheckContext, service: str) -> LoginMap:
    """Return who connects to a Postgres service."""
    return build_login_map(service, context.clients, answering_bouncers(context), names(context.project))


def build_login_map(
    server: str, clients: Iterable[Client], bouncers: Mapping[str, Bouncer], services: Mapping[str, str]
) -> LoginMap:
    """Return who connects to a Postgres service, of all clients and PgBouncers of a project.

    `services` are the project's services by each name that they have on its networks.
    """
    known = list(clients)
    routes = {name: _Route(server, name, bouncer, services) for name, bouncer in bouncers.items()}
    logins: list[Login] = []
    for client in known:
        if not client.user or client.scheme not in SCHEMES:
            continue
        if client.server == server:
            port, database = client.port or 5432, client.database or client.user
            logins.append(Login(client.user, database, server, port, "", client.password, (client.service,)))
        elif client.server in routes and logs_in_through(client):
            logins += routes[client.server].logins_of(client)
    auth_queries = [pair for route in routes.values() for pair in route.auth_queries(known)]
    logins += [login for _, login in auth_queries]
    return LoginMap(
        _merged(login for login in logins if not login.via),
        _merged(login for login in logins if login.via),
        {name: route.bouncer for name, route in routes.items() if route.leads_to_server},
        tuple(dict.fromkeys(auth_query for auth_query, _ in auth_queries)),
    )


@dataclass(frozen=True)
class _Route:
    """One PgBouncer, as far as it leads to one server."""

    server: str
    service: str
    bouncer: Bouncer
    services: Mapping[str, str]

    @property
    def leads_to_server(self) -> bool:
        """Whether any of its databases is on the server."""
        return any(self._is_on_server(entry) for entry in self.bouncer.databases.values())

    def _is_on_server(self, entry: DatabaseEntry) -> bool:
        return any(self.services.get(host.strip()) == self.server for host in entry.host.split(","))

    def logins_of(self, client: Client) -> list[Login]:
        """Return a client's login to PgBouncer, and the one that PgBouncer makes for it to the server."""
        database, via = client.database or client.user, self.service
        entry = self.bouncer.lookup(database)
        if entry is None or not self._is_on_server(entry):
            return []
        port = client.port or int(self.bouncer.in_file("listen_port"))
        role, password = (entry.user, entry.password) if entry.user else (client.user, client.password)
        return [
            Login(client.user, database, via, port, via, client.password, (client.service,)),
            Login(role, entry.database, self.server, entry.port, "", password, (client.service,), (via,)),
        ]

    def auth_queries(self, known: Iterable[Client]) -> Iterable[tuple[AuthQuery, Login]]:
        """Yield each way in which PgBouncer looks up passwords, and its own login for that.

        `auth_dbname` is the database for all lookups: https://www.pgbouncer.org/config.html#auth_dbname
        """
        for entry in self._entries(known):
            role = self.bouncer.auth_user(entry)
            elsewhere = self.bouncer.setting("auth_dbname")
            target = (self.bouncer.lookup(elsewhere) if elsewhere else None) or entry
            if role and self._is_on_server(target) and target.database:
                secret, query = self.bouncer.users.get(role, ""), self.bouncer.setting("auth_query")
                password = "" if is_verifier(secret) else secret
                own = (self.service,)
                yield (
                    AuthQuery(self.service, role, target.database, query, secret),
                    Login(role, target.database, self.server, target.port, "", password, own, own),
                )

    def _entries(self, known: Iterable[Client]) -> list[DatabaseEntry]:
        """Return PgBouncer's entries. `*` stands for any database: in its place come those that clients ask for."""
        clients = [client for client in known if client.server == self.service and logs_in_through(client)]
        asked = [client.database or client.user for client in clients]
        named = [entry for entry in self.bouncer.databases.values() if entry.name != "*" or entry.database]
        return named + [entry for name in asked if (entry := self.bouncer.lookup(name)) and entry.name == "*"]


def _merged(logins: Iterable[Login]) -> tuple[Login, ...]:
    """Return each login once, with all services that use it; it is `behind` PgBouncers only where all of them are."""
    groups: dict[Login, list[Login]] = {}
    for login in logins:
        groups.setdefault(login, []).append(login)
    return tuple(
        replace(
            login,
            clients=tuple(dict.fromkeys(client for each in alike for client in each.clients)),
            behind=tuple(dict.fromkeys(name for each in alike for name in each.behind))
            if all(each.behind for each in alike)
            else (),
        )
        for login, alike in groups.items()
    )
