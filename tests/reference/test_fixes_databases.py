"""Databases: the reference stack's Postgres and PgBouncer are broken, and repaired by the fixes."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import pytest
from reference_stack import Reference, eventually

# Half of the tests of the reference stack: another worker has a stack of its own for them.
pytestmark = pytest.mark.xdist_group("reference-databases")
_AUTH = "pgbouncer.get_auth(text)"


@pytest.fixture(autouse=True)
def whole(reference: Reference) -> Any:
    """End each test with a stack that is whole and remembered as such; the first begins with that of the start."""
    yield
    reference.is_whole()


def app_works(reference: Reference) -> bool:
    """Whether the api gets through PgBouncer to its tables."""
    asked = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/readyz', timeout=5).status)"
    return reference.compose("exec", "-T", "api", "python3", "-c", asked, check=False).strip() == "200"


def find(document: dict[str, Any], id: str, **wanted: str) -> dict[str, Any]:
    """Return the one finding of this id and these values."""
    found = [
        each
        for each in document["findings"]
        if each["id"] == id and all(each[key] == value for key, value in wanted.items())
    ]
    assert len(found) == 1, found
    entry: dict[str, Any] = found[0]
    return entry


def test_pgbouncers_role_dropped(reference: Reference) -> None:
    reference.sql("DROP OWNED BY pgbouncer; DROP ROLE pgbouncer")
    document = reference.fixes()
    assert {"postgres.role", "postgres.auth_query"} <= set(reference.fixed(document))
    assert app_works(reference)
    assert reference.sql("SELECT rolsuper, rolcanlogin FROM pg_roles WHERE rolname = 'pgbouncer'") == "f|t"
    assert reference.sql(f"SELECT has_function_privilege('public', '{_AUTH}', 'EXECUTE')") == "f"


def test_pgbouncers_password_changed_in_postgres(reference: Reference) -> None:
    reference.sql("ALTER ROLE pgbouncer PASSWORD 'something else'")
    assert reference.fixed(reference.fixes()) == ["postgres.role"]
    assert app_works(reference)


@pytest.mark.parametrize(
    "broken",
    [
        f"DROP FUNCTION {_AUTH}",
        "DROP SCHEMA pgbouncer CASCADE",
        # Each by itself is a case of the unit tests.
        f"REVOKE EXECUTE ON FUNCTION {_AUTH} FROM pgbouncer; REVOKE USAGE ON SCHEMA pgbouncer FROM pgbouncer; "
        "REVOKE CONNECT ON DATABASE app FROM pgbouncer",
    ],
)
def test_auth_function(reference: Reference, broken: str) -> None:
    reference.sql(broken)
    assert "postgres.auth_query" in reference.fixed(reference.fixes())
    assert app_works(reference)
    # Made anew or not: superusers are not handed out, and nobody else may call it.
    assert reference.sql("SELECT count(*) FROM pgbouncer.get_auth('postgres')") == "0"
    assert reference.sql("SELECT count(*) FROM pgbouncer.get_auth('app')") == "1"
    assert reference.sql(f"SELECT has_function_privilege('app', '{_AUTH}', 'EXECUTE')") == "f"


@pytest.mark.parametrize(
    "broken",
    [
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM app",
        "REVOKE INSERT ON tasks FROM app",
        "REVOKE USAGE ON SCHEMA public FROM app",
        "REVOKE CONNECT ON DATABASE app FROM app",
        "DROP OWNED BY app",
    ],
)
def test_app_role_without_grant(reference: Reference, broken: str) -> None:
    before = rights(reference)
    reference.sql(broken)
    assert reference.fixed(reference.fixes()) == ["postgres.grants"]
    assert rights(reference) == before
    assert app_works(reference)


def test_sequences(reference: Reference) -> None:
    reference.sql("SET ROLE migrator; CREATE SEQUENCE numbers")
    try:
        reference.is_whole()
        reference.sql("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM app")
        assert reference.fixed(reference.fixes()) == ["postgres.grants"]
        assert reference.sql("SELECT has_sequence_privilege('app', 'numbers', 'USAGE, SELECT')") == "t"
        assert reference.sql("SELECT has_sequence_privilege('app', 'numbers', 'UPDATE')") == "f"
    finally:
        reference.sql("DROP SEQUENCE numbers")


def test_what_may_be_meant_so_is_told_and_not_undone(reference: Reference) -> None:
    # Nobody has seen app with these rights: a table that was made without them.
    reference.sql("SET ROLE migrator; CREATE TABLE audit (what text); REVOKE DELETE, UPDATE ON audit FROM app")
    try:
        document = reference.fixes()
        assert document["fixes"] == []
        told = find(document, "postgres.grants", subject="app@app")
        assert told["status"] == "warn"
        assert 'GRANT DELETE, UPDATE ON TABLE public.audit TO "app"' in told["remedy"]
        assert reference.sql("SELECT has_table_privilege('app', 'audit', 'DELETE')") == "f"
    finally:
        reference.sql("DROP TABLE audit")


def rights(reference: Reference) -> str:
    """Return all that app may do, in one text."""
    return reference.sql(
        """
        SELECT (SELECT string_agg(relname || ':' || privilege_type, ' ' ORDER BY relname, privilege_type) FROM pg_class,
            aclexplode(relacl) a WHERE a.grantee = 'app'::regrole), has_schema_privilege('app', 'public', 'USAGE'),
            has_schema_privilege('app', 'public', 'CREATE'), has_database_privilege('app', 'app', 'CONNECT'),
            (SELECT string_agg(defaclobjtype::text || ':' || privilege_type, ' ' ORDER BY defaclobjtype, privilege_type)
            FROM pg_default_acl, aclexplode(defaclacl) a WHERE a.grantee = 'app'::regrole)
        """
    )


def test_app_password_changed(reference: Reference) -> None:
    reference.sql("ALTER ROLE app PASSWORD 'something else'")
    assert reference.fixed(reference.fixes()) == ["postgres.role"]
    assert app_works(reference)


def test_a_role_that_was_locked_on_purpose_is_only_told(reference: Reference) -> None:
    reference.sql("ALTER ROLE app NOLOGIN")
    document = reference.fixes(code=1)
    assert document["fixes"] == []
    assert "the role app may not log in" in [each["summary"] for each in document["findings"]]
    reference.sql("ALTER ROLE app LOGIN")


def test_app_role_dropped(reference: Reference) -> None:
    reference.sql("ALTER ROLE app SET search_path = public, pg_temp; ALTER ROLE app SET statement_timeout = '2min'")
    reference.is_whole()
    before = rights(reference)
    reference.sql("DROP OWNED BY app; DROP ROLE app")
    assert {"postgres.role", "postgres.grants"} <= set(reference.fixed(reference.fixes()))
    assert rights(reference) == before
    assert reference.sql("SELECT rolsuper, rolconfig FROM pg_roles WHERE rolname = 'app'") == (
        'f|{"search_path=public, pg_temp",statement_timeout=2min}'
    )
    assert app_works(reference)
    reference.sql("ALTER ROLE app RESET ALL")


def test_a_dry_run_changes_nothing(reference: Reference) -> None:
    reference.sql("DROP FUNCTION pgbouncer.get_auth(text)")
    result = reference.inv("--dry", "services.fixes", "--json")
    assert [each["service"] for each in json.loads(result.stdout)["plan"]] == ["postgres"]
    assert reference.sql("SELECT to_regprocedure('pgbouncer.get_auth(text)') IS NULL") == "t"
    reference.fixes()


def test_pending_migration(reference: Reference) -> None:
    reference.sql("DROP INDEX tasks_created_at; DELETE FROM schema_migrations WHERE version = '0003_created_index'")
    assert reference.fixed(reference.fixes()) == ["databases.migrations"]
    assert reference.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'tasks_created_at'::regclass") == "t"


def test_half_applied_migration_is_for_a_person(reference: Reference) -> None:
    reference.sql("UPDATE schema_migrations SET finished_at = NULL WHERE version = '0003_created_index'")
    reference.sql("DELETE FROM schema_migrations WHERE version = '0002_results'")
    before = reference.identities()["migrate"]
    try:
        document = reference.fixes(code=1)
        assert document["fixes"] == []
        told = find(document, "databases.migrations")
        assert told["status"] == "fail"
        assert "0003_created_index" in told["summary"]
        assert reference.identities()["migrate"] == before
    finally:
        reference.sql("UPDATE schema_migrations SET finished_at = now() WHERE finished_at IS NULL")
        reference.sql(
            "INSERT INTO schema_migrations (version, checksum, finished_at) VALUES "
            f"('0002_results', '{checksum(reference, '0002_results')}', now())"
        )


def test_a_lost_record_of_migrations_is_for_a_person(reference: Reference) -> None:
    reference.sql("ALTER TABLE schema_migrations RENAME TO elsewhere")
    try:
        document = reference.fixes(code=1)
        assert document["fixes"] == []
        told = find(document, "databases.migrations")
        assert (told["status"], told["fixable"]) == ("fail", False)
        assert "3 migrations are pending: 0001_tasks" in told["summary"]
    finally:
        reference.sql("ALTER TABLE elsewhere RENAME TO schema_migrations")


def test_an_empty_database_is_migrated(reference: Reference) -> None:
    reference.sql("DROP TABLE tasks, schema_migrations")
    assert "databases.migrations" in reference.fixed(reference.fixes())
    assert reference.sql("SELECT count(*) FROM schema_migrations WHERE finished_at IS NOT NULL") == "3"
    assert app_works(reference)


def checksum(reference: Reference, version: str) -> str:
    """Return the checksum that the project's own migrate program keeps of a file."""
    import hashlib

    return hashlib.sha256((reference.directory / f"app/migrations/{version}.sql").read_bytes()).hexdigest()


def test_invalid_index(reference: Reference) -> None:
    reference.sql("CREATE TABLE twins (n int); INSERT INTO twins VALUES (1), (1)")
    try:
        failed = reference.compose(
            *("exec", "-T", "postgres", "psql", "-XU", "postgres", "-d", "app", "-c"),
            "CREATE UNIQUE INDEX CONCURRENTLY twins_n ON twins (n)",
            check=False,
        )
        assert "CREATE INDEX" not in failed
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'twins_n'::regclass"
        assert reference.sql(valid) == "f"

        # As long as there are duplicates it cannot be built, and nothing of the attempt is left behind.
        document = reference.fixes(code=1)
        assert [each["ok"] for each in document["fixes"]] == [False]
        assert "duplicated" in document["fixes"][0]["error"] or "unique" in document["fixes"][0]["error"]
        assert reference.sql("SELECT count(*) FROM pg_class WHERE relname ~ '_ccnew'") == "0"

        reference.sql("DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins)")
        assert reference.fixed(reference.fixes()) == ["postgres.index"]
        assert reference.sql(valid) == "t"
    finally:
        reference.sql("DROP TABLE twins")


def test_what_a_reindex_left_behind_is_dropped(reference: Reference) -> None:
    reference.sql("CREATE INDEX tasks_state_ccnew ON tasks (state)")
    reference.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tasks_state_ccnew'::regclass")
    assert reference.fixed(reference.fixes()) == ["postgres.index"]
    assert reference.sql("SELECT to_regclass('tasks_state_ccnew') IS NULL") == "t"


def test_a_table_that_was_never_analysed(reference: Reference) -> None:
    reference.sql("CREATE TABLE many WITH (autovacuum_enabled = false) AS SELECT generate_series(1, 50000) AS n")
    try:
        assert reference.fixed(reference.fixes()) == ["postgres.analyse"]
    finally:
        reference.sql("DROP TABLE many")


def running_pool(reference: Reference) -> int:
    console = "psql -h /run/pgbouncer -p 6432 -U pgbouncer -d pgbouncer -XAtqc 'SHOW CONFIG'"
    said = reference.compose("exec", "-T", "pgbouncer", "sh", "-c", console)
    return int(next(line.split("|")[1] for line in said.splitlines() if line.startswith("default_pool_size|")))


def test_pools_larger_than_max_connections_by_the_file(reference: Reference) -> None:
    ini = "/etc/stack/pgbouncer.ini"
    edit = ("exec", "-T", "-u", "root", "pgbouncer", "sed", "-i")
    reference.compose(*edit, "s/^default_pool_size = 15/default_pool_size = 100/", ini)
    reload_ = "psql -h /run/pgbouncer -p 6432 -U pgbouncer -d pgbouncer -XAtqc RELOAD"
    reference.compose("exec", "-T", "pgbouncer", "sh", "-c", reload_)
    assert running_pool(reference) == 100
    try:
        document = reference.fixes()
        assert reference.fixed(document) == ["pgbouncer.pools"]
        size = running_pool(reference)
        assert 2 * (size + 5) <= 57 < 2 * (100 + 5)
        told = find(document, "pgbouncer.pools_file")
        assert (told["status"], told["fixable"]) == ("warn", False)
        assert f"default_pool_size = {size}" in told["remedy"]
        assert reference.fixes()["fixes"] == []
    finally:
        reference.compose(*edit, "s/^default_pool_size = 100/default_pool_size = 15/", ini)
        reference.compose("exec", "-T", "pgbouncer", "sh", "-c", reload_)
    assert running_pool(reference) == 15


def test_pools_larger_than_max_connections_by_the_server(reference: Reference) -> None:
    reference.sql("ALTER SYSTEM SET max_connections = 20")
    try:
        reference.compose("restart", "--no-deps", "postgres")
        eventually(lambda: app_works(reference))
        document = reference.fixes()
        assert reference.fixed(document) == ["pgbouncer.pools"]
        assert 2 * (running_pool(reference) + 5) <= 17
    finally:
        reference.sql("ALTER SYSTEM RESET max_connections")
        reference.compose("restart", "--no-deps", "postgres", "pgbouncer")
        eventually(lambda: app_works(reference))


def test_a_console_that_lets_nobody_in(reference: Reference) -> None:
    """PgBouncer 1.18 ends when somebody who is not in its auth_file asks for its console."""
    ini, kept = "/etc/stack/pgbouncer.ini", "/etc/stack/kept.ini"
    as_root = ("exec", "-T", "-u", "root", "pgbouncer")
    reference.compose(*as_root, "cp", ini, kept)
    reference.compose(
        *as_root, "sed", "-i", "-e", "s/^unix_socket_dir.*/unix_socket_dir =/", "-e", "/^stats_users/d", ini
    )
    try:
        reference.compose("restart", "--no-deps", "pgbouncer")
        eventually(lambda: app_works(reference))
        before = reference.identities()["pgbouncer"]
        # Its healthcheck asks the console, and is not let in any more.
        document = reference.inv("services.fixes", "--json").json()
        assert find(document, "pgbouncer.answers")["status"] == "ok"
        assert find(document, "pgbouncer.login")["status"] == "ok"
        assert reference.identities()["pgbouncer"] == before
        assert app_works(reference)
    finally:
        reference.compose(*as_root, "mv", kept, ini)
        reference.compose("restart", "--no-deps", "pgbouncer")
        eventually(lambda: app_works(reference))


def test_a_server_that_admits_roles_from_pgbouncers_address_alone(reference: Reference) -> None:
    hba, kept = "/etc/stack/pg_hba.conf", "/etc/stack/kept.conf"
    as_root = ("exec", "-T", "-u", "root", "postgres")
    (network,) = reference.container("pgbouncer")["NetworkSettings"]["Networks"].values()
    lines = (
        "local all postgres peer",
        "host all migrator all scram-sha-256",
        f"host all all {network['IPAddress']}/32 scram-sha-256",
    )
    reference.compose(*as_root, "cp", hba, kept)
    reference.compose(*as_root, "sh", "-c", f"printf '%s\\n' \"$@\" > {hba}", "sh", *lines)
    try:
        reference.sql("SELECT pg_reload_conf()")
        eventually(lambda: "no pg_hba.conf entry" in _directly(reference))
        reference.is_whole()
    finally:
        reference.compose(*as_root, "mv", kept, hba)
        reference.sql("SELECT pg_reload_conf()")


def _directly(reference: Reference) -> str:
    """Return what comes of a direct login as app, with no password."""
    words = ("exec", "-T", "postgres", "sh", "-c", "psql -w -h postgres -U app -d app -c 'SELECT 1' 2>&1; true")
    return reference.compose(*words)


def test_killed_in_the_middle(reference: Reference) -> None:
    """SIGKILL right after an action was told; whatever was done by then, the next run repairs."""
    for moment in ("put right the role app", "restore the lookup", "give back the rights"):
        reference.sql("DROP OWNED BY app; DROP ROLE app; DROP OWNED BY pgbouncer; DROP ROLE pgbouncer")
        run = reference.start_inv("services.fixes")
        run.wait_for(moment)
        run.signal(signal.SIGKILL)
        run.wait()
        run.close()
        reference.fixes()
        assert app_works(reference)
    reference.sql("ALTER ROLE app PASSWORD NULL")
    reference.fixes()
    assert app_works(reference)


def test_no_password_in_the_servers_log(reference: Reference) -> None:
    reference.sql("ALTER SYSTEM SET log_statement = 'all'")
    reference.sql("SELECT pg_reload_conf()")
    try:
        reference.sql("DROP OWNED BY pgbouncer; DROP ROLE pgbouncer; ALTER ROLE app PASSWORD 'something else'")
        assert "postgres.role" in reference.fixed(reference.fixes())
        log = reference.compose("logs", "--no-log-prefix", "postgres")
        assert "GRANT EXECUTE" in log
        for file in (reference.directory / "secrets").glob("*.txt"):
            assert file.read_text() not in log
        assert not re.search(r"SCRAM-SHA-256\$", log)
    finally:
        reference.sql("ALTER SYSTEM RESET log_statement")
        reference.sql("SELECT pg_reload_conf()")


def test_no_backend_was_ever_taken_for_crashed(reference: Reference) -> None:
    """What is run inside the container and cut off must not become the postmaster's child: see run_sql.sh."""
    reference.sql("REVOKE CONNECT ON DATABASE app FROM app")
    reference.fixes()
    assert "reinitializing" not in reference.compose("logs", "--no-log-prefix", "postgres")
