"""The check of rights: each role has what it needs in each database that it uses, and gets back what it surely had."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres import configured_grants, grant_history
from stackhand.kinds.postgres.access import Access
from stackhand.kinds.postgres.facts import Rights, Role, Server, unread
from stackhand.kinds.postgres.grant_history import Known
from stackhand.kinds.postgres.missing_grants import Lack, missing_grants
from stackhand.settings import Role as Configured


def check_grants(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check the rights of each role in each database that it uses. Where all is well, they are remembered."""
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
        lack = missing_grants(access.server, rights, role, history, given)
        fix = Fix(f"give back the rights of {name}@{database} in", partial(_give_back, access, database, lack))
        yield evaluate_grants(access.server, rights, role, lack, fix)
        if _is_settled(access.server, rights, lack, history):
            grant_history.save(context, service, grant_history.take(access.server, rights, role), database, name)


def evaluate_grants(server: Server, rights: Rights, role: Role, lack: Lack, fix: Fix) -> Verdict:
    """Return the verdict about the rights of one role in one database. `fix` is offered where it is certain."""
    subject = f"{role.name}@{rights.database}"
    if lack.certain or lack.configured:
        return fail(
            f"the role {role.name} lacks rights in {rights.database}",
            "; ".join(lack.reasons),
            "; ".join((*lack.certain, *lack.configured, *lack.doubtful)),
            subject=subject,
            fix=None if server.cluster.recovery else fix,
        )
    if lack.doubtful:
        return warn(
            f"the role {role.name} has fewer rights in {rights.database} than its default privileges or its past",
            "; ".join(lack.reasons),
            f"where nobody meant it so: {'; '.join(lack.doubtful)}",
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


def _give_back(access: Access, database: str, lack: Lack) -> None:
    """Give a role what it certainly had, all of it or nothing, then each configured grant. Raises StackError."""
    access.execute(list(lack.certain), database)
    errors = []
    # Each by itself: one that was written wrong keeps none of the others back.
    for statement in lack.configured:
        try:
            access.execute([statement], database)
        except StackError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _is_settled(server: Server, rights: Rights, lack: Lack, history: Known | None) -> bool:
    """Return whether what a role has now is what it is to have.

    Where less than before is left and the same migrations are applied, the memory of before is kept; migrations that
    were applied since have made a new state.
    """
    if lack.certain or lack.configured or server.cluster.recovery:
        return False
    applied = grant_history.applied(server.migrations, rights.database)
    return not lack.doubtful or history is None or history.migrations != applied


def _no_database(role: str) -> Verdict:
    return warn(
        f"it is not said which database the grants of {role} are for",
        remedy=f"set stackhand.fixes.roles.{role}.database",
        subject=role,
    )


def _unreadable(name: str, role: Configured | None) -> Iterable[Verdict]:
    """Yield a warning for each configured grant that no SQL expression can check."""
    for grant in role.grants if role else ():
        if configured_grants.expression(name, grant) is None:
            yield warn(
                f"it cannot be told whether the grant of {name} is in effect: {grant}",
                remedy="write it as PRIVILEGES ON [ALL] TABLE|SEQUENCE|FUNCTION|SCHEMA|DATABASE …, or as a role's name",
                subject=f"{name}: {grant}",
            )
