"""What roles had when all was well, remembered from one run to the next: `.stackhand/grants.json`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import Default, Grant, Migrations, Rights, Role, Server
from stackhand.kinds.postgres.psql import identifier, literal

_DOCUMENT = "grants"


class GrantHistory(msgspec.Struct, frozen=True):
    """What a role had in one database when all was well.

    `data` is the system identifier of the server's data, `migrations` names what was applied to the database.
    """

    data: str
    migrations: str = ""
    connect: bool = False
    usage: tuple[str, ...] = ()
    granted: dict[str, tuple[str, ...]] = {}
    held: tuple[Grant, ...] = ()
    defaults: tuple[Default, ...] = ()
    limit: int = -1
    settings: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()


def snapshot(server: Server, rights: Rights, role: Role) -> GrantHistory:
    """Return what a role has now."""
    return GrantHistory(
        data=server.cluster.identifier,
        migrations=applied_migrations(server.migrations, rights.database),
        connect=role.name in rights.connect,
        usage=tuple(each.name for each in rights.schemas if role.name in each.usage),
        granted={each.name: each.granted[role.name] for each in rights.schemas if role.name in each.granted},
        held=tuple(sorted(each for each in rights.held if each.role == role.name)),
        defaults=tuple(sorted(each for each in rights.defaults if each.role == role.name)),
        limit=role.limit,
        settings=role.settings,
        member_of=role.member_of,
    )


def applied_migrations(tables: Iterable[Migrations], database: str) -> str:
    """Return a short name for the set of migrations that are applied to a database."""
    rows = [f"{each.schema}.{each.table} {row}" for each in tables if each.database == database for row in each.rows]
    return "\n".join(sorted(rows)) and f"{len(rows)} {hash_of(rows)}"


def hash_of(lines: Iterable[str]) -> str:
    """Return a short hash of lines, whatever their order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def save(context: CheckContext, service: str, history: GrantHistory, database: str, role: str) -> None:
    """Remember what a role has, except in a dry run. A state folder that cannot be written to is no failure."""

    def with_it(memory: dict[str, Any] | None) -> dict[str, Any]:
        of_service = (memory or {}).get(service, {})
        of_database = {**of_service.get(database, {}), role: msgspec.to_builtins(history)}
        return {**(memory or {}), service: {**of_service, database: of_database}}

    if not context.dry:
        with contextlib.suppress(StackError):
            context.state.update(_DOCUMENT, with_it)


def load(context: CheckContext, service: str, database: str, role: str) -> GrantHistory | None:
    """Return what is remembered of a role, None where that is nothing or cannot be read."""
    found = context.state.recall(_DOCUMENT)
    for step in (service, database, role):
        found = found.get(step) if isinstance(found, Mapping) else None
    try:
        return msgspec.convert(found, GrantHistory) if found else None
    except msgspec.ValidationError:
        return None


def role_settings(name: str, history: GrantHistory) -> list[str]:
    """Return the statements that give its settings back to a role that was created again."""
    found = [f"ALTER ROLE {identifier(name)} CONNECTION LIMIT {history.limit};"] if history.limit != -1 else []
    for setting in history.settings:
        variable, _, value = setting.partition("=")
        # search_path is a list, written as it was; any other setting is one value.
        given = value if variable == "search_path" else literal(value)
        found.append(f"ALTER ROLE {identifier(name)} SET {identifier(variable)} TO {given};")
    return found
