"""The check of rights: each role has them in the databases that it uses, and gets back those that it certainly had."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres import configured_grants, grant_history
from stackhand.kinds.postgres.access import Access
from stackhand.kinds.postgres.facts import Rights, Role, Server, unread
from stackhand.kinds.postgres.grant_history import GrantHistory
from stackhand.kinds.postgres.missing_grants import MissingGrants, missing_grants
from stackhand.settings import Role as ConfiguredRole


def check_grants(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check the rights of each role in each database that it uses. They are remembered where all is well."""
    access = Access.load(context, service)
    yield from unread(access.server, access.server.rights)
    for name, database in access.pairs():
        role, rights = access.server.role(name), access.server.rights.get(database)
        if not database:
            yield _no_database(name)
        if role is None or rights is None:
            continue  # other checks say so
        configured = access.configured.get(name)
        yield from _unreadable(name, configured)
        given = configured.grants if configured and access.database_of(configured) == database else ()
        history = access.history(name, database)
        missing = missing_grants(access.server, rights, role, history, given)
        fix = Fix(f"give back the rights of {name}@{database} in", partial(_give_back, access, database, missing))
        yield evaluate_grants(access.server, rights, role, missing, fix)
        if _is_settled(access.server, rights, missing, history):
            grant_history.save(context, service, grant_history.snapshot(access.server, rights, role), database, name)


def evaluate_grants(server: Server, rights: Rights, role: Role, missing: MissingGrants, fix: Fix) -> Verdict:
    """Return the verdict about the rights of one role in one database. `fix` is offered where it is certain."""
    subject = f"{role.name}@{rights.database}"
    if missing.certain or missing.configured:
        return fail(
            f"the role {role.name} lacks rights in {rights.database}",
            "; ".join(missing.reasons),
            "; ".join((*missing.certain, *missing.configured, *missing.doubtful)),
            subject=subject,
            fix=None if server.cluster.recovery else fix,
        )
    if missing.doubtful:
        return warn(
            f"the role {role.name} has fewer rights in {rights.database} than its default privileges or its past",
            "; ".join(missing.reasons),
            f"unless they were taken away on purpose: {'; '.join(missing.doubtful)}",
            subject=subject,
        )
    named = {*rights.owners, *(each.role for each in rights.held), *(each.role for each in rights.defaults)}
    if rights.closed and role.name not in named and not role.superuser and not role.member_of:
        return warn(
            f"the role {role.name} has no rights on anything in {rights.database}",
            "no table, sequence or function is granted to it, and no default privileges name it",
            f"say in fixes.roles.{role.name}.grants what it may do: SELECT ON ALL TABLES IN SCHEMA public",
            subject=subject,
        )
    return ok(f"{role.name} has its rights in {rights.database}", subject=subject)


def _give_back(access: Access, database: str, missing: MissingGrants) -> None:
    """Give a role what it certainly had, all of it or nothing, then each configured grant. Raises StackError."""
    access.execute(list(missing.certain), database)
    errors = []
    # Each in its own transaction: a wrong one does not keep the others back.
    for statement in missing.configured:
        try:
            access.execute([statement], database)
        except StackError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _is_settled(server: Server, rights: Rights, missing: MissingGrants, history: GrantHistory | None) -> bool:
    """Return whether the rights of a role are to be remembered as they are.

    Not where fewer are left than before with the same migrations: then what is remembered stays. Migrations that were
    applied since may have taken rights away on purpose.
    """
    if missing.certain or missing.configured or server.cluster.recovery:
        return False
    applied = grant_history.applied_migrations(server.migrations, rights.database)
    return not missing.doubtful or history is None or history.migrations != applied


def _no_database(role: str) -> Verdict:
    """Return the warning about a configured role whose database is not known."""
    return warn(
        f"it is not said which database the grants of {role} are for",
        remedy=f"set stackhand.fixes.roles.{role}.database",
        subject=role,
    )


def _unreadable(name: str, role: ConfiguredRole | None) -> Iterable[Verdict]:
    """Yield a warning for each configured grant that no SQL expression can check."""
    for grant in role.grants if role else ():
        if configured_grants.expression(name, grant) is None:
            yield warn(
                f"it cannot be told whether the grant of {name} is in effect: {grant}",
                remedy="write it as PRIVILEGES ON [ALL] TABLE|SEQUENCE|FUNCTION|SCHEMA|DATABASE …, or as a role's name",
                subject=f"{name}: {grant}",
            )
