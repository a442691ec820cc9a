"""The script that asks a Postgres server for everything at once. Each statement answers with one line of JSON.

Names of tables, schemas and functions come back as SQL has them (quote_ident), those of roles and databases plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stackhand.kinds.postgres.psql import identifier, literal, names

# Tables in which migration tools keep what they have applied.
MIGRATION_TABLES = (
    "schema_migrations",
    "alembic_version",
    "flyway_schema_history",
    "_prisma_migrations",
    "goose_db_version",
    "_sqlx_migrations",
)
# Only these columns are read: a log column can hold anything.
_COLUMNS = (
    "version",
    "dirty",
    "started_at",
    "finished_at",
    "version_num",
    "success",
    "migration_name",
    "rolled_back_at",
    "version_id",
    "is_applied",
    "id",
    "script",
    "type",
)
_SETTINGS = (
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "shared_buffers",
    "password_encryption",
    "shared_preload_libraries",
    "listen_addresses",
)
# Settings of a role that say how it works. Any other may be private.
ROLE_SETTINGS = (
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "default_transaction_isolation",
    "timezone",
)


def script(
    databases: Sequence[str],
    roles: Sequence[str],
    functions: Mapping[str, Sequence[str]],
    configured: Mapping[str, Mapping[str, str]],
) -> str:
    """Return the script for some databases.

    `functions` are the names of each database's auth functions, `configured` its configured grants: an expression for
    each. A database that does not exist is skipped.
    """
    parts = []
    for number, database in enumerate(databases):
        exists = f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal(database)} AND datallowconn)"
        parts += [
            f"{exists} AS here{number} \\gset",
            f"\\if :here{number}",
            # As a connection string the name may be anything.
            f"\\connect {identifier(database)}",
            rights(roles, functions.get(database, ()), configured.get(database, {})),
            MAINTENANCE,
            MIGRATIONS,
            "\\endif",
        ]
    return "\n".join(parts)


def cluster(roles: Sequence[str]) -> str:
    """Return the question about the server as a whole."""
    return f"""
SELECT json_build_object('section', 'cluster',
  'version', current_setting('server_version_num')::int,
  'identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'recovery', pg_is_in_recovery(),
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY ({names(_SETTINGS)})),
  'roles', (SELECT coalesce(json_agg(json_build_object(
      'name', r.rolname, 'login', r.rolcanlogin, 'superuser', r.rolsuper, 'limit', r.rolconnlimit,
      'expired', coalesce(r.rolvaliduntil < now(), false),
      'fingerprint', coalesce(encode(sha256(convert_to(r.rolpassword, 'UTF8')), 'hex'), ''),
      'settings', coalesce((SELECT array_agg(each) FROM pg_db_role_setting s, unnest(s.setconfig) AS each
          WHERE s.setrole = r.oid AND s.setdatabase = 0
          AND lower(split_part(each, '=', 1)) = ANY ({names(ROLE_SETTINGS)}::text[])), '{{}}'),
      'member_of', coalesce((SELECT array_agg(g.rolname ORDER BY g.rolname) FROM pg_auth_members m
          JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid), '{{}}'))), '[]')
    FROM pg_authid r WHERE r.rolcanlogin OR r.rolname = ANY ({names(roles)})),
  'databases', (SELECT json_agg(datname) FROM pg_database WHERE datallowconn),
  'orphans', (SELECT count(*) FROM pg_stat_activity a WHERE {ORPHAN}));
"""


# An idle session whose role was dropped: its next query fails, and a pool would hand it out again.
ORPHAN = """a.backend_type = 'client backend' AND a.state = 'idle' AND a.usesysid IS NOT NULL
    AND NOT EXISTS (SELECT FROM pg_roles o WHERE o.oid = a.usesysid)"""


def rights(roles: Sequence[str], functions: Sequence[str], configured: Mapping[str, str]) -> str:
    """Return the question about who may do what in the current database."""
    grants = ", ".join(f"{literal(grant)}, {expression}" for grant, expression in configured.items())
    return f"""
WITH who AS (SELECT oid, rolname::text AS role FROM pg_roles WHERE rolname = ANY ({names(roles)})),
space AS (SELECT oid, quote_ident(nspname) AS name, nspowner, nspacl FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
thing AS (
  SELECT c.oid, s.oid AS space, s.name AS schema, quote_ident(c.relname) AS name, c.relowner AS owner,
    CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END AS kind, c.relacl AS acl
  FROM pg_class c JOIN space s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  UNION ALL
  SELECT p.oid, s.oid, s.name, format('%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner,
    'f', p.proacl
  FROM pg_proc p JOIN space s ON s.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
),
held AS (
  SELECT w.role, t.schema, t.kind, t.name, array_agg(a.privilege_type ORDER BY a.privilege_type) AS privileges
  FROM thing t CROSS JOIN LATERAL aclexplode(t.acl) a JOIN who w ON w.oid = a.grantee
  WHERE t.owner <> w.oid GROUP BY 1, 2, 3, 4
),
given AS (
  SELECT w.oid, w.role, d.defaclrole AS owner, d.defaclnamespace AS space, d.defaclobjtype::text AS kind,
    a.privilege_type
  FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) a JOIN who w ON w.oid = a.grantee
  WHERE w.oid <> d.defaclrole AND d.defaclobjtype IN ('r', 'S', 'f')
),
missing AS (
  SELECT g.role, t.schema, t.kind, t.name, array_agg(g.privilege_type ORDER BY g.privilege_type) AS privileges
  FROM given g JOIN thing t ON t.owner = g.owner AND t.kind = g.kind AND (g.space = 0 OR g.space = t.space)
  WHERE NOT CASE t.kind WHEN 'S' THEN has_sequence_privilege(g.oid, t.oid, g.privilege_type)
    WHEN 'f' THEN has_function_privilege(g.oid, t.oid, g.privilege_type)
    ELSE has_table_privilege(g.oid, t.oid, g.privilege_type) END
  GROUP BY 1, 2, 3, 4
)
SELECT json_build_object('section', 'rights', 'database', current_database(),
  'owner', pg_get_userbyid(b.datdba),
  'connect', (SELECT coalesce(json_agg(role), '[]') FROM who WHERE has_database_privilege(oid, b.oid, 'CONNECT')),
  'schemas', (SELECT coalesce(json_agg(json_build_object('name', s.name,
      'usage', (SELECT coalesce(json_agg(role), '[]') FROM who WHERE has_schema_privilege(oid, s.oid, 'USAGE')),
      'granted', (SELECT coalesce(json_object_agg(role, privileges), '{{}}') FROM (SELECT w.role,
          array_agg(a.privilege_type ORDER BY a.privilege_type) AS privileges
          FROM aclexplode(s.nspacl) a JOIN who w ON w.oid = a.grantee WHERE w.oid <> s.nspowner GROUP BY 1) x))),
    '[]') FROM space s),
  'held', (SELECT coalesce(json_agg(x), '[]') FROM (SELECT role, schema, kind, privileges,
      array_agg(name ORDER BY name) AS names FROM held GROUP BY 1, 2, 3, 4) x),
  'defaults', (SELECT coalesce(json_agg(x), '[]') FROM (SELECT g.role, pg_get_userbyid(g.owner)::text AS owner,
      coalesce(s.name, '') AS schema, g.kind, array_agg(g.privilege_type ORDER BY g.privilege_type) AS privileges
      FROM given g LEFT JOIN space s ON s.oid = g.space GROUP BY 1, 2, 3, 4) x),
  'missing', (SELECT coalesce(json_agg(x), '[]') FROM (SELECT role, schema, kind, privileges,
      array_agg(name ORDER BY name) AS names FROM missing GROUP BY 1, 2, 3, 4) x),
  'owners', (SELECT coalesce(json_agg(DISTINCT w.role), '[]') FROM who w WHERE w.oid = b.datdba
      OR EXISTS (SELECT FROM thing t WHERE t.owner = w.oid) OR EXISTS (SELECT FROM space s WHERE s.nspowner = w.oid)),
  'functions', (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', p.proname,
      'signature', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
      'execute', (SELECT coalesce(json_agg(role), '[]') FROM who WHERE has_function_privilege(oid, p.oid, 'EXECUTE')))),
    '[]') FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.proname = ANY ({names(functions)}) AND p.pronargs = 1),
  'configured', json_build_object({grants}),
  'objects', (SELECT coalesce(json_agg(x), '[]') FROM (SELECT '' AS role, schema, kind, ARRAY[]::text[] AS privileges,
      array_agg(name ORDER BY name) AS names FROM thing GROUP BY schema, kind) x),
  'closed', (SELECT count(*) > 0 AND NOT coalesce(bool_or(
        EXISTS (SELECT FROM aclexplode(t.acl) a WHERE a.grantee = 0)), false)
      FROM thing t WHERE t.kind <> 'f' AND NOT EXISTS (SELECT FROM pg_depend d
          WHERE d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.deptype = 'e'))
) FROM pg_database b WHERE b.datname = current_database();
"""


# A table was never analysed when pg_statistic has nothing of its columns. The statistics views do not tell: a crash
# empties them. 1 MB stands for "many rows", some ten thousand.
# The expected size of a B-tree: an entry has 8 bytes of header, 4 of line pointer and its columns, at a fill factor of
# 90 % (https://www.postgresql.org/docs/current/storage-page-layout.html).
MAINTENANCE = """
SELECT json_build_object('section', 'maintenance', 'database', current_database(),
  'unanalysed', (SELECT coalesce(json_object_agg(x.name, x.size), '{}') FROM (
      SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_relation_size(c.oid) AS size
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
      AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid)) x
      WHERE x.size >= 1048576),
  'invalid', (SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', n.nspname, c.relname),
      'table', format('%I.%I', tn.nspname, t.relname), 'unique', i.indisunique)), '[]')
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
      WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND n.nspname !~ '^pg_' AND NOT EXISTS (
          SELECT FROM pg_stat_progress_create_index p WHERE p.relid = i.indrelid)),
  'bloated', (SELECT coalesce(json_agg(json_build_object('name', x.name, 'table', x.tab, 'size', x.size,
      'expected', x.expected::bigint)), '[]') FROM (
      SELECT format('%I.%I', n.nspname, c.relname) AS name, i.indrelid::regclass::text AS tab,
        c.relpages::bigint * current_setting('block_size')::int AS size,
        greatest(c.reltuples, 0) * (12 + sum(coalesce(s.stawidth, 8)))
          / 0.9 + 2 * current_setting('block_size')::int AS expected
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
      JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL unnest(i.indkey::int2[]) AS key
      LEFT JOIN pg_statistic s ON s.starelid = i.indrelid AND s.staattnum = key AND NOT s.stainherit
      WHERE c.relkind = 'i' AND n.nspname !~ '^pg_' AND i.indexprs IS NULL AND i.indisvalid AND c.reltuples >= 0
      AND c.relpages::bigint * current_setting('block_size')::int > 10485760
      GROUP BY n.nspname, c.relname, i.indrelid, c.relpages, c.reltuples) x WHERE x.size > 4 * x.expected),
  'warmable', EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_prewarm')
);
"""

MIGRATIONS = f"""
SELECT format('SELECT json_build_object(''section'', ''migrations'', ''database'', current_database(), '
    '''schema'', %L, ''table'', %L, ''rows'', coalesce((SELECT json_agg((SELECT json_object_agg(k.key, k.value) '
    'FROM jsonb_each(to_jsonb(t)) k WHERE k.key = ANY (%L::text[]))) '
    'FROM (SELECT * FROM %I.%I LIMIT 10000) t), ''[]''))',
    n.nspname, c.relname, {names(_COLUMNS)}::text[], n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relname = ANY ({names(MIGRATION_TABLES)}) AND n.nspname !~ '^pg_' \\gexec
"""
