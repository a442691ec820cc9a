"""Which migrations are pending and which half-applied: one pure function for the table of each tool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

Rows = Sequence[Mapping[str, Any]]
# Paths in the folder, each with the file's text.
Files = Mapping[str, str]


@dataclass(frozen=True)
class MigrationState:
    """Migrations by what the tool's table says: `pending` ones, and those that began and did not end (`partial`).

    `unknown` ones are in the database and in no file, where that leaves open which are pending.
    """

    pending: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """How one tool keeps its table, where its files usually are below the program's folder, and how it is called."""

    evaluate: Callable[[Rows, Files], MigrationState]
    folders: tuple[str, ...]
    called: str


def _names(files: Files, *suffixes: str) -> list[str]:
    """Return the names of files at the top of the folder, those that undo a migration left out.

    >>> _names({"1_a.up.sql": "", "1_a.down.sql": "", "__init__.py": "", "old/2_b.sql": ""}, ".sql", ".py")
    ['1_a.up.sql']
    """
    return sorted(
        name
        for name in files
        if "/" not in name and name.endswith(suffixes) and not re.search(r"^__|\.(down|undo)\.", name)
    )


def _number(name: str) -> int | None:
    found = re.match(r"\d+", name)
    return int(found[0]) if found else None


def schema_migrations(rows: Rows, files: Files) -> MigrationState:
    """Evaluate `schema_migrations`: of golang-migrate (one row and `dirty`), else a row for each file.

    A row has the file's name without its ending, or what stands before the first underscore (Rails, dbmate). Where
    there is a column finished_at, NULL is a migration that never ended.

    >>> schema_migrations([{"version": "0001_a"}], {"0001_a.sql": "", "0002_b.sql": ""})
    MigrationState(pending=('0002_b',), partial=(), unknown=())
    >>> schema_migrations([{"version": 2, "dirty": True}], {"1_a.up.sql": "", "2_b.up.sql": ""})
    MigrationState(pending=(), partial=('2',), unknown=())
    """
    names = _names(files, ".sql", ".py", ".rb", ".js", ".ts")
    if any("dirty" in row for row in rows):
        last = max((int(row["version"]) for row in rows), default=-1)
        partial = tuple(str(row["version"]) for row in rows if row["dirty"])
        pending = tuple(_stem(name) for name in names if (number := _number(name)) is not None and number > last)
        return MigrationState(pending, partial)
    versions = {str(row.get("version")) for row in rows}
    partial = tuple(str(row["version"]) for row in rows if "finished_at" in row and row["finished_at"] is None)
    pending = tuple(stem for name in names if not {stem := _stem(name), stem.partition("_")[0]} & versions)
    return MigrationState(pending, partial)


def alembic_version(rows: Rows, files: Files) -> MigrationState:
    """Evaluate Alembic's: the newest revisions that its files name are in the table.

    Where no file names the applied revision (it is on another branch), nothing can be said of the others.

    >>> alembic_version([{"version_num": "a1"}], {"a1_x.py": "revision = 'a1'", "b2_y.py": "revision = 'b2'\\ndown_revision = 'a1'"})
    MigrationState(pending=('b2',), partial=(), unknown=())
    """  # noqa: E501
    parents: dict[str, set[str]] = {}
    for name in _names(files, ".py"):
        revision = re.search(r"^revision\b[^=]*=\s*['\"]([^'\"]+)", files[name], re.MULTILINE)
        before = re.search(r"^down_revision\b[^=]*=\s*(.*)", files[name], re.MULTILINE)
        if revision:
            parents[revision[1]] = set(re.findall(r"['\"]([^'\"]+)['\"]", before[1] if before else ""))
    applied = {str(row.get("version_num")) for row in rows}
    if applied - set(parents):
        return MigrationState(unknown=tuple(sorted(applied - set(parents))))
    queue = list(applied)
    while queue:
        fresh = parents.get(queue.pop(), set()) - applied
        applied |= fresh
        queue += fresh
    return MigrationState(tuple(sorted(set(parents) - applied)))


def flyway_schema_history(rows: Rows, files: Files) -> MigrationState:
    """Evaluate Flyway's: `success` is false where one failed. It never applies what a baseline stands for.

    https://documentation.red-gate.com/fd/flyway-baseline-on-migrate-setting-277578974.html

    >>> flyway_schema_history([{"version": "1", "success": True}], {"V1__a.sql": "", "V1_1__b.sql": "", "R__c.sql": ""})
    MigrationState(pending=('1.1',), partial=(), unknown=())
    """
    done = {_dotted(str(row["version"])) for row in rows if row.get("version") is not None}
    partial = tuple(str(row.get("version") or row.get("script")) for row in rows if row.get("success") is False)
    found = [re.match(r"V([\d._]+?)__", name) for name in _names(files, ".sql", ".java", ".class")]
    versions = [_dotted(each[1]) for each in found if each]
    baselines = [_ordered(_dotted(str(row["version"]))) for row in rows if row.get("type") in _BASELINES]
    after = max(baselines, default=())
    return MigrationState(tuple(each for each in versions if each not in done and _ordered(each) > after), partial)


_BASELINES = ("BASELINE", "SQL_BASELINE", "JDBC_BASELINE")


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _dotted(version: str) -> str:
    return ".".join(str(int(part)) if part.isdigit() else part for part in re.split(r"[._]", version))


def prisma_migrations(rows: Rows, files: Files) -> MigrationState:
    """Evaluate Prisma's: a folder for each migration; one that neither ended nor was rolled back is half-applied."""
    folders = sorted({str(PurePosixPath(name).parent) for name in files if name.endswith("/migration.sql")})
    done = {row.get("migration_name") for row in rows if row.get("finished_at")}
    partial = tuple(
        str(row.get("migration_name"))
        for row in rows
        if row.get("finished_at") is None and row.get("rolled_back_at") is None
    )
    return MigrationState(tuple(name for name in folders if name not in done and name not in partial), partial)


def goose_db_version(rows: Rows, files: Files) -> MigrationState:
    """Evaluate goose's: the last row of a version says whether it is applied."""
    applied: dict[int, bool] = {}
    for row in sorted(rows, key=lambda row: int(row.get("id") or 0)):
        applied[int(row["version_id"])] = bool(row.get("is_applied"))
    return MigrationState(_numbered(files, {version for version, there in applied.items() if there}, ".sql", ".go"))


def sqlx_migrations(rows: Rows, files: Files) -> MigrationState:
    """Evaluate sqlx's: `success` is false while one runs, and stays so when it fails."""
    partial = tuple(str(row["version"]) for row in rows if row.get("success") is False)
    return MigrationState(_numbered(files, {int(row["version"]) for row in rows}, ".sql"), partial)


def _numbered(files: Files, done: Iterable[int], *suffixes: str) -> tuple[str, ...]:
    known = set(done)
    return tuple(
        _stem(name)
        for name in _names(files, *suffixes)
        if (number := _number(name)) is not None and number not in known
    )


def _stem(name: str) -> str:
    return re.sub(r"(\.up)?\.\w+$", "", name)


_PLAIN = ("migrations", "db/migrations", "db/migrate", "sql/migrations", "database/migrations")
TOOLS: Mapping[str, Tool] = {
    "alembic_version": Tool(
        alembic_version, ("alembic/versions", "migrations/versions", "versions"), r"alembic|flask\s+db"
    ),
    "_prisma_migrations": Tool(prisma_migrations, ("prisma/migrations", "migrations"), "prisma"),
    "flyway_schema_history": Tool(
        flyway_schema_history, ("sql", "db/migration", "migrations", "src/main/resources/db/migration"), "flyway"
    ),
    "goose_db_version": Tool(goose_db_version, _PLAIN, "goose"),
    "_sqlx_migrations": Tool(sqlx_migrations, _PLAIN, "sqlx"),
    "schema_migrations": Tool(schema_migrations, _PLAIN, r"dbmate|golang-migrate|migrate/migrate|rails|rake"),
}
# Tools whose table is not known here; psql has none.
_OTHERS = re.compile(
    r"""(?<![\w-])(
    artisan | atlas | diesel | django(-admin)? | drizzle(-kit)? | dotnet | ecto | evolve | graphile-migrate | knex
    | liquibase | manage\.py | mikro-orm | mix | node-pg-migrate | pgmigrate | psql | refinery | sequelize(-cli)?
    | sqitch | supabase | tern | typeorm | umzug | yoyo
    )(?![\w-])""",
    re.VERBOSE | re.IGNORECASE,
)
_RECORDS = re.compile(
    r"""migrat | changelog | schema_?history | sequelizemeta | evolutions | sqitch | drizzle | alembic | flyway | goose
    | \.["]? (schema|db|database|app)? _? (info|patch(es)? | revisions? | upgrades? | versions?) ["]? $""",
    re.VERBOSE | re.IGNORECASE,
)
# Tables of extensions: they are also in databases that are otherwise empty.
_OF_EXTENSIONS = re.compile(r"(spatial_ref_sys|(geometry|geography|raster)_\w+|pg_\w+|hypopg\w*|timescaledb\w*)$")


def tool_of(words: str) -> str | None:
    """Return the table of the tool that a command calls; "" for a tool that is not known here, None for no tool.

    >>> tool_of("alembic upgrade head"), tool_of("./manage.py migrate"), tool_of("python3 -m shop.migrate")
    ('alembic_version', '', None)
    """
    called = (table for table, tool in TOOLS.items() if re.search(rf"(?<![\w-])({tool.called})(?![\w-])", words))
    return next(called, "" if _OTHERS.search(words) else None)


def record_of_another(tables: Iterable[str]) -> str:
    """Return the table that some other tool keeps its record in, of those `schema.table` of a database; "" for none.

    >>> record_of_another(["public.tasks", "public.django_migrations"])
    'public.django_migrations'
    """
    return next((each for each in tables if _RECORDS.search(each)), "")


def is_empty(tables: Iterable[str]) -> bool:
    """Return whether a database with these `schema.table` has only tables of extensions."""
    return all(_OF_EXTENSIONS.match(each.rpartition(".")[2].strip('"')) for each in tables)


def pending_of(table: str, files: Files, *, named: bool) -> tuple[str, ...]:
    """Return the pending migrations of a database to which none is applied yet.

    Where the command does not name the tool (`named`), only SQL counts: other programs may lie in such a folder.

    >>> pending_of("schema_migrations", {"0001_a.js": "", "0001_a.sql": ""}, named=False)
    ('0001_a',)
    """
    if table in ("schema_migrations", "goose_db_version", "_sqlx_migrations") and not named:
        files = {name: text for name, text in files.items() if name.endswith(".sql")}
    return TOOLS[table].evaluate((), files).pending
