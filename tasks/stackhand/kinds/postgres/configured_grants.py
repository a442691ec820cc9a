"""Grants of `fixes.roles`: an SQL expression asks the server whether one is in effect.

https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-ACCESS
"""

from __future__ import annotations

import re

from stackhand.kinds.postgres.psql import literal

_ALL = {
    "r": ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"),
    "S": ("USAGE", "SELECT", "UPDATE"),
    "f": ("EXECUTE",),
    "n": ("USAGE", "CREATE"),
    "d": ("CONNECT", "CREATE", "TEMPORARY"),
}
_CONFIGURED = re.compile(
    r"(?P<privileges>[A-Za-z, ]+?)\s+ON\s+(?:ALL\s+(?P<all>TABLES|SEQUENCES|FUNCTIONS|ROUTINES)\s+IN\s+)?"
    r"(?:(?P<what>TABLE|SEQUENCE|FUNCTION|SCHEMA|DATABASE)\s+)?(?P<names>[^;]+)",
    re.IGNORECASE,
)
_KINDS = {"TABLE": "r", "SEQUENCE": "S", "FUNCTION": "f", "ROUTINE": "f", "SCHEMA": "n", "DATABASE": "d"}


def grant_key(role: str, grant: str) -> str:
    """Return the key of one configured grant of a role, in the answer of the server."""
    return f"{role}: {grant}"


def expression(role: str, grant: str) -> str | None:
    """Return an SQL expression that is true where a configured grant is in effect, None where that cannot be told.

    >>> expression("app", "readers")
    "coalesce((SELECT pg_has_role(w.oid, g.oid, 'MEMBER') FROM pg_roles w, pg_roles g WHERE w.rolname = 'app' AND g.rolname = 'readers'), false)"
    """  # noqa: E501
    who = f"w.rolname = {literal(role)}"
    if " " not in grant.strip():
        group = grant.strip().strip('"')
        return (
            f"coalesce((SELECT pg_has_role(w.oid, g.oid, 'MEMBER') FROM pg_roles w, pg_roles g WHERE {who} "
            f"AND g.rolname = {literal(group)}), false)"
        )
    found = _CONFIGURED.fullmatch(grant.strip())
    if not found:
        return None
    everything = (found["all"] or "").upper().rstrip("S")
    kind = _KINDS[everything or "SCHEMA" if everything else (found["what"] or "TABLE").upper()]
    words = [" ".join(word.upper().split()) for word in found["privileges"].split(",")]
    privileges = _ALL[kind] if words in (["ALL"], ["ALL PRIVILEGES"]) else tuple(words)
    if not set(privileges) <= {*_ALL[kind], "TEMP"}:
        return None
    tests = [
        _test(kind, name.strip(), privilege, who, whole=bool(everything))
        for name in found["names"].split(",")
        for privilege in privileges
    ]
    return None if None in tests else " AND ".join(filter(None, tests))


def _test(kind: str, name: str, privilege: str, who: str, *, whole: bool) -> str | None:
    """Return the expression for one privilege on one name, or on all objects of the schema `name` (`whole`)."""
    right = literal(privilege)
    plain = name.strip('"')
    if kind in "nd":
        table, column, check = (
            ("pg_namespace", "nspname", "schema") if kind == "n" else ("pg_database", "datname", "database")
        )
        return (
            f"EXISTS (SELECT FROM pg_roles w, {table} t WHERE {who} AND t.{column} = {literal(plain)} "
            f"AND has_{check}_privilege(w.oid, t.oid, {right}))"
        )
    if kind == "f":
        if not whole:
            return None
        return (
            f"NOT EXISTS (SELECT FROM pg_roles w, pg_proc t JOIN pg_namespace n ON n.oid = t.pronamespace WHERE {who} "
            f"AND n.nspname = {literal(plain)} AND NOT has_function_privilege(w.oid, t.oid, {right}))"
        )
    kinds, check = ("'S'", "sequence") if kind == "S" else ("'r', 'p', 'v', 'm', 'f'", "table")
    # In a CASE: for another kind of object the function raises an error.
    lacks = f"CASE WHEN t.relkind IN ({kinds}) THEN NOT has_{check}_privilege(w.oid, t.oid, {right}) ELSE false END"
    if whole:
        return (
            f"NOT EXISTS (SELECT FROM pg_roles w, pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE {who} "
            f"AND n.nspname = {literal(plain)} AND {lacks})"
        )
    return (
        f"EXISTS (SELECT FROM pg_roles w, pg_class t WHERE {who} AND t.oid = to_regclass({literal(name)}) "
        f"AND t.relkind IN ({kinds}) AND NOT {lacks})"
    )
