"""A database that is made at its first start, whose temporary server passes the healthcheck meanwhile."""

from __future__ import annotations

import pytest
from reference_stack import IMAGES, Reference, eventually
from support import Project

# It goes on until the test lets it.
MAKING = """
CREATE TABLE made (row int);
DO $$ BEGIN WHILE pg_stat_file('/tmp/go', true) IS NULL LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
INSERT INTO made VALUES (1);
"""
ANYBODY = "host all all all trust\nlocal all all trust\n"


# Beside the databases' tests: the other worker has the longer half.
@pytest.mark.xdist_group("reference-databases")
def test_nobody_starts_before_the_database_is_made(reference: Reference, project: Project) -> None:
    mounted = {
        "roles.sql": ("/etc/stack/roles.sql", MAKING),
        "pg_hba.conf": ("/etc/stack/pg_hba.conf", ANYBODY),
        "password": ("/run/secrets/postgres_password", "of a test"),
    }
    for name, (_, text) in mounted.items():
        (project.directory / name).write_text(text)
        (project.directory / name).chmod(0o644)
    image = {"image": f"{IMAGES}-postgres"}
    db = {
        **image,
        # Through the socket, as many healthchecks ask; soon healthy for the engine, too.
        "healthcheck": {"test": ["CMD", "pg_isready", "-q", "-U", "postgres"], "interval": "1s"},
        "volumes": [f"./{name}:{target}:ro" for name, (target, _) in mounted.items()],
    }
    count = ["psql", "-h", "db", "-U", "postgres", "-XAtc", "SELECT count(*) FROM made"]
    migrate = {
        **image,
        "entrypoint": count,
        "environment": {"DATABASE_URL": "postgres://missing@db/postgres"},
        "depends_on": {"db": {"condition": "service_healthy"}},
    }
    project.services(db=db, migrate=migrate)

    early = project.inv("up", "--no-fixes", "--json", "--timeout", "4")
    assert early.code == 1, early
    errors = {each["name"]: each["error"] for each in early.json()["services"]}
    assert "its data is still being made" in errors["db"]["reason"]
    assert errors["migrate"]["reason"] == "skipped" or "db" in errors["migrate"]["reason"]
    eventually(lambda: project.container("db")["State"]["Health"]["Status"] == "healthy")
    status = {each["name"]: each for each in project.inv("services.status", "--json").json()["services"]}
    assert (status["db"]["state"], status["db"]["ready"]) == ("starting", False)
    fixes = project.inv("services.fixes", "--json", "-s", "db").json()
    found = {each["id"]: each["status"] for each in fixes["findings"]}
    assert (found["services.ready"], found["postgres.answers"], fixes["fixes"]) == ("fail", "skip", [])

    project.compose("exec", "-T", "db", "touch", "/tmp/go")
    late = project.inv("up", "--no-fixes", "--json")
    assert late.code == 0, late
    assert project.docker("logs", project.container("migrate")["Id"]).strip() == "1"
    assert project.inv("services.status", "-s", "db").code == 0
