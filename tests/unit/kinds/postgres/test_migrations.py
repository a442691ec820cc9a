"""Pending and half-applied migrations, of the rows of a tool's table and the files that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import container, ended, needs, project, service

from stackhand.checks.context import CheckContext, ServiceActions, ServiceKinds
from stackhand.checks.kind import Kind
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import POSTGRES, Grant, Migrations, Rights, Server
from stackhand.kinds.postgres.migration_tools import TOOLS, MigrationState
from stackhand.kinds.postgres.migrations import MigrationRun, apply, check_migrations, evaluate, migrator
from stackhand.kinds.postgres.psql import Admin
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

ENDED = "2026-11-23T15:46:07"


@pytest.mark.parametrize(
    ("table", "rows", "files", "pending", "partial"),
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
def test_tables(table: str, rows: list[Any], files: list[str], pending: list[str], partial: list[str]) -> None:
    state = TOOLS[table].evaluate(rows, dict.fromkeys(files, ""))
    assert state == MigrationState(tuple(pending), tuple(partial))


def test_alembic_follows_the_revisions() -> None:
    files = {
        "a_first.py": "revision = 'a'\ndown_revision = None\n",
        "b_second.py": 'revision: str = "b"\ndown_revision: str | None = "a"\n',
        "c_branch.py": "revision = 'c'\ndown_revision = 'a'\n",
        "d_merge.py": "revision = 'd'\ndown_revision = ('b', 'c')\n",
        "__init__.py": "",
    }
    of = TOOLS["alembic_version"].evaluate
    assert of([{"version_num": "d"}], files) == MigrationState()
    assert of([{"version_num": "b"}], files) == MigrationState(("c", "d"))
    assert of([], files) == MigrationState(("a", "b", "c", "d"))
    # Applied by a newer version of the program: what its files do not know of, they cannot be compared with.
    assert of([{"version_num": "e"}], files) == MigrationState(unknown=("e",))


TABLE = Migrations("shop", "public", "schema_migrations")


@pytest.mark.parametrize(
    ("state", "ready", "status", "fixable"),
    [
        (MigrationState(), True, "ok", False),
        (MigrationState(("2_b",)), True, "fail", True),
        (MigrationState(("2_b",)), False, "fail", False),
        (MigrationState((), ("1_a",)), True, "fail", False),
        (MigrationState(("2_b",), ("1_a",)), True, "fail", False),
    ],
)
def test_while_one_is_half_applied_nothing_is_run(
    state: MigrationState, ready: bool, status: str, fixable: bool
) -> None:
    finding = evaluate(TABLE, state, MigrationRun("migrate", (), "db", lambda: None, ready=ready))
    assert (finding.status, bool(finding.fix)) == (status, fixable)
    # Only a server that does not let it in explains that they are pending.
    assert finding.blames == (() if ready else ("db",))


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


class _Postgres(Kind[Server]):
    """A Postgres that has said these things."""

    name = POSTGRES

    def __init__(self, server: Server) -> None:
        self.server = server

    def collect(self, context: CheckContext, service: str) -> Server:
        return self.server


class _Engine:
    """Has these folders in every container; whoever logs in gets in."""

    def __init__(self, folders: dict[str, dict[str, str]]) -> None:
        self.folders = folders
        self.ran: list[tuple[str, tuple[str, ...]]] = []

    def containers(self, project: str) -> list[Container]:
        return [container("db"), ended("migrate"), container("api")]

    def code_folders(self, container: str) -> list[str]:
        return ["/srv"]

    def read_folder(self, container: str, path: str) -> dict[str, str] | None:
        return self.folders.get(path)

    def ask(self, *_: Any, **__: Any) -> ExecResult:
        return ExecResult(0, "1")


SQL = {"0001_a.sql": "CREATE TABLE a ()", "0002_b.sql": ""}
PLAIN = {"/srv/migrations": SQL}
OWN = {**PLAIN, "/srv/shop": {"migrate.py": 'TABLE = "schema_migrations"'}}
REVISIONS = {"/srv/alembic/versions": {"a_x.py": "revision = 'a'\ndown_revision = None\n"}}
DJANGO = {"/srv/migrations": {"0001_initial.py": "from django.db import migrations"}}
TASKS = ("public", "tasks")


def _look(
    folder: Path, command: str, folders: dict[str, dict[str, str]], *tables: tuple[str, str], **changes: Any
) -> tuple[CheckContext, _Engine]:
    """Return a shop whose migrate service runs this command, and whose database has just these tables."""
    objects = tuple(Grant("", schema, "r", (), (name,)) for schema, name in tables)
    server = Server(Admin("postgres"), rights={"app": Rights("app", "migrator", objects=objects)})
    server = msgspec.structs.replace(server, **changes)
    environment = {"DATABASE_URL": "postgresql://migrator:word@db/app"}
    migrate = service("migrate", environment=environment, raw={"command": command.split()})
    made = project(service("db"), migrate, service("api", needs("migrate", "service_completed_successfully")))
    engine = _Engine(folders)
    actions = ServiceActions(
        start=lambda name: None,
        restart=lambda name: None,
        recreate=lambda name: None,
        run=lambda name, words: engine.ran.append((name, tuple(words))),
    )
    kinds = ServiceKinds({"db": (_Postgres(server),)})
    return CheckContext(made, engine, kinds, Fixes(), StateFolder(folder), actions), engine  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "folders", "tables", "status", "fixable", "says"),
    [
        # An empty database: its own tool brings it up to date.
        ("python3 -m shop.migrate", PLAIN, [], "fail", True, "2 migrations are pending: 0001_a, 0002_b"),
        ("alembic upgrade head", REVISIONS, [], "fail", True, "1 migration is pending: a"),
        ("alembic upgrade head", REVISIONS, [("public", "spatial_ref_sys")], "fail", True, "pending: a"),
        ("./run", REVISIONS, [], "fail", True, "pending: a"),
        # The record was lost: what is in the database is for a person to see.
        ("python3 -m shop.migrate", OWN, [TASKS], "fail", False, "2 migrations are pending"),
        ("python3 shop/migrate.py", OWN, [TASKS], "fail", False, "2 migrations are pending"),
        ("alembic upgrade head", REVISIONS, [TASKS], "fail", False, "pending: a"),
        # A program that may keep its record anywhere, or nowhere.
        ("python3 -m shop.migrate", PLAIN, [TASKS], "skip", False, "no known table in app"),
        ("python3 -m shop.migrate", OWN, [TASKS, ("public", "shop_migrations")], "skip", False, "shop_migrations"),
        ("goose up", PLAIN, [("public", '"SequelizeMeta"')], "skip", False, "SequelizeMeta"),
        ("./run", PLAIN, [("drizzle", "journal")], "skip", False, "drizzle.journal"),
        ("./run", PLAIN, [("public", "schema_version")], "skip", False, "schema_version"),
        # Tools that are not known.
        ("./manage.py migrate", DJANGO, [], "skip", False, "not known here"),
        ("npx knex migrate:latest", {"/srv/migrations": {"1_a.js": ""}}, [], "skip", False, "not known here"),
        ("liquibase update", {}, [("public", "databasechangelog")], "skip", False, "databasechangelog"),
        ("sh -c for-each-psql && psql -f migrations/0001_a.sql", PLAIN, [TASKS], "skip", False, "not known here"),
        ("./run", DJANGO, [], "skip", False, "no folder of migrations"),
        ("./run", {}, [], "skip", False, "no folder of migrations"),
    ],
)
def test_without_a_record(
    tmp_path: Path,
    command: str,
    folders: dict[str, dict[str, str]],
    tables: list[tuple[str, str]],
    status: str,
    fixable: bool,
    says: str,
) -> None:
    context, _ = _look(tmp_path, command, folders, *tables)
    (finding,) = check_migrations(context, "migrate")
    assert (finding.status, bool(finding.fix)) == (status, fixable)
    assert says in f"{finding.summary}; {finding.evidence}"
    assert finding.remedy


def test_an_empty_database_is_brought_up_to_date(tmp_path: Path) -> None:
    context, engine = _look(tmp_path, "python3 -m shop.migrate", OWN)
    (finding,) = check_migrations(context, "migrate")
    assert finding.fix
    finding.fix.act()
    assert engine.ran == [("migrate", ())]
    context, engine = _look(tmp_path, "python3 -m shop.migrate", OWN, TASKS)
    with pytest.raises(StackError, match="nothing is run"):
        apply(context)
    assert engine.ran == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"admin": None, "denied": "no superuser is known", "rights": {}}, "no superuser is known"),
        ({"rights": {}}, "the database app is not known"),
    ],
)
def test_a_database_that_cannot_be_seen(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    context, _ = _look(tmp_path, "alembic upgrade head", REVISIONS, **changes)
    (finding,) = check_migrations(context, "migrate")
    assert (finding.status, finding.evidence) == ("skip", says)


def test_no_server_that_is_known(tmp_path: Path) -> None:
    context, _ = _look(tmp_path, "alembic upgrade head", REVISIONS)
    context.kinds = ServiceKinds()
    (finding,) = check_migrations(context, "migrate")
    assert finding.status == "skip"
    assert "which Postgres server" in finding.evidence


def test_a_record_that_has_them_all(tmp_path: Path) -> None:
    rows = tuple({"version": name.removesuffix(".sql"), "finished_at": ENDED} for name in SQL)
    record = Migrations("app", "public", "schema_migrations", rows)
    context, _ = _look(tmp_path, "python3 -m shop.migrate", OWN, TASKS, migrations=(record,))
    assert [each.status for each in check_migrations(context, "migrate")] == ["ok"]
    assert list(check_migrations(context, "api")) == []
