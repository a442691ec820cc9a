"""Care of tables and indexes: missing statistics, indexes that a failed build left invalid, and bloated ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import Index, Server, server_facts, unread
from stackhand.kinds.postgres.psql import Admin

# What REINDEX CONCURRENTLY leaves behind when it is ended in the middle.
_LEFTOVER = re.compile(r'_cc(new|old)\d*"?$')
_LONG = 1800.0  # seconds: an index of a large table
_LOCK = 20.0


def check_analyse(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that the planner knows something of each large table."""
    server = server_facts(context, service)
    yield from unread(server, server.upkeep)
    for database, upkeep in server.upkeep.items():
        for table, size in upkeep.unanalysed.items():
            subject = f"{database}: {table}"
            act = partial(analyse, context, service, server, database, table)
            yield warn(
                f"the table {table} in {database} was never analysed",
                f"it has {_megabytes(size)}, and the planner knows nothing of what is in it",
                f"ANALYZE {table}",
                subject=subject,
                fix=None if server.cluster.recovery else Fix(f"analyse {subject} in", act),
            )
        if not upkeep.unanalysed:
            yield ok(f"all large tables of {database} were analysed", subject=database)


def check_indexes(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check for invalid indexes. One that a failed REINDEX left behind is dropped, any other is rebuilt."""
    server = server_facts(context, service)
    yield from unread(server, server.upkeep)
    for database, upkeep in server.upkeep.items():
        for index in upkeep.invalid:
            subject = f"{database}: {index.name}"
            act = partial(rebuild, context, service, server, database, index)
            is_guard = index.unique and not leftover(index)
            yield (fail if is_guard else warn)(
                f"the index {index.name} in {database} is invalid",
                f"queries on {index.table} do not use it, and every change of the table pays for it"
                + (", and its uniqueness is not kept" if is_guard else ""),
                statement(index),
                subject=subject,
                fix=None if server.cluster.recovery else Fix(f"rebuild or drop {subject} in", act),
            )
        if not upkeep.invalid:
            yield ok(f"all indexes of {database} are valid", subject=database)


def check_bloat(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check for indexes that are far larger than what is in them."""
    server = server_facts(context, service)
    yield from unread(server, server.upkeep)
    for database, upkeep in server.upkeep.items():
        for index in upkeep.bloated:
            yield warn(
                f"the index {index.name} in {database} is bloated",
                f"it has {_megabytes(index.size)}, where about {_megabytes(index.expected)} would do",
                f"REINDEX INDEX CONCURRENTLY {index.name}",
                subject=f"{database}: {index.name}",
            )
        if not upkeep.bloated:
            yield ok(f"no index of {database} is bloated", subject=database)


def leftover(index: Index) -> bool:
    """Return whether an index is what a REINDEX that was ended left behind."""
    return bool(_LEFTOVER.search(index.name))


def statement(index: Index) -> str:
    """Return what puts an invalid index right."""
    if leftover(index):
        return f"DROP INDEX CONCURRENTLY {index.name}"
    return f"REINDEX INDEX CONCURRENTLY {index.name}"


def analyse(context: CheckContext, service: str, server: Server, database: str, table: str) -> None:
    """Have the planner learn what is in a table. Raises StackError."""
    server.administrator.execute(context, service, f"ANALYZE {table};", database, limit=_LONG, wait=_LOCK)


def rebuild(context: CheckContext, service: str, server: Server, database: str, index: Index) -> None:
    """Build an invalid index again beside its readers and writers, or drop a leftover. Raises StackError."""
    admin = server.administrator
    try:
        admin.execute(context, service, f"{statement(index)};", database, limit=_LONG, wait=_LOCK)
    except StackError:
        if not leftover(index):
            _sweep(context, service, admin, database, index)
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
