"""auth_query: how it is read, and what it needs."""

from __future__ import annotations

import msgspec
import pytest
from postgres_facts import FIX, server

from stackhand.kinds.postgres import auth_query
from stackhand.kinds.postgres.facts import Function, Rights, Role, SchemaInfo
from stackhand.kinds.postgres.login_map import AuthQuery

LOOKUP = AuthQuery("pool", "lookup", "shop", "SELECT u, p FROM auth.get($1)")
FUNCTION = Function("auth", "get", "auth.get(text)", ("lookup",))
AUTH = Rights("shop", "migrator", ("lookup",), schemas=(SchemaInfo("auth", ("lookup",)),), functions=(FUNCTION,))


@pytest.mark.parametrize(
    ("query", "call"),
    [
        ("SELECT u, p FROM auth.get($1)", auth_query.Call("auth", "get", ("u", "p"))),
        ("select Usename, PASSWD from Auth.Get ( $1 );", auth_query.Call("auth", "get", ("usename", "passwd"))),
        ('SELECT "U", p FROM "my auth"."Get"($1::text)', auth_query.Call("my auth", "Get", ("U", "p"))),
        ("SELECT * FROM get($1)", auth_query.Call("", "get", ("uname", "phash"))),
        ("SELECT usename, passwd FROM pg_shadow WHERE usename=$1", None),
        ("SELECT u, p, 1 FROM auth.get($1)", None),
    ],
)
def test_an_auth_query_is_read(query: str, call: auth_query.Call | None) -> None:
    assert auth_query.parse(query) == call


@pytest.mark.parametrize(
    ("rights", "statements"),
    [
        (AUTH, []),
        (msgspec.structs.replace(AUTH, connect=()), ['GRANT CONNECT ON DATABASE "shop" TO "lookup"']),
        (msgspec.structs.replace(AUTH, schemas=(SchemaInfo("auth"),)), ['GRANT USAGE ON SCHEMA "auth" TO "lookup"']),
        (
            msgspec.structs.replace(AUTH, functions=(Function("auth", "get", "auth.get(text)"),)),
            ['GRANT EXECUTE ON FUNCTION auth.get(text) TO "lookup"'],
        ),
    ],
)
def test_what_a_lookup_lacks(rights: Rights, statements: list[str]) -> None:
    call = auth_query.parse(LOOKUP.query)
    assert call is not None
    assert [statement for _, statement in auth_query.missing_rights(rights, LOOKUP, call)] == statements
    [verdict] = auth_query.evaluate_auth_query(server(Role("lookup"), shop=rights), LOOKUP, FIX)
    assert (verdict.status, verdict.fix is FIX) == (("fail", True) if statements else ("ok", False))


def test_a_function_made_anew_is_closed() -> None:
    text = auth_query.create(auth_query.Call("auth", "get", ("u", "p")))
    for words in (
        "SECURITY DEFINER",
        "SET search_path = pg_catalog",
        "NOT rolsuper",
        "FROM PUBLIC",
        '"u" text, "p" text',
    ):
        assert words in text


def test_a_function_without_schema_is_not_guessed() -> None:
    lookup = AuthQuery("pool", "lookup", "shop", "SELECT * FROM get($1)")
    about = server(Role("lookup"), shop=msgspec.structs.replace(AUTH, functions=()))
    [verdict] = auth_query.evaluate_auth_query(about, lookup, FIX)
    assert (verdict.status, verdict.fix is FIX) == ("fail", False)
