"""A database that is made at its first start, whose temporary server passes the healthcheck meanwhile."""

from __future__ import annotations

import pytest
from reference_stack import IMAGES, Reference
from support import Project


# Beside the databases' tests: the other worker has the longer half.
@pytest.mark.xdist_group("reference-databases")
def test_a_migration_waits_until_the_database_is_made(reference: Reference, project: Project) -> None:
    initialising = "CREATE TABLE made (row int); SELECT pg_sleep(2); INSERT INTO made VALUES (1);"
    (project.directory / "roles.sql").write_text(initialising)
    (project.directory / "password").write_text("of a test")
    (project.directory / "password").chmod(0o644)
    hba = "host all all all trust\nlocal all all trust\n"
    (project.directory / "pg_hba.conf").write_text(hba)
    image = {"image": f"{IMAGES}-postgres"}
    db = {
        **image,
        # Through the socket, as many healthchecks ask, and never by the engine in time.
        "healthcheck": {"test": ["CMD", "pg_isready", "-q", "-U", "postgres"], "interval": "300s"},
        "volumes": [
            "./roles.sql:/etc/stack/roles.sql:ro",
            "./pg_hba.conf:/etc/stack/pg_hba.conf:ro",
            "./password:/run/secrets/postgres_password:ro",
        ],
    }
    count = ["psql", "-h", "db", "-U", "postgres", "-XAtc", "SELECT count(*) FROM made"]
    migrate = {**image, "entrypoint": count, "depends_on": {"db": {"condition": "service_healthy"}}}
    project.services(db=db, migrate=migrate)
    started = project.inv("up", "--no-fixes", "--json")
    assert started.code == 0, started
    attempts = {each["name"]: each["attempts"] for each in started.json()["services"]}
    assert attempts == {"db": 1, "migrate": 1}
    assert project.docker("logs", project.container("migrate")["Id"]).strip() == "1"
