"""Roles: those that clients use are there, may log in, and have the password that their clients are given."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from stackhand.checks.check import Fix, NoAnswer, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError, did_you_mean
from stackhand.kinds.postgres.access import Access
from stackhand.kinds.postgres.facts import POSTGRES, Role, Server, server_facts
from stackhand.kinds.postgres.grant_history import GrantHistory, role_settings
from stackhand.kinds.postgres.login_attempts import Attempt, attempts, expect_recovery
from stackhand.kinds.postgres.login_map import Login, LoginMap
from stackhand.kinds.postgres.pgbouncer_facts import is_verifier
from stackhand.kinds.postgres.psql import identifier, literal, superusers
from stackhand.kinds.postgres.queries import ORPHAN


@dataclass(frozen=True)
class RequiredRole:
    """A role that has to exist: the services that need it (`by`), and the passwords or the verifier that they give it.

    `unknown` are services that log in as it with a password that is kept elsewhere. `made_with` is the password that
    the server's own service gives it, where it is the superuser that the database is created with.
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

    def hindrance(self, role: Role) -> str:
        """Return why the role must not be given the password of its clients, "" where it may."""
        if self.unknown:
            return f"which one {', '.join(self.unknown)} has is not known"
        if role.superuser and not self.agreed:
            return "it is a superuser, and the service of the database is not given the same one"
        return ""


def check_roles(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check each role that has to exist."""
    yield from _misnamed(context, service)
    access = Access.load(context, service)
    if access.server.admin is None:
        return
    tried: Mapping[Login, Attempt] = {}
    with contextlib.suppress(NoAnswer):
        tried = attempts(context, service)
    for required in required_roles(access.login_map, _configured_passwords(access), superusers(context, service)):
        fix = Fix(f"put right the role {required.name} in", partial(_repair, access, required))
        yield evaluate_role(access.server, required, tried, fix)


def check_orphans(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check for sessions whose role was dropped. A pool would hand them out after the role is created again."""
    server = server_facts(context, service)
    if server.cluster.orphans:
        yield warn(
            f"{server.cluster.orphans} idle sessions belong to a role that was dropped",
            "the next query on each of them will fail",
            f"SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE {' '.join(ORPHAN.split())}",
            fix=Fix("end the sessions of dropped roles in", partial(end_orphans, context, service, server)),
        )


def required_roles(
    login_map: LoginMap, configured: Mapping[str, str], created_with: Iterable[tuple[str, str]] = ()
) -> list[RequiredRole]:
    """Return the roles that have to exist: those of the clients, and the configured ones with their passwords.

    `created_with` are the superusers that the database may have been created with, and their passwords.
    """
    askers = {each.service for each in login_map.auth_queries}
    own = {(role, password) for role, password in created_with if password}

    def of(name: str) -> RequiredRole:
        logins = [each for each in login_map.direct if each.role == name]
        passwords = [*(each.password for each in logins), configured.get(name, "")]
        verifiers = [each.entry for each in login_map.auth_queries if each.role == name and is_verifier(each.entry)]
        unknown = [client for each in logins if not each.password for client in each.clients]
        made_with = [password for role, password in own if role == name]
        return RequiredRole(
            name,
            by=tuple(dict.fromkeys(client for each in logins for client in each.clients)) or ("fixes.roles",),
            passwords=tuple(dict.fromkeys(filter(None, passwords))),
            verifier=verifiers[0] if verifiers else "",
            unknown=tuple(client for client in unknown if client not in askers),
            made_with=made_with[0] if len(made_with) == 1 else "",
        )

    return [of(name) for name in dict.fromkeys([*login_map.roles, *configured])]


def evaluate_role(server: Server, required: RequiredRole, tried: Mapping[Login, Attempt], fix: Fix) -> Verdict:
    """Return the verdict about one role: that of the first rule that applies. `fix` is offered where that is safe.

    A standby server takes no changes.
    """
    offered = None if server.cluster.recovery else fix
    role = server.role(required.name)
    if role is None:
        return _role_is_missing(required, offered)
    outcomes = _Outcomes.of(required.name, tried)
    verdicts = (rule(role, required, outcomes, offered) for rule in _RULES)
    works = not required.passwords or outcomes.works
    return next(filter(None, verdicts), None) or ok(
        "it is there and may log in" if works else "it is there", subject=required.name
    )


@dataclass(frozen=True)
class _Outcomes:
    """The login attempts of one role, sorted.

    `refused` have a wrong password, `failed` another trouble; a missing CONNECT is left to the check of rights.
    `accepted` are the passwords that work. Of logins through a PgBouncer only `works` takes notice.
    """

    refused: Mapping[Login, Attempt]
    failed: Mapping[Login, Attempt]
    accepted: frozenset[str]
    works: bool

    @classmethod
    def of(cls, role: str, tried: Mapping[Login, Attempt]) -> _Outcomes:
        own = {login: attempt for login, attempt in tried.items() if login.role == role}
        direct = {login: attempt for login, attempt in own.items() if not login.via}
        return cls(
            {login: attempt for login, attempt in direct.items() if attempt.trouble == "password"},
            {
                login: attempt
                for login, attempt in direct.items()
                if attempt.trouble not in ("", "password", "no_connect")
            },
            frozenset(login.password for login, attempt in direct.items() if not attempt.trouble),
            any(not attempt.trouble for attempt in own.values()),
        )


def _role_is_missing(required: RequiredRole, fix: Fix | None) -> Verdict:
    users = ", ".join(required.by)
    has_secret = len(required.passwords) == 1 or bool(required.verifier) or required.by == ("fixes.roles",)
    return fail(
        f"the role {required.name} is missing",
        f"{users} logs in as {required.name}",
        f"CREATE ROLE {identifier(required.name)} LOGIN; and give it the password of {users}",
        subject=required.name,
        # A superuser that the database was created with would not come back as the same role.
        fix=fix if has_secret and not required.made_with else None,
    )


def _may_not_log_in(role: Role, required: RequiredRole, outcomes: _Outcomes, fix: Fix | None) -> Verdict | None:
    if role.login:
        return None
    # NOLOGIN is not set by accident, so there is no fix.
    return fail(
        f"the role {required.name} may not log in",
        f"{', '.join(required.by)} logs in as {required.name}, which is NOLOGIN",
        f"ALTER ROLE {identifier(required.name)} LOGIN, unless it was set on purpose",
        subject=required.name,
    )


def _has_expired(role: Role, required: RequiredRole, outcomes: _Outcomes, fix: Fix | None) -> Verdict | None:
    if not role.expired:
        return None
    return fail(
        f"the password of the role {required.name} has expired",
        "its VALID UNTIL has passed",
        f"ALTER ROLE {identifier(required.name)} VALID UNTIL 'infinity', if it is still to be used",
        subject=required.name,
    )


def _has_several_passwords(role: Role, required: RequiredRole, outcomes: _Outcomes, fix: Fix | None) -> Verdict | None:
    refused = outcomes.refused
    if not refused or not (outcomes.accepted or len({login.password for login in refused}) > 1):
        return None
    clients = sorted({client for login in refused for client in login.clients})
    return fail(
        f"services are given different passwords for the role {required.name}",
        f"the one of {', '.join(clients)} is refused",
        "give all of them the same secret",
        subject=required.name,
    )


def _has_another_password(role: Role, required: RequiredRole, outcomes: _Outcomes, fix: Fix | None) -> Verdict | None:
    other_verifier = required.verifier and not required.passwords and role.fingerprint != fingerprint(required.verifier)
    if not outcomes.refused and not other_verifier:
        return None
    users, hindrance = ", ".join(required.by), required.hindrance(role)
    refusal = next((attempt.message for attempt in outcomes.refused.values()), None)
    return fail(
        f"the role {required.name} has another password than {users}",
        "its verifier is not the one in PgBouncer's auth_file" if refusal is None else refusal,
        f"\\password {required.name} in psql, with the password that {users} is given"
        + (f"; not done: {hindrance}" if hindrance else ""),
        subject=required.name,
        fix=None if hindrance else fix,
    )


def _cannot_log_in(role: Role, required: RequiredRole, outcomes: _Outcomes, fix: Fix | None) -> Verdict | None:
    if not outcomes.failed:
        return None
    login, attempt = next(iter(outcomes.failed.items()))
    users = ", ".join(login.clients)
    remedy = _REMEDIES.get(attempt.trouble, "the server's log says more")
    if attempt.trouble == "no_database" and outcomes.accepted:
        # A database for tests, say, which is made when it is needed.
        summary = f"{users} is given a database that does not exist: {login.database}"
        return warn(summary, attempt.message, remedy, subject=required.name)
    summary = f"{users} cannot log in to {login.database} as {required.name}"
    return fail(summary, attempt.message, remedy, subject=required.name)


# In this order; the first that applies counts.
_RULES: tuple[Callable[[Role, RequiredRole, _Outcomes, Fix | None], Verdict | None], ...] = (
    _may_not_log_in,
    _has_expired,
    _has_several_passwords,
    _has_another_password,
    _cannot_log_in,
)
_REMEDIES = {
    "no_database": "create the database, or correct the name that the client is given",
    "not_admitted": "add a line for it to pg_hba.conf, then SELECT pg_reload_conf()",
    "full": "raise max_connections, or make the pools smaller",
    "silent": "see that the port is right and the server listens on its network (listen_addresses)",
    "starting": "wait until the server has started",
}


def fingerprint(verifier: str) -> str:
    """Return a hash by which verifiers are told apart without being shown."""
    return hashlib.sha256(verifier.encode()).hexdigest()


def _repair(access: Access, required: RequiredRole) -> None:
    """Repair a role, with the settings that are remembered of it, and have the next login wait for PgBouncer."""
    logins = [each for each in access.login_map.direct if each.role == required.name and each.password]
    history = next(filter(None, (access.history(required.name, each.database) for each in logins)), None)
    repair(access.context, access.service, access.server, required, history)
    expect_recovery(access.context, access.service)


def repair(
    context: CheckContext, service: str, server: Server, required: RequiredRole, history: GrantHistory | None
) -> None:
    """Have a role exist with its clients' password. Raises StackError."""
    admin, role = server.administrator, server.role(required.name)
    if role is not None and (hindrance := required.hindrance(role)):
        raise StackError(f"{required.name} is left alone: {hindrance}")
    # Before the role exists again: where a run is killed here, the next one still finds it missing.
    end_orphans(context, service, server)
    if role is None:
        settings = role_settings(required.name, history) if history else []
        admin.execute(context, service, creation(required.name, settings))
    if required.passwords:
        admin.set_password(context, service, required.name, required.passwords[0])
    elif required.verifier:
        admin.set_verifier(context, service, required.name, required.verifier)


def end_orphans(context: CheckContext, service: str, server: Server) -> None:
    """End idle sessions whose role was dropped. Raises StackError."""
    text = f"SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE {ORPHAN};"
    server.administrator.execute(context, service, text)


def creation(role: str, settings: Iterable[str]) -> str:
    """Return the statements that create a role with its settings, in one transaction.

    An existing role is given no settings, so it must not be created without them. It has no password yet: where a run
    is killed here, the next one finds that.
    """
    create = literal(f"CREATE ROLE {identifier(role)} LOGIN")
    exists = f"SELECT FROM pg_roles WHERE rolname = {literal(role)}"
    return "\n".join(["BEGIN;", f"SELECT {create} WHERE NOT EXISTS ({exists}) \\gexec", *settings, "COMMIT;"])


def _configured_passwords(access: Access) -> dict[str, str]:
    """Return the passwords of configured roles, "" where there is no secret or its file cannot be read."""
    files = access.context.project.secret_files
    passwords = dict.fromkeys(access.configured, "")
    for name, role in access.configured.items():
        with contextlib.suppress(OSError, KeyError, UnicodeDecodeError):
            passwords[name] = files[role.secret].read_text(encoding="utf-8").strip() if role.secret else ""
    return passwords


def _misnamed(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Yield a warning for each role of `fixes.roles` whose server or secret does not exist, at the first server."""
    servers = context.kinds.services(POSTGRES)
    for name, role in context.settings.roles.items() if service == servers[0] else ():
        for key, value, known in (
            ("server", role.server, servers),
            ("secret", role.secret, list(context.project.secret_files)),
        ):
            if value and value not in known:
                yield warn(
                    f"fixes.roles.{name}.{key} names {value}, and there is no such {key}",
                    remedy=did_you_mean(value, known, f"{key}s"),
                    subject=f"fixes.roles.{name}.{key}",
                )
