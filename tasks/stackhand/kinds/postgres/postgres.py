"""The kind postgres: a PostgreSQL server, asked through its own socket, its clients' logins tried over the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stackhand.checks.connections import value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.checks.traits import Traits
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres import auth_query as lookups
from stackhand.kinds.postgres import facts, grants
from stackhand.kinds.postgres import maintenance as indexes
from stackhand.kinds.postgres import prewarm as warmth
from stackhand.kinds.postgres import queries as query
from stackhand.kinds.postgres.access import ADMIN, Judges, configured
from stackhand.kinds.postgres.facts import Server
from stackhand.kinds.postgres.logins import POSTGRES, links
from stackhand.kinds.postgres.psql import Admin, NoAdministrator, administrators, complaints, first_answer
from stackhand.model import Finding

# Databases asked about at once: the script has to fit into a pipe (64 KB).
_BATCH = 4
# What stands before a server, listens on its port and is asked with its tools.
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

    def __init__(self) -> None:
        self._judges = Judges(self)

    def matches(self, shown: Traits) -> bool:
        """Return whether it is one: no pooler, and no client, whatever its image and its healthcheck are."""
        if shown.programs & self.programs:
            return True
        if _is_pooler(shown) or _is_client(shown):
            return False
        return super().matches(shown)

    def matches_port(self, shown: Traits) -> bool:
        """Return whether it listens on the port of one, and is no pooler."""
        return super().matches_port(shown) and not _is_pooler(shown)

    def collect(self, context: CheckContext, service: str) -> Server:
        """Ask the server for everything with one script. Raises NoAnswer."""
        known = links(context, service)
        roles_configured = configured(context, service)
        databases = list(dict.fromkeys([*known.databases, *_own(context, service)]))
        roles = list(dict.fromkeys([*known.roles, *roles_configured]))
        calls = [(each.database, lookups.parse(each.query)) for each in known.lookups]
        functions = {name: [call.name for database, call in calls if call and database == name] for name in databases}
        expressions = {
            grants.key(role, grant): expression
            for role, each in roles_configured.items()
            for grant in each.grants
            if (expression := grants.expression(role, grant))
        }

        def questions(some: Sequence[str]) -> str:
            return query.script(some, roles, functions, dict.fromkeys(some, expressions))

        text = query.cluster(roles) + questions(databases[:_BATCH])
        container = context.container(service).id
        # The way that let us in: the others are not tried again.
        way: Admin | None = context.scratch.get((ADMIN, container))
        try:
            admin, answer = first_answer(context, service, [way] if way else administrators(context, service), text)
        except NoAdministrator as denied:
            context.scratch.pop((ADMIN, container), None)
            return Server(denied=denied.message)
        context.scratch[ADMIN, container] = admin
        rest = range(_BATCH, len(databases), _BATCH)
        answers = [answer, *(admin.query(context, service, questions(databases[n : n + _BATCH])) for n in rest)]
        text = "\n".join(each.stdout for each in answers)
        return facts.parse(text, admin, databases, context.redact("; ".join(filter(None, map(_complaint, answers)))))

    def checks(self) -> Sequence[Check]:
        """Return what is asked about a server."""
        return (
            *super().checks(),
            *self._judges.checks(),
            Check(warmth.PREWARM, "caches", self._warm),
            Check(indexes.ANALYSE, "tuning", self._analyse),
            Check(indexes.INVALID, "tuning", self._indexes),
            Check(indexes.BLOATED, "tuning", self._bloat),
        )

    def fixes(self) -> Mapping[str, Fix]:
        """Return what can be put right."""
        return {
            **self._judges.fixes(),
            warmth.PREWARM: Fix("load the most used tables of", self._prewarm),
            indexes.ANALYSE: Fix("analyse {subject} in", self._do_analyse),
            indexes.INVALID: Fix("rebuild or drop {subject} in", self._rebuild),
        }

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Carry out a query, as a reader that changes nothing. `DATABASE: QUERY` names the database."""
        known = links(context, service).databases
        first, _, rest = what.partition(":")
        database, text = (
            (first.strip(), rest) if rest and first.strip() in known else ((known or ["postgres"])[0], what)
        )
        admin = self._admin(context, service)
        admin.execute(context, service, f"BEGIN READ ONLY;\n{text.strip().rstrip(';')};\nROLLBACK;", database)

    def _analyse(self, context: CheckContext, service: str) -> Iterable[Finding]:
        return indexes.judge_analyse(service, context.facts(self, service))

    def _indexes(self, context: CheckContext, service: str) -> Iterable[Finding]:
        return indexes.judge_indexes(service, context.facts(self, service))

    def _bloat(self, context: CheckContext, service: str) -> Iterable[Finding]:
        return indexes.judge_bloat(service, context.facts(self, service))

    def _warm(self, context: CheckContext, service: str) -> Iterable[Finding]:
        return warmth.judge(context, service, context.facts(self, service))

    def _do_analyse(self, context: CheckContext, finding: Finding) -> None:
        service, (database, table) = finding.service or "", _parts(finding)
        upkeep = context.facts(self, service).upkeep[database]
        indexes.analyse(context, service, self._admin(context, service), upkeep, table)

    def _rebuild(self, context: CheckContext, finding: Finding) -> None:
        service, (database, index) = finding.service or "", _parts(finding)
        upkeep = context.facts(self, service).upkeep[database]
        indexes.rebuild(context, service, self._admin(context, service), upkeep, index)

    def _prewarm(self, context: CheckContext, finding: Finding) -> None:
        service = finding.service or ""
        warmth.load(context, service, context.facts(self, service), self._admin(context, service))

    def _admin(self, context: CheckContext, service: str) -> Admin:
        server = context.facts(self, service)
        if server.admin is None:
            raise StackError(server.denied)
        return server.admin


def _is_pooler(shown: Traits) -> bool:
    return bool((shown.images | shown.programs) & _POOLERS)


def _is_client(shown: Traits) -> bool:
    """Return whether it only asks a server, that of another service: by its healthcheck, or in a program of its own."""
    if "pg_isready" in shown.probe and not shown.probes_itself:
        return True
    hosts = [shown.environment[name] for name in _HOSTS if name in shown.environment]
    own = any(not word.startswith("-") for word in shown.argv[:1])
    return own and any(not shown.is_me(host) for host in hosts)


def _complaint(answer: ExecResult) -> str:
    return complaints(answer.stderr) or ("" if answer.ok else answer.last_error)


def _parts(finding: Finding) -> tuple[str, str]:
    database, _, thing = finding.subject.partition(": ")
    return database, thing


def _own(context: CheckContext, service: str) -> list[str]:
    """Return the database that the server was made with."""
    made = context.project.services[service]
    names = ("POSTGRES_DB", "POSTGRESQL_DATABASE")
    return [value for name in names if (value := value_of(context.project, made, name))]
