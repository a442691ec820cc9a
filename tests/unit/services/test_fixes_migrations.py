"""Pending and half-applied migrations, of the rows of a tool's table and the files that there are."""

from __future__ import annotations

from typing import Any

import pytest
from builders import needs, project, service

from stackhand.kinds.pg.facts import Migrations
from stackhand.services.fixes.applied import TOOLS, State
from stackhand.services.fixes.migrations import judge, migrator
from stackhand.settings import Fixes

ENDED = "2026-11-23T15:46:07"


@pytest.mark.parametrize(
    ("table", "rows", "files", "pending", "half"),
    [
        ("schema_migrations", [{"version": "20260101"}], ["20260101_a.rb", "20260102_b.rb"], ["20260102_b"], []),
        (
            "schema_migrations",
            [{"version": "0001_a", "finished_at": ENDED}, {"version": "0002_b", "finished_at": None}],
            ["0001_a.sql", "0002_b.sql", "0003_c.sql"],
            ["0003_c"],
            ["0002_b"],
        ),
        (
            "schema_migrations",
            [{"version": 3, "dirty": False}],
            ["3_a.up.sql", "3_a.down.sql", "4_b.up.sql"],
            ["4_b"],
            [],
        ),
        # Applied by a newer version of the program: nothing is pending.
        ("schema_migrations", [{"version": "0009_z"}], [], [], []),
        ("flyway_schema_history", [{"version": "001", "success": True}], ["V1__a.sql", "V2__b.sql"], ["2"], []),
        ("flyway_schema_history", [{"version": "1", "success": False}], ["V1__a.sql"], [], ["1"]),
        # What lies before a baseline is never applied.
        (
            "flyway_schema_history",
            [{"version": "5", "type": "BASELINE", "success": True}],
            ["V1__a.sql", "V4_1__b.sql", "V5__c.sql", "V6__d.sql", "V10__e.sql"],
            ["10", "6"],
            [],
        ),
        (
            "_prisma_migrations",
            [{"migration_name": "1_a", "finished_at": ENDED}, {"migration_name": "2_b", "finished_at": None}],
            ["1_a/migration.sql", "2_b/migration.sql", "3_c/migration.sql", "migration_lock.toml"],
            ["3_c"],
            ["2_b"],
        ),
        (
            "_prisma_migrations",
            [{"migration_name": "1_a", "finished_at": None, "rolled_back_at": ENDED}],
            ["1_a/migration.sql"],
            ["1_a"],
            [],
        ),
        (
            "goose_db_version",
            [
                {"id": 1, "version_id": 0, "is_applied": True},
                {"id": 2, "version_id": 1, "is_applied": True},
                {"id": 3, "version_id": 1, "is_applied": False},
            ],
            ["00001_a.sql"],
            ["00001_a"],
            [],
        ),
        ("_sqlx_migrations", [{"version": 1, "success": False}], ["1_a.sql", "2_b.sql"], ["2_b"], ["1"]),
    ],
)
def test_tables(table: str, rows: list[Any], files: list[str], pending: list[str], half: list[str]) -> None:
    state = TOOLS[table].judge(rows, dict.fromkeys(files, ""))
    assert state == State(tuple(pending), tuple(half))


def test_alembic_follows_the_revisions() -> None:
    files = {
        "a_first.py": "revision = 'a'\ndown_revision = None\n",
        "b_second.py": 'revision: str = "b"\ndown_revision: str | None = "a"\n',
        "c_branch.py": "revision = 'c'\ndown_revision = 'a'\n",
        "d_merge.py": "revision = 'd'\ndown_revision = ('b', 'c')\n",
        "__init__.py": "",
    }
    of = TOOLS["alembic_version"].judge
    assert of([{"version_num": "d"}], files) == State()
    assert of([{"version_num": "b"}], files) == State(("c", "d"))
    assert of([], files) == State(("a", "b", "c", "d"))
    # Applied by a newer version of the program: what its files do not know of, they cannot be compared with.
    assert of([{"version_num": "e"}], files) == State(ahead=("e",))


TABLE = Migrations("shop", "public", "schema_migrations")


@pytest.mark.parametrize(
    ("state", "ready", "status", "fixable"),
    [
        (State(), True, "ok", False),
        (State(("2_b",)), True, "fail", True),
        (State(("2_b",)), False, "fail", False),
        (State((), ("1_a",)), True, "fail", False),
        (State(("2_b",), ("1_a",)), True, "fail", False),
    ],
)
def test_while_one_is_half_applied_nothing_is_run(state: State, ready: bool, status: str, fixable: bool) -> None:
    finding = judge("migrate", TABLE, state, (), ready=ready)
    assert (finding.status, finding.fixable) == (status, fixable)


def _shop(name: str = "setup", **raw: Any) -> Any:
    api = service(
        "api", needs(name, "service_completed_successfully"), needs("certs", "service_completed_successfully")
    )
    return project(service("certs", raw={"command": ["make-certs"]}), service(name, raw=raw), api)


@pytest.mark.parametrize(
    ("shop", "settings", "expected"),
    [
        (_shop(command=["python3", "-m", "shop.migrate"]), Fixes(), ("setup", ())),
        (_shop(command=["alembic", "upgrade", "head"]), Fixes(), ("setup", ())),
        (_shop("db-migrations"), Fixes(), ("db-migrations", ())),
        (_shop(command=["seed"]), Fixes(), ("", ())),
        (_shop(command=["seed"]), Fixes(migrate="setup"), ("setup", ())),
        (
            _shop(),
            Fixes(migrate="api: ./manage.py migrate --noinput"),
            ("api", ("./manage.py", "migrate", "--noinput")),
        ),
    ],
)
def test_the_migrate_service(shop: Any, settings: Fixes, expected: tuple[str, tuple[str, ...]]) -> None:
    assert migrator(shop, settings) == expected
