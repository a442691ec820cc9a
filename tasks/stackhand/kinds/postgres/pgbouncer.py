"""The kind pgbouncer: a PgBouncer knows its databases, its clients get through it, and its pools fit the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stackhand.checks.check import Check, Verdict, fail, ok, skip
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.errors import StackError
from stackhand.kinds.postgres import pgbouncer_console, pools, userlist
from stackhand.kinds.postgres.facts import POSTGRES
from stackhand.kinds.postgres.login_attempts import Attempt, attempts
from stackhand.kinds.postgres.login_map import Login
from stackhand.kinds.postgres.pgbouncer_facts import PGBOUNCER, Bouncer, logs_in_through

_DATABASE_FIRST = "write it as DATABASE: QUERY"


class PgBouncer(Kind[Bouncer]):
    """A PgBouncer in front of a Postgres server."""

    name = PGBOUNCER
    images = frozenset({"pgbouncer"})
    programs = frozenset({"pgbouncer"})
    ports = frozenset({6432})

    def collect(self, context: CheckContext, service: str) -> Bouncer:
        """Read its files and ask its console. Raises NoAnswer."""
        return pgbouncer_console.collect(context, service)

    def checks(self) -> Sequence[Check]:
        """Return the checks; within a phase, findings are put right in this order."""
        return (
            *super().checks(),
            Check("pgbouncer.database", "databases", self.check_databases),
            Check("pgbouncer.userlist", "databases", userlist.check_userlist),
            Check("pgbouncer.login", "databases", check_logins),
            Check("pgbouncer.pools", "tuning", pools.check_pools),
            Check("pgbouncer.pools_file", "tuning", pools.check_pools_in_file),
        )

    def check_databases(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that it knows each database that its clients ask for."""
        facts = context.facts(self, service)
        known = _clients_through(context, service)
        if known and not facts.ini:
            yield skip("its configuration cannot be read")
            return
        for database in dict.fromkeys(each.database or each.user for each in known):
            if facts.lookup(database) is None:
                yield fail(
                    f"it does not know the database {database}",
                    f"its databases: {', '.join(facts.databases) or 'none'}",
                    f"add `{database} = host=… dbname=…` to [databases] in {facts.ini}",
                    subject=database,
                )
            else:
                yield ok(f"it knows the database {database}", subject=database)

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Run a query through a pool, as a client whose password is known. It changes nothing. Raises StackError.

        `DATABASE: QUERY` names the database where clients use several.
        """
        known = {each.database or each.user: each for each in _clients_through(context, service) if each.password}
        first, _, rest = what.partition(":")
        client, text = (known[first.strip()], rest) if first.strip() in known else (None, what)
        if client is None and len(known) == 1:
            client = next(iter(known.values()))
        if client is None:
            which = ", ".join(known) or "none with a password that is known"
            raise StackError(f"{service}: which database is {what!r} for? its clients use {which}", _DATABASE_FIRST)
        port = client.port or int(context.facts(self, service).in_file("listen_port"))
        pgbouncer_console.run_query(context, service, client, port, text)


def check_logins(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that its clients get through it to each Postgres server of the project."""
    for server in context.kinds.services(POSTGRES):
        tried = attempts(context, server)
        for login, attempt in tried.items():
            if login.via == service:
                yield evaluate_login(login, attempt, tried, server)


def evaluate_login(login: Login, attempt: Attempt, tried: Mapping[Login, Attempt], server: str) -> Verdict:
    """Return the verdict about one client's login through a PgBouncer.

    Its server is to blame unless logging in directly works.
    """
    subject = f"{login.role}@{login.database}"
    users = ", ".join(login.clients)
    if not attempt.trouble:
        return ok(f"{users} can log in to {login.database} through it as {login.role}", subject=subject)
    direct = [result for key, result in tried.items() if not key.via and key.role == login.role]
    works = not any(each.trouble for each in direct)
    directly = ("; logging in directly works" if works else "; logging in directly fails, too") if direct else ""
    return fail(
        f"{users} cannot log in to {login.database} through it as {login.role}",
        f"{attempt.message}{directly}",
        f"see what `inv services.fixes` says of {server}, and `inv services.logs -s {login.via}`",
        subject=subject,
        blames=() if direct and works else (server,),
    )


def _clients_through(context: CheckContext, service: str) -> list[Client]:
    """Return the clients that log in through a PgBouncer."""
    return [each for each in context.clients_of(service) if logs_in_through(each)]
