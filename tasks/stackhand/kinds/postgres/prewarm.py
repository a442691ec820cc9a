"""pg_prewarm: where it is installed, the most used tables are read into memory once for each run of the server."""

from __future__ import annotations

from collections.abc import Iterable

from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.facts import Server
from stackhand.kinds.postgres.psql import Admin
from stackhand.model import Finding

PREWARM = "postgres.prewarm"
_MEMORY = "prewarmed"
# Up to half of the buffers, the most used first: the rest is for what comes.
_LOAD = """
SELECT pg_prewarm(oid::regclass) FROM (
  SELECT c.oid, sum(pg_relation_size(c.oid)) OVER (ORDER BY u.used DESC, c.oid) AS total FROM pg_class c JOIN (
    SELECT relid AS oid, heap_blks_hit + heap_blks_read AS used FROM pg_statio_user_tables
    UNION ALL SELECT indexrelid, idx_blks_hit + idx_blks_read FROM pg_statio_user_indexes) u ON u.oid = c.oid
  WHERE u.used > 0) x
WHERE total <= (SELECT setting::bigint * 8192 / 2 FROM pg_settings WHERE name = 'shared_buffers');
"""


def judge(context: CheckContext, service: str, server: Server) -> Iterable[Finding]:
    """Return the finding about a server that has pg_prewarm; one that keeps itself warm (autoprewarm) has none."""
    container = context.running(service)
    warmable = [each.database for each in server.upkeep.values() if each.warmable]
    if not warmable or container is None or "pg_prewarm" in server.cluster.settings.get("shared_preload_libraries", ""):
        return
    if (context.state.recall(_MEMORY) or {}).get(service) == container.run_key:
        yield Finding(PREWARM, service, "caches", "ok", "its most used tables were loaded since its start")
    else:
        yield Finding(
            PREWARM,
            service,
            "caches",
            "warn",
            "its most used tables were not loaded since its start",
            evidence=f"pg_prewarm is installed in {', '.join(warmable)}",
            remedy="shared_preload_libraries = 'pg_prewarm' has the server do it by itself",
            fixable=True,
        )


def load(context: CheckContext, service: str, server: Server, admin: Admin) -> None:
    """Load the most used tables of the databases that have pg_prewarm. Raises StackError."""
    run = context.container(service).run_key
    for upkeep in server.upkeep.values():
        if upkeep.warmable:
            admin.execute(context, service, _LOAD, upkeep.database, limit=300)
    context.state.update(_MEMORY, lambda known: {**(known or {}), service: run})
