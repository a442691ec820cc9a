"""Roles: those that clients use are there, may log in, and have the password that their clients are given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres import grants
from stackhand.kinds.postgres.facts import Role, Server
from stackhand.kinds.postgres.logins import Attempt, Links, Login
from stackhand.kinds.postgres.pgbouncer_facts import is_verifier
from stackhand.kinds.postgres.psql import Admin, identifier, literal
from stackhand.kinds.postgres.queries import ORPHAN
from stackhand.model import Finding

ROLE, ORPHANS = "postgres.role", "postgres.orphans"


@dataclass(frozen=True)
class Wanted:
    """A role that has to be there: who wants it, and the passwords (or one verifier) that it is said to have.

    `unknown` are those who log in as it with a password that is kept elsewhere. `made_with` is the password that the
    server's own service gives it, where it is the superuser that the database is made with.
    """

    name: str
    by: tuple[str, ...]
    passwords: tuple[str, ...] = field(default=(), repr=False)
    verifier: str = field(default="", repr=False)
    unknown: tuple[str, ...] = ()
    made_with: str = field(default="", repr=False)

    @property
    def agreed(self) -> bool:
        """Whether its clients and the server's own service name one and the same password."""
        return bool(self.made_with) and self.passwords == (self.made_with,) and not self.unknown


@dataclass(frozen=True)
class _About:
    """What the findings of one role have in common. A server that is a copy takes no changes."""

    service: str
    role: str
    recovery: bool

    def ok(self, summary: str) -> Finding:
        return Finding(ROLE, self.service, "databases", "ok", summary, subject=self.role)

    def warn(self, summary: str, evidence: str, remedy: str) -> Finding:
        return Finding(ROLE, self.service, "databases", "warn", summary, evidence, remedy, subject=self.role)

    def fail(self, summary: str, evidence: str, remedy: str, *, fixable: bool) -> Finding:
        can = fixable and not self.recovery
        return Finding(
            ROLE, self.service, "databases", "fail", summary, evidence, remedy, fixable=can, subject=self.role
        )


def wanted(links: Links, configured: Mapping[str, str], made: Iterable[tuple[str, str]] = ()) -> list[Wanted]:
    """Return the roles that have to be there: those of the clients, and the configured ones with their passwords.

    `made` are the superusers that the database may have been made with, and their passwords.
    """
    given = set(made)
    found: list[Wanted] = []
    for name in dict.fromkeys([*links.roles, *configured]):
        logins = [each for each in links.direct if each.role == name]
        passwords = [each.password for each in logins] + [configured.get(name, "")]
        entries = [each.entry for each in links.lookups if each.role == name and is_verifier(each.entry)]
        by = [client for each in logins for client in each.clients]
        askers = {each.service for each in links.lookups}
        own = [password for role, password in given if role == name and password]
        found.append(
            Wanted(
                name,
                tuple(dict.fromkeys(by)) or ("fixes.roles",),
                tuple(dict.fromkeys(filter(None, passwords))),
                entries[0] if entries else "",
                tuple(
                    client for each in logins if not each.password for client in each.clients if client not in askers
                ),
                own[0] if len(own) == 1 else "",
            )
        )
    return found


def judge(service: str, server: Server, want: Wanted, tried: Mapping[Login, Attempt]) -> Finding:
    """Return the finding about one role."""
    role, users = server.role(want.name), ", ".join(want.by)
    name = identifier(want.name)
    about = _About(service, want.name, server.cluster.recovery)
    if role is None:
        secret = len(want.passwords) == 1 or bool(want.verifier) or want.by == ("fixes.roles",)
        return about.fail(
            f"the role {want.name} is missing",
            f"{users} logs in as {want.name}",
            f"CREATE ROLE {name} LOGIN; and give it the password of {users}",
            # The superuser that the database is made with would be another role than this one.
            fixable=secret and not want.made_with,
        )
    if not role.login:
        return about.fail(
            f"the role {want.name} may not log in",
            f"{users} logs in as {want.name}, which is NOLOGIN",
            f"ALTER ROLE {name} LOGIN, if nobody meant it so",
            fixable=False,  # nobody does that by accident
        )
    if role.expired:
        return about.fail(
            f"the password of the role {want.name} has expired",
            "its VALID UNTIL has passed",
            f"ALTER ROLE {name} VALID UNTIL 'infinity', if it is still to be used",
            fixable=False,
        )
    return _judge_password(role, want, {key: value for key, value in tried.items() if key.role == want.name}, about)


def _judge_password(role: Role, want: Wanted, tried: Mapping[Login, Attempt], about: _About) -> Finding:
    results = {key: value for key, value in tried.items() if not key.via}
    wrong = [key for key, value in results.items() if value.trouble == "password"]
    good = {key.password for key, value in results.items() if not value.trouble}
    strangers = sorted({client for key in wrong for client in key.clients})
    if wrong and (good or len({key.password for key in wrong}) > 1):
        return about.fail(
            f"services are given different passwords for the role {want.name}",
            f"the one of {', '.join(strangers)} is refused",
            "give all of them the same secret",
            fixable=False,
        )
    if wrong or (want.verifier and not want.passwords and role.fingerprint != fingerprint(want.verifier)):
        return about.fail(
            f"the role {want.name} has another password than {', '.join(want.by)}",
            results[wrong[0]].said if wrong else "its verifier is not the one in PgBouncer's auth_file",
            f"\\password {want.name} in psql, with the password that {', '.join(want.by)} is given"
            + (f"; not done: {hindrance}" if (hindrance := _hindrance(role, want)) else ""),
            fixable=not hindrance,
        )
    other = next(((key, value) for key, value in results.items() if value.trouble not in ("", "no_connect")), None)
    if other is not None:
        key, value = other
        if value.trouble == "no_database" and good:
            # A database for tests, say, which is made when it is needed.
            return about.warn(
                f"{', '.join(key.clients)} is given a database that there is not: {key.database}",
                value.said,
                _REMEDIES["no_database"],
            )
        return about.fail(
            f"{', '.join(key.clients)} cannot log in to {key.database} as {want.name}",
            value.said,
            _REMEDIES.get(value.trouble, "the server's log says more"),
            fixable=False,
        )
    works = not want.passwords or any(not value.trouble for value in tried.values())
    return about.ok("it is there and may log in" if works else "it is there")


def _hindrance(role: Role, want: Wanted) -> str:
    """Return why a role is not given the password of its clients, "" where it may be."""
    if want.unknown:
        return f"which one {', '.join(want.unknown)} has is not known"
    if role.superuser and not want.agreed:
        return "it is a superuser, and the service of the database is not given the same one"
    return ""


_REMEDIES = {
    "no_database": "create the database, or correct the name that the client is given",
    "not_admitted": "add a line for it to pg_hba.conf, then SELECT pg_reload_conf()",
    "full": "raise max_connections, or make the pools smaller",
    "silent": "see that the port is right and the server listens on its network (listen_addresses)",
    "starting": "wait until the server has started",
}


def fingerprint(verifier: str) -> str:
    """Return what tells a verifier from another without being it."""
    return hashlib.sha256(verifier.encode()).hexdigest()


def judge_orphans(service: str, server: Server) -> Iterable[Finding]:
    """Return the finding about sessions whose role is gone; a pool hands them out again after the role is made anew."""
    if server.cluster.orphans:
        yield Finding(
            ORPHANS,
            service,
            "databases",
            "warn",
            f"{server.cluster.orphans} idle sessions belong to a role that was dropped",
            evidence="whatever they are used for next will fail",
            remedy=f"SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE {' '.join(ORPHAN.split())}",
            fixable=True,
        )


def end_orphans(context: CheckContext, service: str, admin: Admin) -> None:
    """End idle sessions whose role was dropped."""
    admin.execute(
        context, service, f"SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE {ORPHAN};"
    )


def repair(context: CheckContext, service: str, server: Server, want: Wanted, known: grants.Known | None) -> None:
    """Make a role as it has to be: there, with its clients' password. Raises StackError."""
    admin = server.admin
    if admin is None:
        raise StackError(server.denied)
    role = server.role(want.name)
    if role is not None and (hindrance := _hindrance(role, want)):
        raise StackError(f"{want.name} is left alone: {hindrance}")
    # Before the role is there again: a run that ends here finds it missing still.
    end_orphans(context, service, admin)
    if role is None:
        admin.execute(context, service, creation(want.name, grants.role_settings(want.name, known) if known else []))
    if want.passwords:
        admin.set_password(context, service, want.name, want.passwords[0])
    elif want.verifier:
        admin.set_verifier(context, service, want.name, want.verifier)


def creation(role: str, settings: Iterable[str]) -> str:
    """Return what makes a role with its settings: both or neither, for only one that is missing is given them.

    It has no password yet, which the next look finds.
    """
    made, again = (
        literal(f"CREATE ROLE {identifier(role)} LOGIN"),
        f"SELECT FROM pg_roles WHERE rolname = {literal(role)}",
    )
    return "\n".join(["BEGIN;", f"SELECT {made} WHERE NOT EXISTS ({again}) \\gexec", *settings, "COMMIT;"])
