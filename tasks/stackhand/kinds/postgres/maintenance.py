"""Maintenance of tables and indexes: missing statistics, invalid indexes, bloated indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.facts import Index, Server, server_facts, unread
from stackhand.kinds.postgres.psql import Admin

# The names of indexes that REINDEX CONCURRENTLY leaves behind when it is ended in the middle:
# https://www.postgresql.org/docs/current/sql-reindex.html#SQL-REINDEX-CONCURRENTLY
_LEFTOVER = re.compile(r'_cc(new|old)\d*"?$')
# Seconds: for an index of a large table; for a lock.
_BUILD_TIMEOUT = 1800.0
_LOCK_TIMEOUT = 20.0


def check_analyse(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that each large table has statistics for the planner."""
    server = server_facts(context, service)
    yield from unread(server, server.maintenance)
    for database, maintenance in server.maintenance.items():
        for table, size in maintenance.unanalysed.items():
            subject = f"{database}: {table}"
            act = partial(analyse, context, service, server, database, table)
            yield warn(
                f"the table {table} in {database} was never analysed",
                f"it has {_megabytes(size)}, and the planner has no statistics of it",
                f"ANALYZE {table}",
                subject=subject,
                fix=None if server.cluster.recovery else Fix(f"analyse {subject} in", act),
            )
        if not maintenance.unanalysed:
            yield ok(f"all large tables of {database} were analysed", subject=database)


def check_indexes(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check for invalid indexes. One that a failed REINDEX left behind is dropped, any other is rebuilt."""
    server = server_facts(context, service)
    yield from unread(server, server.maintenance)
    for database, maintenance in server.maintenance.items():
        for index in maintenance.invalid:
            subject = f"{database}: {index.name}"
            act = partial(rebuild, context, service, server, database, index)
            is_guard = index.unique and not is_leftover(index)
            yield (fail if is_guard else warn)(
                f"the index {index.name} in {database} is invalid",
                f"queries on {index.table} do not use it, and every change of the table pays for it"
                + (", and its uniqueness is not kept" if is_guard else ""),
                repair_statement(index),
                subject=subject,
                fix=None if server.cluster.recovery else Fix(f"rebuild or drop {subject} in", act),
            )
        if not maintenance.invalid:
            yield ok(f"all indexes of {database} are valid", subject=database)


def check_bloat(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check for indexes that are far larger than their content needs."""
    server = server_facts(context, service)
    yield from unread(server, server.maintenance)
    for database, maintenance in server.maintenance.items():
        for index in maintenance.bloated:
            yield warn(
                f"the index {index.name} in {database} is bloated",
                f"it has {_megabytes(index.size)}, where about {_megabytes(index.expected)} would do",
                f"REINDEX INDEX CONCURRENTLY {index.name}",
                subject=f"{database}: {index.name}",
            )
        if not maintenance.bloated:
            yield ok(f"no index of {database} is bloated", subject=database)


def is_leftover(index: Index) -> bool:
    """Return whether a REINDEX that did not end left this index behind."""
    return bool(_LEFTOVER.search(index.name))


def repair_statement(index: Index) -> str:
    """Return the statement that repairs or drops an invalid index."""
    if is_leftover(index):
        return f"DROP INDEX CONCURRENTLY {index.name}"
    return f"REINDEX INDEX CONCURRENTLY {index.name}"


def analyse(context: CheckContext, service: str, server: Server, database: str, table: str) -> None:
    """Collect the statistics of a table. Raises StackError."""
    server.administrator.execute(
        context, service, f"ANALYZE {table};", database, limit=_BUILD_TIMEOUT, wait=_LOCK_TIMEOUT
    )


def rebuild(context: CheckContext, service: str, server: Server, database: str, index: Index) -> None:
    """Rebuild an invalid index, or drop a leftover, while the table is read and written to. Raises StackError."""
    admin = server.administrator
    try:
        admin.execute(
            context, service, f"{repair_statement(index)};", database, limit=_BUILD_TIMEOUT, wait=_LOCK_TIMEOUT
        )
    except StackError:
        if not is_leftover(index):
            _sweep(context, service, admin, database, index)
        raise


def _sweep(context: CheckContext, service: str, admin: Admin, database: str, index: Index) -> None:
    """Drop the new index that a failed REINDEX has left: the next one would leave a second. One in progress is kept."""
    text = f"""SELECT format('DROP INDEX CONCURRENTLY %I.%I', n.nspname, c.relname)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT i.indisvalid AND i.indrelid = '{index.table.replace("'", "''")}'::regclass
        AND c.relname ~ '_ccnew[0-9]*$'
        AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid) \\gexec"""
    admin.execute(context, service, text, database, limit=_BUILD_TIMEOUT, wait=_LOCK_TIMEOUT)


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MB"
