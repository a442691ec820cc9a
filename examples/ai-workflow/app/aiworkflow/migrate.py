"""Brings the database to the structure this version needs. Running it again changes nothing.

    python3 -m aiworkflow.migrate            apply what is pending
    python3 -m aiworkflow.migrate status     one line a migration; exits 1 when something is pending or half done

Each migration is a file of plain SQL in migrations/, applied in the order of the names, in one transaction together
with its row in schema_migrations. What cannot run in a transaction (CREATE INDEX CONCURRENTLY) says so in its first
line; it has one statement, and when it fails its row stays with finished_at NULL, to be looked at by a person.
"""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from .settings import database_parameters

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
OUTSIDE_TRANSACTION = "-- migrate: no transaction"
# Any number, as long as it is always the same: two runs at once wait for each other.
LOCK = 7_201_944

TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version text PRIMARY KEY,
    checksum text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
)
"""


class MigrationError(Exception):
    """The database is in a state that must not be guessed about."""


@dataclass(frozen=True)
class Migration:
    version: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def transactional(self) -> bool:
        return not self.sql.startswith(OUTSIDE_TRANSACTION)


def known() -> list[Migration]:
    return [Migration(file.stem, file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.sql"))]


def states(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """For each migration: applied, pending, changed (the file, after it was applied), half done, or unknown."""
    connection.execute(TABLE)
    rows = connection.execute("SELECT version, checksum, finished_at FROM schema_migrations ORDER BY version")
    recorded = {version: (checksum, finished) for version, checksum, finished in rows}
    result: dict[str, str] = {}
    for migration in known():
        checksum, finished = recorded.pop(migration.version, (None, None))
        if checksum is None:
            result[migration.version] = "pending"
        elif finished is None:
            result[migration.version] = "half done"
        else:
            result[migration.version] = "applied" if checksum == migration.checksum else "changed"
    # Applied by a newer version of this program: fine for a roll-back of the code.
    return result | dict.fromkeys(recorded, "unknown")


def apply(connection: psycopg.Connection[Any], migration: Migration) -> None:
    start = "INSERT INTO schema_migrations (version, checksum) VALUES (%s, %s)"
    finish = "UPDATE schema_migrations SET finished_at = clock_timestamp() WHERE version = %s"
    if migration.transactional:
        with connection.transaction():
            connection.execute(start, (migration.version, migration.checksum))
            connection.execute(migration.sql)
            connection.execute(finish, (migration.version,))
    else:
        connection.execute(start, (migration.version, migration.checksum))
        connection.execute(migration.sql)
        connection.execute(finish, (migration.version,))


def migrate(connection: psycopg.Connection[Any]) -> int:
    """Applies what is pending and returns how many that were."""
    # Asked again and again instead of waiting inside one statement: CREATE INDEX CONCURRENTLY waits for every running
    # statement, so the run that holds the lock and one that waits for it would wait for each other.
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
        time.sleep(0.2)
    current = states(connection)
    for version, state in current.items():
        if state in ("half done", "changed"):
            raise MigrationError(f"{version} is {state}; look at it and repair it by hand")
    pending = [migration for migration in known() if current[migration.version] == "pending"]
    for migration in pending:
        print(f"applying {migration.version}")
        apply(connection, migration)
    return len(pending)


def main(arguments: list[str]) -> int:
    # Without a surrounding transaction: each migration brings its own.
    with psycopg.connect(**database_parameters(), autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("SET client_min_messages = warning")
        if arguments == ["status"]:
            current = states(connection)
            for version, state in current.items():
                print(f"{version}: {state}")
            return 0 if set(current.values()) <= {"applied", "unknown"} else 1
        if arguments:
            print(f"error: unknown argument {arguments[0]!r}; known: status", file=sys.stderr)
            return 2
        applied = migrate(connection)
    print(f"{applied} applied" if applied else "nothing to do")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (MigrationError, psycopg.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
