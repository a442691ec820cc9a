"""Facts: the answer of the server, read section by section."""

from __future__ import annotations

import pytest
from postgres_facts import ADMIN, knowing

from stackhand.checks.check import CannotAsk
from stackhand.kinds.postgres import maintenance
from stackhand.kinds.postgres.facts import Grant, parse, unread


def test_an_answer_is_read_section_by_section() -> None:
    text = """{"section" : "cluster", "version" : 150004, "settings" : {"max_connections" : "60"},
 "roles" : [{"name" : "app", "login" : true}], "databases" : ["app"]}
{"section" : "rights", "database" : "app", "owner" : "migrator", "held" : [{"role":"app","schema":"public",
 "kind":"r","privileges":["SELECT"],"names":["tasks"]}]}
{"section" : "migrations", "database" : "app", "schema" : "public", "table" : "schema_migrations", "rows" : []}
"""
    server = parse(text, ADMIN)
    assert server.available == 57
    assert server.role("app") is not None
    assert server.rights["app"].held == (Grant("app", "public", "r", ("SELECT",), ("tasks",)),)
    assert [each.table for each in server.migrations] == ["schema_migrations"]


def test_nothing_is_missing_that_nobody_could_see() -> None:
    with pytest.raises(CannotAsk, match="canceling statement"):
        parse('{"section" : "rights", "database" : "app", "owner" : "x"}\n', ADMIN, ["app"], "canceling statement")


def test_a_section_that_did_not_come_is_told() -> None:
    """Its statement took too long, or the answer was cut off."""
    text = """{"section" : "cluster", "version" : 150004, "databases" : ["app", "shop"]}
{"section" : "rights", "database" : "app", "owner" : "migrator"}
{"section" : "maintenance", "database" : "app", "unanal"""
    found = parse(text, ADMIN, ["app", "shop", "not_made_yet"], "canceling statement due to statement timeout")
    assert [each.subject for each in unread(found, found.rights)] == ["shop"]
    for check in (maintenance.check_analyse, maintenance.check_indexes, maintenance.check_bloat):
        told = list(check(knowing(found), "db"))
        assert [(each.status, each.subject) for each in told] == [("skip", "app"), ("skip", "shop")]
        assert "statement timeout" in told[0].evidence
