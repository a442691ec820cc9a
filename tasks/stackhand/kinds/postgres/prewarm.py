"""pg_prewarm: where it is installed, the most used tables are read into memory once for each run of the server."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Fix, Verdict, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.facts import Server, server_facts

_DOCUMENT = "prewarmed"
# The most used tables and indexes first, up to half of the buffers: the rest is for new pages.
_LOAD = """
SELECT pg_prewarm(oid::regclass) FROM (
  SELECT c.oid, sum(pg_relation_size(c.oid)) OVER (ORDER BY u.used DESC, c.oid) AS total FROM pg_class c JOIN (
    SELECT relid AS oid, heap_blks_hit + heap_blks_read AS used FROM pg_statio_user_tables
    UNION ALL SELECT indexrelid, idx_blks_hit + idx_blks_read FROM pg_statio_user_indexes) u ON u.oid = c.oid
  WHERE u.used > 0) x
WHERE total <= (SELECT setting::bigint * 8192 / 2 FROM pg_settings WHERE name = 'shared_buffers');
"""


def check_prewarm(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a server with pg_prewarm has loaded its tables. One that warms itself (autoprewarm) gets no verdict.

    https://www.postgresql.org/docs/current/pgprewarm.html
    """
    container, server = context.running(service), server_facts(context, service)
    warmable = [each.database for each in server.maintenance.values() if each.warmable]
    if not warmable or container is None or "pg_prewarm" in server.cluster.settings.get("shared_preload_libraries", ""):
        return
    if (context.state.recall(_DOCUMENT) or {}).get(service) == container.run_key:
        yield ok("its most used tables were loaded since its start")
    else:
        yield warn(
            "its most used tables were not loaded since its start",
            f"pg_prewarm is installed in {', '.join(warmable)}",
            "shared_preload_libraries = 'pg_prewarm' has the server do it by itself",
            fix=Fix("load the most used tables of", partial(load, context, service, server)),
        )


def load(context: CheckContext, service: str, server: Server) -> None:
    """Load the most used tables of the databases that have pg_prewarm. Raises StackError."""
    run = context.container(service).run_key
    for maintenance in server.maintenance.values():
        if maintenance.warmable:
            server.administrator.execute(context, service, _LOAD, maintenance.database, limit=300)
    context.state.update(_DOCUMENT, lambda known: {**(known or {}), service: run})
