"""Which rights a role lacks, how sure that is, and the statements that give them back.

A right is given back only where it certainly belongs to the role:
- `fixes.roles` says so; or
- the role had it when all was well, on the same data and with the same migrations applied; or
- nothing is remembered of the role, default privileges for that very schema give it, and nothing is left to it there.
Any other right may have been taken away on purpose: that is a warning with the exact statement.

Privileges: https://www.postgresql.org/docs/current/ddl-priv.html
Default privileges: https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from stackhand.kinds.postgres.configured_grants import grant_key
from stackhand.kinds.postgres.facts import Grant, Rights, Role, Server
from stackhand.kinds.postgres.grant_history import GrantHistory, applied_migrations
from stackhand.kinds.postgres.psql import identifier

_WHAT = {"r": "TABLE", "S": "SEQUENCE", "f": "FUNCTION"}
_NOUNS = {"r": "tables", "S": "sequences", "f": "functions"}

Certainty = Literal["certain", "configured", "doubtful"]


class Missing(NamedTuple):
    """One right that a role lacks: the statement that gives it, the reason for saying so, and how sure that is."""

    statement: str
    reason: str
    certainty: Certainty


class MissingGrants(msgspec.Struct, frozen=True):
    """The statements that give a role what it lacks, by certainty, and the reasons for all of them.

    `doubtful` are those whose rights may have been taken away on purpose.
    """

    certain: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, missing: Iterable[Missing]) -> MissingGrants:
        """Group them by certainty, each statement once."""
        found = list(missing)

        def statements(certainty: Certainty) -> tuple[str, ...]:
            return tuple(dict.fromkeys(each.statement for each in found if each.certainty == certainty))

        reasons = tuple(dict.fromkeys(each.reason for each in found))
        return cls(statements("certain"), statements("configured"), statements("doubtful"), reasons)


class _Compared(NamedTuple):
    """A role in one database, now and when all was well.

    `history` is None where nothing is remembered of this data; `same` says that no migration was applied since.
    """

    role: Role
    rights: Rights
    history: GrantHistory | None
    same: bool

    @property
    def held(self) -> list[Grant]:
        """The grants that the role has now."""
        return [grant for grant in self.rights.held if grant.role == self.role.name]

    @property
    def schemas_held(self) -> set[str]:
        """The schemas in which the role still has something."""
        return {grant.schema for grant in self.held}

    def is_bound(self, schema: str) -> bool:
        """Return whether default privileges name the role for this very schema."""
        return any(each.role == self.role.name and each.schema == schema for each in self.rights.defaults)

    def had(self, grant: Grant, name: str) -> bool:
        """Return whether the role had all privileges of a grant on one object, with the migrations of now."""
        if self.history is None or not self.same:
            return False
        privileges = {
            privilege
            for other in self.history.held
            if (other.schema, other.kind) == (grant.schema, grant.kind) and name in other.names
            for privilege in other.privileges
        }
        return privileges.issuperset(grant.privileges)


def missing_grants(
    server: Server, rights: Rights, role: Role, history: GrantHistory | None, configured: Sequence[str] = ()
) -> MissingGrants:
    """Return what a role lacks in one database. `configured` are its grants in `fixes.roles`."""
    if role.superuser:
        return MissingGrants()
    history = history if history and history.data == server.cluster.identifier else None
    same = history is not None and history.migrations == applied_migrations(server.migrations, rights.database)
    compared = _Compared(role, rights, history, same)
    lost = [*_by_default(compared), *_by_memory(compared)]
    return MissingGrants.of(
        (
            *_connect(compared),
            *_usage(compared, {grant.schema for grant, _ in lost}),
            *_objects(compared, lost),
            *_schemas_and_memberships(compared),
            *_configured(compared, configured),
        )
    )


def _certainty(certain: bool) -> Certainty:
    return "certain" if certain else "doubtful"


def _connect(compared: _Compared) -> Iterator[Missing]:
    """Yield CONNECT on the database. Where nothing is remembered it is certain: the client wants to log in there."""
    role, rights, history, same = compared
    if role.name not in rights.connect:
        yield Missing(
            f"GRANT CONNECT ON DATABASE {identifier(rights.database)} TO {identifier(role.name)}",
            f"it may not connect to {rights.database}",
            _certainty(history is None or (same and history.connect)),
        )


def _usage(compared: _Compared, lost: set[str]) -> Iterator[Missing]:
    """Yield USAGE on each schema in which the role has, gets by default or has lost something, or that it could use."""
    role, rights, history, same = compared
    schemas = compared.schemas_held | lost
    schemas |= {each.schema for each in rights.defaults if each.role == role.name and each.schema}
    if history and same:
        schemas |= set(history.usage) & {space.name for space in rights.schemas}
    for schema in sorted(schemas):
        if role.name not in rights.schema(schema).usage:
            if history:
                certain = same and schema in history.usage
            else:
                certain = compared.is_bound(schema) and schema not in compared.schemas_held
            statement = f"GRANT USAGE ON SCHEMA {schema} TO {identifier(role.name)}"
            yield Missing(statement, f"it may not use the schema {schema}", _certainty(certain))


def _objects(compared: _Compared, lost: Iterable[tuple[Grant, bool]]) -> Iterator[Missing]:
    """Yield the rights on tables, sequences and functions that are in `lost`, each with whether it is certain."""
    for grant, certain in lost:
        objects = ", ".join(f"{grant.schema}.{name}" for name in grant.names)
        privileges = ", ".join(grant.privileges)
        shown = ", ".join(grant.names[:3]) + (f" and {len(grant.names) - 3} more" if len(grant.names) > 3 else "")
        yield Missing(
            f"GRANT {privileges} ON {_WHAT[grant.kind]} {objects} TO {identifier(grant.role)}",
            f"it lacks {privileges} on the {_NOUNS[grant.kind]} {shown} in {grant.schema}",
            _certainty(certain),
        )


def _by_default(compared: _Compared) -> Iterator[tuple[Grant, bool]]:
    """Yield what default privileges give and the role does not have, each with whether it is certain.

    Default privileges only apply to objects that are created later. So what the role had with these migrations decides.
    Where nothing is remembered of it, a loss is certain only when they are for this very schema, nothing in it is left
    to the role, and no other role lacks the same: objects that several roles lack are older than the default
    privileges, or closed on purpose.
    """
    missing = compared.rights.missing
    for grant in missing:
        if grant.role != compared.role.name:
            continue
        if compared.history is None and grant.schema not in compared.schemas_held and compared.is_bound(grant.schema):
            yield grant, not any(_is_the_same_of_another(other, grant) for other in missing)
            continue
        had = tuple(name for name in grant.names if compared.had(grant, name))
        others = tuple(name for name in grant.names if name not in had)
        for names, certain in ((had, True), (others, False)):
            if names:
                yield msgspec.structs.replace(grant, names=names), certain


def _is_the_same_of_another(other: Grant, grant: Grant) -> bool:
    """Return whether another role lacks rights on some of the same objects."""
    return other.role != grant.role and other.schema == grant.schema and bool(set(other.names) & set(grant.names))


def _by_memory(compared: _Compared) -> Iterator[tuple[Grant, bool]]:
    """Yield what the role had, does not have, and no default privilege gives, each with whether it is certain.

    It is certain where nothing in the schema is left to the role, and no migration was applied since.
    """
    role, rights, history, same = compared
    exists = {(each.schema, each.kind): set(each.names) for each in rights.objects}
    has = {
        (grant.schema, grant.kind, name, privilege)
        for grant in (*rights.held, *rights.missing)
        if grant.role == role.name
        for name in grant.names
        for privilege in grant.privileges
    }
    for grant in history.held if history else ():
        is_whole_loss = grant.schema not in compared.schemas_held
        if not is_whole_loss and not same:
            continue
        lost: dict[tuple[str, ...], list[str]] = {}
        for name in grant.names:
            gone = tuple(word for word in grant.privileges if (grant.schema, grant.kind, name, word) not in has)
            if gone and name in exists.get((grant.schema, grant.kind), ()):
                lost.setdefault(gone, []).append(name)
        for privileges, names in lost.items():
            yield Grant(role.name, grant.schema, grant.kind, privileges, tuple(names)), is_whole_loss and same


def _schemas_and_memberships(compared: _Compared) -> Iterator[Missing]:
    """Yield what else the role had with these migrations: rights on schemas, default privileges, memberships.

    They are certain where nothing is left to the role in the whole database: it was created again.
    """
    role, rights, history, same = compared
    if history is None or not same:
        return
    name = identifier(role.name)
    statements = []
    for space in rights.schemas:
        has = {*space.granted.get(role.name, ()), "USAGE"}
        if gone := [word for word in history.granted.get(space.name, ()) if word not in has]:
            statements.append(f"GRANT {', '.join(gone)} ON SCHEMA {space.name} TO {name}")
    for default in history.defaults:
        if default not in rights.defaults:
            schema = f" IN SCHEMA {default.schema}" if default.schema else ""
            statements.append(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {identifier(default.owner)}{schema}"
                f" GRANT {', '.join(default.privileges)} ON {_WHAT[default.kind]}S TO {name}"
            )
    statements += [f"GRANT {identifier(group)} TO {name}" for group in history.member_of if group not in role.member_of]
    is_empty = not compared.held and role.name not in rights.owners
    reason = "rights on schemas, default privileges or memberships are gone"
    yield from (Missing(statement, reason, _certainty(is_empty)) for statement in statements)


def _configured(compared: _Compared, configured: Iterable[str]) -> Iterator[Missing]:
    """Yield the grants of `fixes.roles` that are not in effect."""
    name = compared.role.name
    for grant in configured:
        if compared.rights.configured.get(grant_key(name, grant)) is False:
            yield Missing(f"GRANT {grant} TO {identifier(name)}", f"fixes.roles gives it {grant}", "configured")
