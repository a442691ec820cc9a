"""PgBouncer's auth_query: the function that it calls exists, and its role may call it.

https://www.pgbouncer.org/config.html#auth_query
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from stackhand.checks.check import Fix, Verdict, fail, ok
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.access import Access
from stackhand.kinds.postgres.facts import Function, Rights, Server, unread
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
    """The function that an auth_query calls, and its columns. Names are not quoted; a schema may be ""."""

    schema: str
    name: str
    columns: tuple[str, str]


def parse(query: str) -> Call | None:
    """Return the call of an auth_query, None where the query is of another form.

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
    """Return an SQL name without its quotes; one that is not quoted is in lower case."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def check_auth_query(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that each PgBouncer of the server can look up passwords."""
    access = Access.load(context, service)
    if access.login_map.auth_queries:
        yield from unread(access.server, access.server.rights)
    by_subject: dict[str, list[AuthQuery]] = {}
    for auth_query in access.login_map.auth_queries:
        by_subject.setdefault(f"{auth_query.role}@{auth_query.database}", []).append(auth_query)
    for subject, auth_queries in by_subject.items():
        # Several PgBouncers may look up passwords as one role: one fix restores it for all of them.
        fix = Fix(f"restore the lookup of passwords by {subject} in", partial(_restore, access, auth_queries))
        for auth_query in auth_queries:
            yield from evaluate_auth_query(access.server, auth_query, fix)


def evaluate_auth_query(server: Server, auth_query: AuthQuery, fix: Fix) -> Iterable[Verdict]:
    """Return the verdict about one PgBouncer's lookups in one database; none where its query calls no function.

    Logging in through PgBouncer tells whether such a query works.
    """
    rights, call = _rights(server, auth_query), parse(auth_query.query)
    if rights is None or call is None:
        return
    subject = f"{auth_query.role}@{auth_query.database}"
    missing = missing_rights(rights, auth_query, call)
    if not missing:
        yield ok(f"{auth_query.service} can look up passwords in {auth_query.database}", subject=subject)
        return
    role = server.role(auth_query.role)
    # A query without a schema does not say where a missing function belongs.
    certain = bool(call.schema) or bool(_functions(rights, call))
    yield fail(
        f"{auth_query.service} cannot look up passwords in {auth_query.database}",
        f"auth_query: {auth_query.query}; {'; '.join(why for why, _ in missing)}",
        "; ".join(" ".join(statement.split()) for _, statement in missing),
        subject=subject,
        fix=fix if certain and not server.cluster.recovery and not (role and role.superuser) else None,
    )


def _restore(access: Access, auth_queries: Sequence[AuthQuery]) -> None:
    """Give a role what the auth_queries of its PgBouncers need; all of it or nothing. Raises StackError."""
    statements: list[str] = []
    for auth_query in auth_queries:
        rights, call = _rights(access.server, auth_query), parse(auth_query.query)
        if rights is not None and call is not None:
            statements += [statement for _, statement in missing_rights(rights, auth_query, call)]
    if statements:
        access.execute(list(dict.fromkeys(statements)), auth_queries[0].database)
        expect_recovery(access.context, access.service)


def _rights(server: Server, auth_query: AuthQuery) -> Rights | None:
    """Return the rights in a lookup's database. A missing role has none: it gets all of them once it exists again."""
    rights = server.rights.get(auth_query.database)
    if rights is None or server.role(auth_query.role) is not None:
        return rights
    closed = tuple(replace(each, execute=()) for each in rights.functions)
    return replace(rights, connect=(), schemas=(), functions=closed)


def missing_rights(rights: Rights, auth_query: AuthQuery, call: Call) -> list[tuple[str, str]]:
    """Return what a lookup needs and does not have: for each thing the reason and the statement that gives it."""
    role, missing = identifier(auth_query.role), []
    if auth_query.role not in rights.connect:
        why = f"{auth_query.role} may not connect"
        missing.append((why, f"GRANT CONNECT ON DATABASE {identifier(auth_query.database)} TO {role}"))
    functions = _functions(rights, call)
    schema = identifier(functions[0].schema if functions else call.schema or "public")
    if not functions:
        missing.append((f"there is no function {call.schema or 'public'}.{call.name} with one argument", create(call)))
    # quote_ident leaves out quotes that are not needed.
    info = next((each for each in rights.schemas if each.name.strip('"') == schema.strip('"')), None)
    if info is None or auth_query.role not in info.usage:
        missing.append((f"{auth_query.role} may not use the schema", f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
    if not functions or auth_query.role not in functions[0].execute:
        signature = functions[0].signature if functions else f"{schema}.{identifier(call.name)}(text)"
        missing.append((f"{auth_query.role} may not execute it", f"GRANT EXECUTE ON FUNCTION {signature} TO {role}"))
    return missing


def _functions(rights: Rights, call: Call) -> list[Function]:
    """Return the functions that a call may mean."""
    return [each for each in rights.functions if each.name == call.name and call.schema in ("", each.schema)]


def create(call: Call) -> str:
    """Return the statements that create the function: it runs as its owner, and never returns a superuser."""
    schema = identifier(call.schema or "public")
    function = f"{schema}.{identifier(call.name)}"
    first, second = map(identifier, call.columns)
    return f"""CREATE SCHEMA IF NOT EXISTS {schema};
        CREATE FUNCTION {function}(text) RETURNS TABLE ({first} text, {second} text)
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
            AS $$ SELECT rolname::text, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid
                WHERE rolname = $1 AND rolcanlogin AND NOT rolsuper $$;
        REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC"""
