"""Configured grants as SQL expressions."""

from __future__ import annotations

import pytest

from stackhand.kinds.postgres import configured_grants


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        ("SELECT ON ALL TABLES IN SCHEMA public", "NOT EXISTS"),
        ("SELECT, INSERT ON tasks", "to_regclass('tasks')"),
        ("ALL PRIVILEGES ON ALL SEQUENCES IN SCHEMA public", "has_sequence_privilege"),
        ("USAGE ON SCHEMA public", "has_schema_privilege"),
        ("CONNECT ON DATABASE shop", "has_database_privilege"),
        ("pg_monitor", "pg_has_role"),
    ],
)
def test_a_configured_grant_can_be_checked(grant: str, words: str) -> None:
    assert words in (configured_grants.expression("app", grant) or "")


@pytest.mark.parametrize(
    "grant", ["EXECUTE ON FUNCTION f(int)", "FLY ON tasks", "SELECT (a) ON tasks", "a; DROP TABLE b"]
)
def test_a_grant_that_cannot_be_told_is_not_guessed(grant: str) -> None:
    assert configured_grants.expression("app", grant) is None
