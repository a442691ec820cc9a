"""PgBouncer's auth_query: its role may call the function, and the function is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from stackhand.checks.check import Fix, Verdict, fail, ok
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.access import Access
from stackhand.kinds.postgres.facts import Rights, Server, unread
from stackhand.kinds.postgres.login_attempts import expect_recovery
from stackhand.kinds.postgres.login_map import AuthQuery
from stackhand.kinds.postgres.psql import identifier

_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_QUERY = re.compile(
    rf"\s*SELECT\s+(?P<columns>.+?)\s+FROM\s+(?:(?P<schema>{_NAME})\s*\.\s*)?(?P<name>{_NAME})\s*\(\s*\$1(?:::\w+)?\s*\)\s*;?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Call:
    """The function that an auth_query calls, and the columns that it asks for. Names are plain; a schema may be ""."""

    schema: str
    name: str
    columns: tuple[str, str]


def parse(query: str) -> Call | None:
    """Return the call of an auth_query, None where it is something else.

    >>> parse("SELECT usename, passwd FROM pgbouncer.user_lookup($1)")
    Call(schema='pgbouncer', name='user_lookup', columns=('usename', 'passwd'))
    >>> parse("SELECT usename, passwd FROM pg_shadow WHERE usename = $1")
    """
    found = _QUERY.fullmatch(query)
    if not found:
        return None
    columns = [column.strip() for column in found["columns"].split(",")]
    if columns == ["*"]:
        # The order counts, not the names; these are those of PgBouncer's manual.
        columns = ["uname", "phash"]
    if len(columns) != 2 or not all(re.fullmatch(_NAME, column) for column in columns):
        return None
    first, second = map(_plain, columns)
    return Call(_plain(found["schema"] or ""), _plain(found["name"]), (first, second))


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def check_auth_query(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that each PgBouncer of the server can look up passwords."""
    access = Access.load(context, service)
    if access.links.lookups:
        yield from unread(access.server, access.server.rights)
    for lookup in access.links.lookups:
        does = f"restore the lookup of passwords by {lookup.role}@{lookup.database} in"
        yield from evaluate_auth_query(access.server, lookup, Fix(does, partial(_restore, access, lookup)))


def evaluate_auth_query(server: Server, lookup: AuthQuery, fix: Fix) -> Iterable[Verdict]:
    """Return the verdict about one PgBouncer's lookups in one database; none where its query calls no function.

    Logging in through PgBouncer tells whether such a query works.
    """
    rights, call = _rights(server, lookup), parse(lookup.query)
    if rights is None or call is None:
        return
    subject = f"{lookup.role}@{lookup.database}"
    lacks = lacking(rights, lookup, call)
    if not lacks:
        yield ok(f"{lookup.service} can look up passwords in {lookup.database}", subject=subject)
        return
    there = [each for each in rights.functions if each.name == call.name and call.schema in ("", each.schema)]
    role = server.role(lookup.role)
    # Where the query names no schema, which one is meant is the database's own business.
    certain = bool(call.schema) or bool(there)
    yield fail(
        f"{lookup.service} cannot look up passwords in {lookup.database}",
        f"auth_query: {lookup.query}; {'; '.join(why for why, _ in lacks)}",
        "; ".join(" ".join(statement.split()) for _, statement in lacks),
        subject=subject,
        fix=fix if certain and not server.cluster.recovery and not (role and role.superuser) else None,
    )


def _restore(access: Access, lookup: AuthQuery) -> None:
    """Give a PgBouncer's role what its auth_query needs; all of it or nothing. Raises StackError."""
    rights, call = _rights(access.server, lookup), parse(lookup.query)
    if rights is not None and call is not None:
        access.execute([statement for _, statement in lacking(rights, lookup, call)], lookup.database)
        expect_recovery(access.context, access.service)


def _rights(server: Server, lookup: AuthQuery) -> Rights | None:
    """Return the rights in a lookup's database. A role that is missing has none: one made again gets all of them."""
    rights = server.rights.get(lookup.database)
    if rights is None or server.role(lookup.role) is not None:
        return rights
    closed = tuple(replace(each, execute=()) for each in rights.functions)
    return replace(rights, connect=(), spaces=(), functions=closed)


def lacking(rights: Rights, lookup: AuthQuery, call: Call) -> list[tuple[str, str]]:
    """Return what a lookup needs and does not have: why, and the statement."""
    role, found = identifier(lookup.role), []
    if lookup.role not in rights.connect:
        why = f"{lookup.role} may not connect"
        found.append((why, f"GRANT CONNECT ON DATABASE {identifier(lookup.database)} TO {role}"))
    functions = [each for each in rights.functions if each.name == call.name and call.schema in ("", each.schema)]
    schema = identifier(functions[0].schema if functions else call.schema or "public")
    if not functions:
        found.append((f"there is no function {call.schema or 'public'}.{call.name} with one argument", create(call)))
    # quote_ident leaves away quotes that are not needed.
    space = next((each for each in rights.spaces if each.name.strip('"') == schema.strip('"')), None)
    if space is None or lookup.role not in space.usage:
        found.append((f"{lookup.role} may not use the schema", f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    if not functions or lookup.role not in functions[0].execute:
        signature = functions[0].signature if functions else f"{schema}.{identifier(call.name)}(text)"
        found.append((f"{lookup.role} may not execute it", f"GRANT EXECUTE ON FUNCTION {signature} TO {role}"))
    return found


def create(call: Call) -> str:
    """Return the statements that make the function: it runs as its owner, and never hands out a superuser."""
    schema = identifier(call.schema or "public")
    function = f"{schema}.{identifier(call.name)}"
    first, second = map(identifier, call.columns)
    return f"""CREATE SCHEMA IF NOT EXISTS {schema};
        CREATE FUNCTION {function}(text) RETURNS TABLE ({first} text, {second} text)
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
            AS $$ SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid
                WHERE rolname = $1 AND rolcanlogin AND NOT rolsuper $$;
        REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC"""
