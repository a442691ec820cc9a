"""Care of tables and indexes: missing statistics, indexes that a failed build left invalid, and bloated ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import Index, Server, Upkeep, unread
from stackhand.kinds.postgres.psql import Admin
from stackhand.model import Finding, Status

ANALYSE, INVALID, BLOATED = "postgres.analyse", "postgres.index", "postgres.bloat"
# What REINDEX CONCURRENTLY leaves behind when it is ended in the middle.
_LEFTOVER = re.compile(r'_cc(new|old)\d*"?$')
_LONG = 1800.0  # seconds: an index of a large table
_LOCK = 20.0


def judge_analyse(service: str, server: Server) -> Iterable[Finding]:
    """Return the findings about tables that were never analysed."""
    yield from unread(ANALYSE, service, "tuning", server, server.upkeep)
    for upkeep in server.upkeep.values():
        about = _About(ANALYSE, service, upkeep.database, fixable=not server.cluster.recovery)
        for table, size in upkeep.unanalysed.items():
            yield about.wrong(
                table,
                f"the table {table} in {upkeep.database} was never analysed",
                f"it has {_megabytes(size)}, and the planner knows nothing of what is in it",
                f"ANALYZE {table}",
            )
        if not upkeep.unanalysed:
            yield about.ok(f"all large tables of {upkeep.database} were analysed")


def judge_indexes(service: str, server: Server) -> Iterable[Finding]:
    """Return the findings about invalid indexes."""
    yield from unread(INVALID, service, "tuning", server, server.upkeep)
    for upkeep in server.upkeep.values():
        about = _About(INVALID, service, upkeep.database, fixable=not server.cluster.recovery)
        for index in upkeep.invalid:
            guards = index.unique and not leftover(index)
            yield about.wrong(
                index.name,
                f"the index {index.name} in {upkeep.database} is invalid",
                f"queries on {index.table} do not use it, and every change of the table pays for it"
                + (", and its uniqueness is not kept" if guards else ""),
                statement(index),
                status="fail" if guards else "warn",
            )
        if not upkeep.invalid:
            yield about.ok(f"all indexes of {upkeep.database} are valid")


def judge_bloat(service: str, server: Server) -> Iterable[Finding]:
    """Return the findings about indexes that are far larger than what is in them."""
    yield from unread(BLOATED, service, "tuning", server, server.upkeep)
    for upkeep in server.upkeep.values():
        about = _About(BLOATED, service, upkeep.database, fixable=False)
        for index in upkeep.bloated:
            yield about.wrong(
                index.name,
                f"the index {index.name} in {upkeep.database} is bloated",
                f"it has {_megabytes(index.size)}, where about {_megabytes(index.expected)} would do",
                f"REINDEX INDEX CONCURRENTLY {index.name}",
            )
        if not upkeep.bloated:
            yield about.ok(f"no index of {upkeep.database} is bloated")


@dataclass(frozen=True)
class _About:
    """What the findings of one check about one database have in common."""

    id: str
    service: str
    database: str
    fixable: bool

    def ok(self, summary: str) -> Finding:
        return Finding(self.id, self.service, "tuning", "ok", summary, subject=self.database)

    def wrong(self, thing: str, summary: str, evidence: str, remedy: str, *, status: Status = "warn") -> Finding:
        subject, can = f"{self.database}: {thing}", self.fixable
        return Finding(self.id, self.service, "tuning", status, summary, evidence, remedy, fixable=can, subject=subject)


def leftover(index: Index) -> bool:
    """Return whether an index is what a REINDEX that was ended left behind."""
    return bool(_LEFTOVER.search(index.name))


def statement(index: Index) -> str:
    """Return what puts an invalid index right."""
    if leftover(index):
        return f"DROP INDEX CONCURRENTLY {index.name}"
    return f"REINDEX INDEX CONCURRENTLY {index.name}"


def analyse(context: CheckContext, service: str, admin: Admin, upkeep: Upkeep, table: str) -> None:
    """Have the planner learn what is in a table. Raises StackError."""
    if table in upkeep.unanalysed:
        admin.execute(context, service, f"ANALYZE {table};", upkeep.database, limit=_LONG, wait=_LOCK)


def rebuild(context: CheckContext, service: str, admin: Admin, upkeep: Upkeep, name: str) -> None:
    """Build an invalid index anew beside its readers and writers, or drop a leftover. Raises StackError."""
    index = next((each for each in upkeep.invalid if each.name == name), None)
    if index is None:
        return
    try:
        admin.execute(context, service, f"{statement(index)};", upkeep.database, limit=_LONG, wait=_LOCK)
    except StackError:
        if not leftover(index):
            _sweep(context, service, admin, upkeep.database, index)
        raise


def _sweep(context: CheckContext, service: str, admin: Admin, database: str, index: Index) -> None:
    """Drop what a failed REINDEX left beside an index, so that the next one does not find two of them."""
    text = f"""SELECT format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT i.indisvalid AND i.indrelid = '{index.table.replace("'", "''")}'::regclass
        AND c.relname ~ '_ccnew[0-9]*$'
        AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid) \\gexec"""
    admin.execute(context, service, text, database, limit=_LONG, wait=_LOCK)


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MB"
