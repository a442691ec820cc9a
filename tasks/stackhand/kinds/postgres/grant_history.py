"""What roles had when all was well, remembered from one run to the next: `.stackhand/grants.json`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import Default, Held, Migrations, Rights, Role, Server
from stackhand.kinds.postgres.psql import identifier, literal

_DOCUMENT = "grants"


class Known(msgspec.Struct, frozen=True):
    """What a role had when all was well. `data` names the server's data, `migrations` what was applied to it."""

    data: str
    migrations: str = ""
    connect: bool = False
    usage: tuple[str, ...] = ()
    granted: dict[str, tuple[str, ...]] = {}
    held: tuple[Held, ...] = ()
    defaults: tuple[Default, ...] = ()
    limit: int = -1
    settings: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()


def take(server: Server, rights: Rights, role: Role) -> Known:
    """Return what a role has now."""
    return Known(
        data=server.cluster.identifier,
        migrations=applied(server.migrations, rights.database),
        connect=role.name in rights.connect,
        usage=tuple(each.name for each in rights.spaces if role.name in each.usage),
        granted={each.name: each.granted[role.name] for each in rights.spaces if role.name in each.granted},
        held=tuple(sorted(each for each in rights.held if each.role == role.name)),
        defaults=tuple(sorted(each for each in rights.defaults if each.role == role.name)),
        limit=role.limit,
        settings=role.settings,
        member_of=role.member_of,
    )


def applied(tables: Iterable[Migrations], database: str) -> str:
    """Return what tells the migrations applied to a database from those of another time."""
    rows = [f"{each.schema}.{each.table} {row}" for each in tables if each.database == database for row in each.rows]
    return "\n".join(sorted(rows)) and f"{len(rows)} {hash_of(rows)}"


def hash_of(lines: Iterable[str]) -> str:
    """Return a short name for lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def save(context: CheckContext, service: str, history: Known, database: str, role: str) -> None:
    """Remember what a role has. A state folder that cannot be written to is no failure; a dry run remembers nothing."""

    def with_it(memory: dict[str, Any] | None) -> dict[str, Any]:
        of_service = (memory or {}).get(service, {})
        of_database = {**of_service.get(database, {}), role: msgspec.to_builtins(history)}
        return {**(memory or {}), service: {**of_service, database: of_database}}

    if not context.dry:
        with contextlib.suppress(StackError):
            context.state.update(_DOCUMENT, with_it)


def recall(context: CheckContext, service: str, database: str, role: str) -> Known | None:
    """Return what was remembered of a role, None where that is nothing or cannot be read."""
    found = context.state.recall(_DOCUMENT)
    for step in (service, database, role):
        found = found.get(step) if isinstance(found, Mapping) else None
    try:
        return msgspec.convert(found, Known) if found else None
    except msgspec.ValidationError:
        return None


def role_settings(name: str, history: Known) -> list[str]:
    """Return the statements that give a role that was made again its own settings."""
    found = [f"ALTER ROLE {identifier(name)} CONNECTION LIMIT {history.limit};"] if history.limit != -1 else []
    for setting in history.settings:
        variable, _, value = setting.partition("=")
        # A list (search_path) stands as it was written, anything else is one value.
        given = value if variable == "search_path" else literal(value)
        found.append(f"ALTER ROLE {identifier(name)} SET {identifier(variable)} TO {given};")
    return found
