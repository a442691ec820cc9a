"""The kind postgres: a PostgreSQL server, asked through its own socket, its clients' logins tried over the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stackhand.checks.check import Check, Verdict, skip
from stackhand.checks.connections import value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.first_start import STILL_INITIALISES, initialises
from stackhand.kinds.postgres import (
    auth_query,
    configured_grants,
    facts,
    grants,
    maintenance,
    prewarm,
    queries,
    roles,
)
from stackhand.kinds.postgres.access import configured_roles
from stackhand.kinds.postgres.facts import POSTGRES, Server
from stackhand.kinds.postgres.login_map import login_map
from stackhand.kinds.postgres.psql import Admin, NoAdministrator, administrators, first_answer, server_errors

# The way in that worked, in the context's scratch.
_ADMIN = "postgres.admin"
# Databases in one script: it has to fit into a pipe (64 KB).
_BATCH = 4
# They stand before a server, listen on its port and answer its tools.
_POOLERS = frozenset({"odyssey", "pgagroal", "pgbouncer", "pgcat", "pgdog", "pgpool", "pgpool2", "supavisor"})
_HOSTS = ("PGHOST", "POSTGRES_HOST", "POSTGRESQL_HOST")


class Postgres(Kind[Server]):
    """A PostgreSQL server."""

    name = POSTGRES
    images = frozenset("citus paradedb pgvecto pgvector postgis postgres postgresql timescaledb".split())  # noqa: SIM905
    programs = frozenset({"postgres", "postmaster"})
    probes = frozenset({"pg_isready"})
    ports = frozenset({5432})
    holds_data = True

    def matches(self, shown: Traits) -> bool:
        """Return whether it is a server. A pooler or a client is none, whatever its image and its healthcheck are."""
        if shown.programs & self.programs:
            return True
        if _is_pooler(shown) or _is_client(shown):
            return False
        return super().matches(shown)

    def matches_port(self, shown: Traits) -> bool:
        """Return whether it listens on the port of a server, and is no pooler."""
        return super().matches_port(shown) and not _is_pooler(shown)

    def collect(self, context: CheckContext, service: str) -> Server:
        """Ask the server for all facts, with one script for each few databases.

        Raises NoAnswer, CannotAsk where its data is still being made.
        """
        known = login_map(context, service)
        configured = configured_roles(context, service)
        databases = list(dict.fromkeys([*known.databases, *_initial_databases(context, service)]))
        names = list(dict.fromkeys([*known.roles, *configured]))
        calls = [(each.database, auth_query.parse(each.query)) for each in known.auth_queries]
        functions = {name: [call.name for database, call in calls if call and database == name] for name in databases}
        expressions = {
            configured_grants.grant_key(name, grant): expression
            for name, role in configured.items()
            for grant in role.grants
            if (expression := configured_grants.expression(name, grant))
        }

        def questions(some: Sequence[str]) -> str:
            return queries.script(some, names, functions, dict.fromkeys(some, expressions))

        text = queries.cluster(names) + questions(databases[:_BATCH])
        container = context.container(service).id
        # The way in that worked before: the others are not tried again.
        way: Admin | None = context.scratch.get((_ADMIN, container))
        try:
            admin, answer = first_answer(context, service, [way] if way else administrators(context, service), text)
        except NoAdministrator as denied:
            context.scratch.pop((_ADMIN, container), None)
            return Server(denied=denied.message)
        context.scratch[_ADMIN, container] = admin
        rest = range(_BATCH, len(databases), _BATCH)
        answers = [answer, *(admin.query(context, service, questions(databases[n : n + _BATCH])) for n in rest)]
        text = "\n".join(each.stdout for each in answers)
        server = facts.parse(text, admin, databases, context.redact("; ".join(filter(None, map(_error, answers)))))
        if not server.cluster.settings.get("listen_addresses", "*"):
            # A role that a script of its first start has still to make is not to be made before it.
            definition = context.project.services[service]
            if initialises(context.engine, definition, context.container(service)):
                raise CannotAsk(STILL_INITIALISES)
        return server

    def checks(self) -> Sequence[Check]:
        """Return the checks; within a phase, findings are put right in this order."""
        return (
            *super().checks(),
            Check("postgres.admin", "databases", check_administrator),
            Check("postgres.role", "databases", roles.check_roles),
            Check("postgres.orphans", "databases", roles.check_orphans),
            Check("postgres.auth_query", "databases", auth_query.check_auth_query),
            Check("postgres.grants", "databases", grants.check_grants),
            Check("postgres.prewarm", "caches", prewarm.check_prewarm),
            Check("postgres.analyse", "tuning", maintenance.check_analyse),
            Check("postgres.index", "tuning", maintenance.check_indexes),
            Check("postgres.bloat", "tuning", maintenance.check_bloat),
        )

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Run a query in a transaction that may only read. `DATABASE: QUERY` names the database. Raises StackError."""
        known = login_map(context, service).databases
        first, _, rest = what.partition(":")
        database, text = (
            (first.strip(), rest) if rest and first.strip() in known else ((known or ["postgres"])[0], what)
        )
        admin = context.facts(self, service).administrator
        admin.execute(context, service, f"BEGIN READ ONLY;\n{text.strip().rstrip(';')};\nROLLBACK;", database)


def check_administrator(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Say where roles, rights and indexes cannot be checked."""
    server = facts.server_facts(context, service)
    if server.admin is None:
        yield skip(
            "roles, rights and indexes were not checked: no account in the container may administer the database",
            server.denied,
            "let the container's own account in through the local socket (pg_hba.conf: local all all peer)",
        )


def _is_pooler(shown: Traits) -> bool:
    return bool((shown.images | shown.programs) & _POOLERS)


def _is_client(shown: Traits) -> bool:
    """Return whether it only asks another service's server: in its healthcheck, or by a program of its own."""
    if "pg_isready" in shown.probe and not shown.probes_itself:
        return True
    hosts = [shown.environment[name] for name in _HOSTS if name in shown.environment]
    own = any(not word.startswith("-") for word in shown.argv[:1])
    return own and any(not shown.is_own_host(host) for host in hosts)


def _error(answer: ExecResult) -> str:
    """Return what failed in an answer, "" for nothing."""
    return server_errors(answer.stderr) or ("" if answer.ok else answer.last_error)


def _initial_databases(context: CheckContext, service: str) -> list[str]:
    """Return the database that the image creates at the first start."""
    definition = context.project.services[service]
    names = ("POSTGRES_DB", "POSTGRESQL_DATABASE")
    return [value for name in names if (value := value_of(context.project, definition, name))]
