"""Which finding explains which."""

from __future__ import annotations

import pytest

from stackhand.checks.causes import attribute
from stackhand.checks.suite import Suite
from stackhand.model import Finding, Status

SUITE = Suite("test", ("services", "databases", "network", "tuning"), (), explaining=("databases", "network"))
Row = tuple[str, str, Status, tuple[str, ...]]
PHASES = {"ready": "services", "answers": "services", "login": "databases", "attached": "network", "index": "tuning"}


def causes(*rows: Row) -> dict[str, str | None]:
    """Return each finding's cause, in the order of the findings; both as `service id`."""
    findings = [Finding(id, service, PHASES[id], status, "") for service, id, status, _ in rows]
    blames = {each.key: row[3] for each, row in zip(findings, rows, strict=True)}
    return {
        f"{each.service} {each.id}": f"{each.caused_by.service} {each.caused_by.id}" if each.caused_by else None
        for each in attribute(findings, blames, SUITE)
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # It does not answer because it is off its network, not the other way round.
        (
            [("web", "answers", "fail", ()), ("web", "attached", "fail", ())],
            {"web attached": None, "web answers": "web attached"},
        ),
        (
            [("api", "login", "fail", ("db",)), ("db", "ready", "fail", ())],
            {"db ready": None, "api login": "db ready"},
        ),
        # A chain: each says its own cause.
        (
            [("api", "answers", "fail", ()), ("api", "login", "fail", ("db",)), ("db", "ready", "fail", ())],
            {"db ready": None, "api answers": "api login", "api login": "db ready"},
        ),
        # A poor index or a warning explains no failure.
        (
            [("api", "answers", "fail", ("db",)), ("db", "index", "fail", ()), ("db", "login", "warn", ())],
            {"api answers": None, "db index": None, "db login": None},
        ),
        # Two that blame each other: one of them is taken for the cause.
        (
            [("a", "login", "fail", ("b",)), ("b", "login", "fail", ("a",))],
            {"b login": None, "a login": "b login"},
        ),
        ([("a", "login", "ok", ("b",)), ("b", "ready", "fail", ())], {"a login": None, "b ready": None}),
    ],
)
def test_causes(rows: list[Row], expected: dict[str, str | None]) -> None:
    found = causes(*rows)
    assert found == expected
    assert list(found) == list(expected), "root causes first"


def test_what_is_about_the_project_has_no_cause() -> None:
    finding = Finding("fixes.migrate", None, "databases", "warn", "")
    down = Finding("ready", "db", "services", "fail", "")
    assert [each.caused_by for each in attribute([finding, down], {finding.key: ("db",)}, SUITE)] == [None, None]
