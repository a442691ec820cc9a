"""The kind pgbouncer: its files and its console; that its clients get through it, and that its pools fit the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stackhand.checks.check import NoAnswer
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.errors import StackError
from stackhand.kinds.postgres import pgbouncer_console as console
from stackhand.kinds.postgres.facts import Server
from stackhand.kinds.postgres.logins import ATTEMPTS, PGBOUNCER, POSTGRES, Attempt, Login, links
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, passes, userlist_line
from stackhand.kinds.postgres.pools import Pools, pools
from stackhand.kinds.postgres.psql import literal
from stackhand.model import Finding

LOGIN, POOLS, POOLS_FILE = "pgbouncer.login", "pgbouncer.pools", "pgbouncer.pools_file"
USERLIST, DATABASE = "pgbouncer.userlist", "pgbouncer.database"
_DATABASE_FIRST = "write it as DATABASE: QUERY"
# Appended with one write. A file that does not end its last line would run the two together.
_APPEND = r"""
if [ -n "$(tail -c 1 "$1")" ]; then STACKHAND_LINE="
$STACKHAND_LINE"; fi
printf '%s\n' "$STACKHAND_LINE" >> "$1"
"""


class PgBouncer(Kind[Bouncer]):
    """A PgBouncer in front of a Postgres server."""

    name = PGBOUNCER
    images = frozenset({"pgbouncer"})
    programs = frozenset({"pgbouncer"})
    ports = frozenset({6432})

    def collect(self, context: CheckContext, service: str) -> Bouncer:
        """Read its files and ask its console. Raises NoAnswer."""
        return console.look(context, service)

    def checks(self) -> Sequence[Check]:
        """Return what is asked about a PgBouncer."""
        return (
            *super().checks(),
            Check(DATABASE, "databases", self._databases),
            Check(USERLIST, "databases", self._userlist),
            Check(LOGIN, "databases", self._logins),
            Check(POOLS, "tuning", self._pools),
            Check(POOLS_FILE, "tuning", self._pools_in_file),
        )

    def fixes(self) -> Mapping[str, Fix]:
        """Return what can be put right."""
        return {
            USERLIST: Fix("add {subject} to the auth_file of", self._add_user),
            POOLS: Fix("make the pools smaller in", self._shrink),
        }

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Carry out a query through a pool, as a client whose password is known; it changes nothing.

        `DATABASE: QUERY` names the database where clients use several.
        """
        known = {each.database or each.user: each for each in _passing(context, service) if each.password}
        first, _, rest = what.partition(":")
        client, text = (known[first.strip()], rest) if first.strip() in known else (None, what)
        if client is None and len(known) == 1:
            client = next(iter(known.values()))
        if client is None:
            which = ", ".join(known) or "none with a password that is known"
            raise StackError(f"{service}: which database is {what!r} for? its clients use {which}", _DATABASE_FIRST)
        port = client.port or int(context.facts(self, service).in_file("listen_port"))
        console.query(context, service, client, port, text)

    def _databases(self, context: CheckContext, service: str) -> Iterable[Finding]:
        facts = context.facts(self, service)
        known = _passing(context, service)
        if known and not facts.ini:
            yield Finding(DATABASE, service, "databases", "skip", "its configuration cannot be read")
            return
        for database in dict.fromkeys(each.database or each.user for each in known):
            if facts.leads(database) is None:
                yield Finding(
                    DATABASE,
                    service,
                    "databases",
                    "fail",
                    f"it does not know the database {database}",
                    evidence=f"its databases: {', '.join(facts.databases) or 'none'}",
                    remedy=f"add `{database} = host=… dbname=…` to [databases] in {facts.ini}",
                    subject=database,
                )
            else:
                yield Finding(
                    DATABASE, service, "databases", "ok", f"it knows the database {database}", subject=database
                )

    def _userlist(self, context: CheckContext, service: str) -> Iterable[Finding]:
        facts = context.facts(self, service)
        if not facts.ini or facts.setting("auth_type") in ("any", "trust", "hba", "pam", "cert", "ldap"):
            return
        for client in {each.user: each for each in _passing(context, service)}.values():
            mapped = facts.leads(client.database or client.user)
            if client.user in facts.users or mapped is None or facts.auth_user(mapped):
                continue
            yield judge_missing_user(service, facts, client.user)

    def _logins(self, context: CheckContext, service: str) -> Iterable[Finding]:
        for server in context.kinds.services(POSTGRES):
            tried = context.facts(ATTEMPTS, server)
            for login, attempt in tried.items():
                if login.via == service:
                    yield judge_login(login, attempt, tried, server)

    def _pools(self, context: CheckContext, service: str) -> Iterable[Finding]:
        facts = context.facts(self, service)
        for server, postgres in _servers(context):
            found = _demand(context, service, server, postgres)
            if found and found.count + found.fixed:
                one = sum(each.service == service and each.running for each in context.containers()) == 1
                yield judge_pools(service, facts, found, server, postgres.available, alone=one)

    def _pools_in_file(self, context: CheckContext, service: str) -> Iterable[Finding]:
        facts = context.facts(self, service)
        for server, postgres in _servers(context):
            found = _demand(context, service, server, postgres, running=False)
            differs = facts.running and facts.setting("default_pool_size") != facts.in_file("default_pool_size")
            if found and differs and found.worst > found.free:
                yield Finding(
                    POOLS_FILE,
                    service,
                    "tuning",
                    "warn",
                    f"its file has pools that are too large for {server}",
                    evidence=f"they come to {found.worst} connections and {found.free} are free; the running ones fit",
                    remedy=f"set default_pool_size = {max(1, found.fitting)} in {facts.ini}, or raise max_connections",
                )

    def _shrink(self, context: CheckContext, finding: Finding) -> None:
        """Set a smaller size on the running console: no connection in use is ended."""
        service = finding.service or ""
        facts = context.facts(self, service)
        for server, postgres in _servers(context):
            found = _demand(context, service, server, postgres)
            if found and found.worst > found.free and found.fitting >= 1:
                console.order(context, service, facts, f"SET default_pool_size = {found.fitting}")

    def _add_user(self, context: CheckContext, finding: Finding) -> None:
        """Add a user with the verifier that the server has for it. Raises StackError."""
        service, user = finding.service or "", finding.subject
        facts = context.facts(self, service)
        for server, postgres in _servers(context):
            if service not in links(context, server).bouncers or postgres.admin is None:
                continue
            text = (
                f"SELECT rolpassword FROM pg_authid WHERE rolname = {literal(user)} AND rolcanlogin AND NOT rolsuper;"
            )
            verifier = postgres.admin.query(context, server, text).stdout.strip()
            if not verifier:
                continue
            context.register_secret(verifier)
            environment = {"STACKHAND_LINE": userlist_line(user, verifier)}
            append = ["sh", "-c", _APPEND, "sh", facts.userlist]
            context.act(service, append, environment=environment, user=facts.account)
            console.order(context, service, facts, "RELOAD")
            return
        raise StackError(f"no server has a password for {user}")


def judge_missing_user(service: str, facts: Bouncer, user: str) -> Finding:
    """Return the finding about a client that PgBouncer does not know."""
    return Finding(
        USERLIST,
        service,
        "databases",
        "fail",
        f"its auth_file has no entry for {user}, and nobody looks up passwords",
        evidence=f"{facts.userlist or 'auth_file'}: {', '.join(facts.users) or 'no entry'}",
        remedy=f'add the line "{user}" "VERIFIER" with rolpassword of pg_authid to {facts.userlist or "auth_file"}, '
        "then RELOAD on its console",
        # A plain password would be needed for auth_type = plain, and none is written down.
        fixable=facts.userlist_writable and facts.administered and facts.setting("auth_type") != "plain",
        subject=user,
    )


def judge_login(login: Login, attempt: Attempt, tried: Mapping[Login, Attempt], server: str) -> Finding:
    """Return the finding about one client's login through PgBouncer."""
    subject = f"{login.role}@{login.database}"
    users = ", ".join(login.clients)
    if not attempt.trouble:
        said = f"{users} can log in to {login.database} through it as {login.role}"
        return Finding(LOGIN, login.via, "databases", "ok", said, subject=subject)
    direct = [result for key, result in tried.items() if not key.via and key.role == login.role]
    works = not any(each.trouble for each in direct)
    directly = ("; logging in directly works" if works else "; nor directly") if direct else ""
    return Finding(
        LOGIN,
        login.via,
        "databases",
        "fail",
        f"{users} cannot log in to {login.database} through it as {login.role}",
        evidence=f"{attempt.said}{directly}",
        remedy=f"see what `inv services.fixes` says of {server}, and `inv services.logs -s {login.via}`",
        subject=subject,
    )


def judge_pools(service: str, facts: Bouncer, found: Pools, server: str, available: int, *, alone: bool) -> Finding:
    """Return the finding about the size of the pools."""
    worst = f"{found.worst} connections at worst, {found.free} of {available} are free for them"
    if found.worst <= found.free:
        return Finding(POOLS, service, "tuning", "ok", f"its pools fit {server}: {worst}", subject=server)
    size = found.fitting
    return Finding(
        POOLS,
        service,
        "tuning",
        "fail",
        f"its pools are larger than what {server} has",
        evidence=f"{worst}; default_pool_size {found.size}, reserve_pool_size {found.reserve}",
        remedy=f"set default_pool_size = {size}" if size >= 1 else "make the pools smaller, or raise max_connections",
        # Each container has a console of its own, and one at a time is asked.
        fixable=facts.administered and size >= 1 and alone,
        subject=server,
    )


def _passing(context: CheckContext, service: str) -> list[Client]:
    """Return the clients that log in through a PgBouncer."""
    return [each for each in context.clients_of(service) if passes(each)]


def _servers(context: CheckContext) -> Iterable[tuple[str, Server]]:
    """Yield the Postgres servers that can be asked."""
    for name in context.kinds.services(POSTGRES):
        try:
            facts: Server = context.facts_of(POSTGRES, name)
        except NoAnswer:
            continue
        if facts.admin is not None and facts.available > 0:
            yield name, facts


def _demand(
    context: CheckContext, service: str, server: str, postgres: Server, *, running: bool = True
) -> Pools | None:
    known = links(context, server)
    if service not in known.bouncers:
        return None
    replicas = {
        name: sum(each.service == name and each.running for each in context.containers()) for name in known.bouncers
    }
    return pools(service, known, postgres.available, replicas, running=running)
