"""Checks and fixes of a Postgres server's databases phase: roles, lookups of a PgBouncer, rights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.errors import StackError, did_you_mean
from stackhand.kinds.postgres import auth_query as lookups
from stackhand.kinds.postgres import grants, roles
from stackhand.kinds.postgres.facts import Function, Rights, Role, Server, unread
from stackhand.kinds.postgres.logins import ATTEMPTS, POSTGRES, Attempt, Links, Login, links, recovers
from stackhand.kinds.postgres.psql import Admin, accounts
from stackhand.kinds.postgres.roles import Wanted
from stackhand.model import Finding
from stackhand.settings import Role as Configured

ADMIN, GRANTS = "postgres.admin", "postgres.grants"
_MEMORY = "grants"


@dataclass(frozen=True)
class Access:
    """What the checks of this phase read: the server, who connects to it, and what is configured for it."""

    context: CheckContext
    service: str
    server: Server
    links: Links
    configured: dict[str, Configured]

    @classmethod
    def of(cls, kind: Kind[Server], context: CheckContext, service: str) -> Access:
        """Return it for one service. Raises NoAnswer."""
        return cls(
            context, service, context.facts(kind, service), links(context, service), configured(context, service)
        )

    @property
    def admin(self) -> Admin:
        """As whom it is administered. Raises StackError where nobody may."""
        if self.server.admin is None:
            raise StackError(self.server.denied)
        return self.server.admin

    def wanted(self) -> list[Wanted]:
        """Return the roles that have to be there."""
        files = self.context.project.secret_files
        passwords: dict[str, str] = {}
        for name, each in self.configured.items():
            passwords[name] = ""
            with contextlib.suppress(OSError, KeyError, UnicodeDecodeError):
                passwords[name] = files[each.secret].read_text(encoding="utf-8").strip() if each.secret else ""
        return roles.wanted(self.links, passwords, accounts(self.context, self.service))

    def tried(self) -> Mapping[Login, Attempt]:
        """Return what came of all logins."""
        return self.context.facts(ATTEMPTS, self.service)

    def pairs(self) -> list[tuple[str, str]]:
        """Return each role with each database that its rights are looked at in."""
        own = [(name, self.database_of(each)) for name, each in self.configured.items() if each.grants]
        return list(dict.fromkeys([*self.links.pairs(), *own]))

    def database_of(self, role: Configured) -> str:
        """Return the database that a configured role's grants are for, "" where that cannot be told."""
        known = self.links.databases
        return role.database or (known[0] if len(known) == 1 else "")

    def known(self, role: str, database: str) -> grants.Known | None:
        """Return what is remembered of a role, of this server's data."""
        found = grants.recall(self.context.state.recall(_MEMORY), self.service, database, role)
        return found if found and found.data == self.server.cluster.identifier else None

    def lack(self, role: Role, rights: Rights) -> grants.Lack:
        """Return what a role lacks in a database."""
        asked = self.configured.get(role.name)
        given = asked.grants if asked and self.database_of(asked) == rights.database else ()
        return grants.lack(self.server, rights, role, self.known(role.name, rights.database), given)


def configured(context: CheckContext, service: str) -> dict[str, Configured]:
    """Return the roles of `fixes.roles` that are of this server: those that name it, or no other where it is alone."""
    alone = context.kinds.services(POSTGRES) == [service]
    return {
        name: role
        for name, role in context.settings.roles.items()
        if role.server == service or (alone and not role.server)
    }


class Judges:
    """The checks, each with the kind whose facts it reads."""

    def __init__(self, kind: Kind[Server]) -> None:
        self._kind = kind

    def checks(self) -> list[Check]:
        """Return the checks of this phase, in the order in which their findings are put right."""
        return [
            Check(ADMIN, "databases", self.administered),
            Check(roles.ROLE, "databases", self.roles),
            Check(roles.ORPHANS, "databases", self.orphans),
            Check(lookups.AUTH, "databases", self.lookups),
            Check(GRANTS, "databases", self.grants),
        ]

    def fixes(self) -> dict[str, Fix]:
        """Return what can be put right."""
        return {
            roles.ROLE: Fix("put right the role {subject} in", self.repair_role),
            roles.ORPHANS: Fix("end the sessions of dropped roles in", self.end_orphans),
            lookups.AUTH: Fix("restore the lookup of passwords by {subject} in", self.repair_lookup),
            GRANTS: Fix("give back the rights of {subject} in", self.repair_grants),
        }

    def administered(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Tell where roles and rights cannot be looked at."""
        server = context.facts(self._kind, service)
        if server.admin is None:
            yield Finding(
                ADMIN,
                service,
                "databases",
                "skip",
                "roles, rights and indexes were not looked at: nobody in the container may administer the database",
                evidence=server.denied,
                remedy="let the container's own account in through the local socket (pg_hba.conf: local all all peer)",
            )

    def roles(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Judge each role that has to be there."""
        yield from _misnamed(context, service)
        access = Access.of(self._kind, context, service)
        if access.server.admin is None:
            return
        try:
            tried: Mapping[Login, Attempt] = access.tried()
        except NoAnswer:
            tried = {}
        for want in access.wanted():
            yield roles.judge(service, access.server, want, tried)

    def orphans(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Judge the sessions of roles that are gone."""
        return roles.judge_orphans(service, context.facts(self._kind, service))

    def lookups(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Judge whether each PgBouncer can look up passwords."""
        access = Access.of(self._kind, context, service)
        if access.links.lookups:
            yield from unread(lookups.AUTH, service, "databases", access.server, access.server.rights)
        for lookup in access.links.lookups:
            yield from lookups.judge(service, access.server, lookup)

    def grants(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Judge the rights of each role in each database that it uses; where all is well, remember them."""
        access = Access.of(self._kind, context, service)
        yield from unread(GRANTS, service, "databases", access.server, access.server.rights)
        for name, database in access.pairs():
            role, rights = access.server.role(name), access.server.rights.get(database)
            if not database:
                yield _which(service, name)
            if role is None or rights is None:
                continue  # told by other checks
            yield from _untold(service, access.configured.get(name), name)
            lack = access.lack(role, rights)
            known = access.known(name, database)
            yield judge_grants(service, access.server, rights, role, lack, known)
            if _settled(access.server, rights, lack, known):
                _remember(context, service, database, name, grants.remember(access.server, rights, role))

    def repair_role(self, context: CheckContext, finding: Finding) -> None:
        """Make a role as it has to be."""
        access = Access.of(self._kind, context, finding.service or "")
        want = next((each for each in access.wanted() if each.name == finding.subject), None)
        if want is None:
            return
        logins = [each for each in access.links.direct if each.role == want.name and each.password]
        known = next(filter(None, (access.known(want.name, each.database) for each in logins)), None)
        roles.repair(context, access.service, access.server, want, known)
        recovers(context, access.service)

    def end_orphans(self, context: CheckContext, finding: Finding) -> None:
        """End the sessions of dropped roles."""
        access = Access.of(self._kind, context, finding.service or "")
        roles.end_orphans(context, access.service, access.admin)

    def repair_lookup(self, context: CheckContext, finding: Finding) -> None:
        """Give a PgBouncer's role what its auth_query needs; all of it or nothing."""
        access = Access.of(self._kind, context, finding.service or "")
        for lookup in access.links.lookups:
            call, rights = lookups.parse(lookup.query), access.server.rights.get(lookup.database)
            if f"{lookup.role}@{lookup.database}" == finding.subject and call and rights:
                # A role that was made a moment ago has none of it, whatever was seen before.
                bare = msgspec.structs.replace(rights, connect=(), spaces=(), functions=_uncalled(rights))
                missing = access.server.role(lookup.role) is None
                statements = [each for _, each in lookups.lacking(bare if missing else rights, lookup, call)]
                _transaction(access, lookup.database, statements)
                recovers(context, access.service)

    def repair_grants(self, context: CheckContext, finding: Finding) -> None:
        """Give a role what it certainly had; all of it or nothing."""
        access = Access.of(self._kind, context, finding.service or "")
        for name, database in access.pairs():
            role, rights = access.server.role(name), access.server.rights.get(database)
            if f"{name}@{database}" == finding.subject and role and rights:
                lack = access.lack(role, rights)
                _transaction(access, database, lack.certain)
                # Each by itself: one that was written wrong keeps none of the others back.
                errors = [error for each in lack.configured if (error := _error(access, database, each))]
                if errors:
                    raise errors[0]


def _uncalled(rights: Rights) -> tuple[Function, ...]:
    return tuple(msgspec.structs.replace(each, execute=()) for each in rights.functions)


def _transaction(access: Access, database: str, statements: Iterable[str]) -> None:
    text = "".join(f"{each};\n" for each in statements)
    if text:
        access.admin.execute(access.context, access.service, f"BEGIN;\n{text}COMMIT;", database)


def _error(access: Access, database: str, statement: str) -> StackError | None:
    try:
        _transaction(access, database, [statement])
    except StackError as error:
        return error
    return None


def judge_grants(
    service: str, server: Server, rights: Rights, role: Role, lack: grants.Lack, known: grants.Known | None
) -> Finding:
    """Return the finding about the rights of one role in one database."""
    subject = f"{role.name}@{rights.database}"
    if lack.certain or lack.configured:
        return Finding(
            GRANTS,
            service,
            "databases",
            "fail",
            f"the role {role.name} lacks rights in {rights.database}",
            evidence="; ".join(lack.reasons),
            remedy="; ".join((*lack.certain, *lack.configured, *lack.doubtful)),
            fixable=not server.cluster.recovery,
            subject=subject,
        )
    if lack.doubtful:
        return Finding(
            GRANTS,
            service,
            "databases",
            "warn",
            f"the role {role.name} has fewer rights in {rights.database} than its default privileges or its past",
            evidence="; ".join(lack.reasons),
            remedy=f"where nobody meant it so: {'; '.join(lack.doubtful)}",
            subject=subject,
        )
    named = {each.role for each in rights.held} | {each.role for each in rights.defaults}
    if rights.closed and role.name not in (*named, *rights.owners) and not role.superuser and not role.member_of:
        return Finding(
            GRANTS,
            service,
            "databases",
            "warn",
            f"the role {role.name} has no rights on anything in {rights.database}",
            evidence="no table, sequence or function is granted to it, and no default privileges name it",
            remedy=f"say in fixes.roles.{role.name}.grants what it may do: SELECT ON ALL TABLES IN SCHEMA public",
            subject=subject,
        )
    return Finding(
        GRANTS, service, "databases", "ok", f"{role.name} has its rights in {rights.database}", subject=subject
    )


def _settled(server: Server, rights: Rights, lack: grants.Lack, known: grants.Known | None) -> bool:
    """Return whether what a role has now is what it is to have.

    Where less than before is left and the same migrations are applied, the memory of before is kept; migrations that
    were applied since have made a new state.
    """
    if lack.certain or lack.configured or server.cluster.recovery:
        return False
    applied = grants.applied(server.migrations, rights.database)
    return not lack.doubtful or known is None or known.migrations != applied


def _remember(context: CheckContext, service: str, database: str, role: str, known: grants.Known) -> None:
    def with_it(memory: dict[str, Any] | None) -> dict[str, Any]:
        of_service = (memory or {}).get(service, {})
        of_database = {**of_service.get(database, {}), role: msgspec.to_builtins(known)}
        return {**(memory or {}), service: {**of_service, database: of_database}}

    if not context.dry:
        with contextlib.suppress(StackError):
            context.state.update(_MEMORY, with_it)


def _misnamed(context: CheckContext, service: str) -> Iterable[Finding]:
    """Tell of configured roles whose server or secret there is not; once, at the first server."""
    servers = context.kinds.services(POSTGRES)
    for name, role in context.settings.roles.items() if service == servers[0] else ():
        for key, value, known in (
            ("server", role.server, servers),
            ("secret", role.secret, list(context.project.secret_files)),
        ):
            if value and value not in known:
                yield Finding(
                    roles.ROLE,
                    service,
                    "databases",
                    "warn",
                    f"fixes.roles.{name}.{key} names {value}, and there is no such {key}",
                    remedy=did_you_mean(value, known, f"{key}s"),
                    subject=f"fixes.roles.{name}.{key}",
                )


def _which(service: str, role: str) -> Finding:
    return Finding(
        GRANTS,
        service,
        "databases",
        "warn",
        f"it is not said which database the grants of {role} are for",
        remedy=f"set stackhand.fixes.roles.{role}.database",
        subject=role,
    )


def _untold(service: str, role: Configured | None, name: str) -> Iterable[Finding]:
    for grant in role.grants if role else ():
        if grants.expression(name, grant) is None:
            yield Finding(
                GRANTS,
                service,
                "databases",
                "warn",
                f"it cannot be told whether the grant of {name} is in effect: {grant}",
                remedy="write it as PRIVILEGES ON [ALL] TABLE|SEQUENCE|FUNCTION|SCHEMA|DATABASE …, or as a role's name",
                subject=f"{name}: {grant}",
            )
