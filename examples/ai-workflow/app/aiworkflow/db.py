"""The rows of the workflow, read and written through PgBouncer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict, cast
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from .settings import database_parameters


class Task(TypedDict):
    id: UUID
    text: str
    state: str
    result: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


def connect() -> psycopg.Connection[Any]:
    """A connection for one piece of work; PgBouncer is the pool.

    It pools by transaction: the next one may run on another server connection, which does not know the prepared
    statements of this one. So there are none.
    """
    return psycopg.connect(**database_parameters(), prepare_threshold=None)  # type: ignore[arg-type]


def add(task_id: UUID, text: str) -> None:
    with connect() as connection:
        connection.execute("INSERT INTO tasks (id, text) VALUES (%s, %s)", (task_id, text))


def finish(task_id: UUID, result: dict[str, Any]) -> None:
    with connect() as connection:
        connection.execute(
            "UPDATE tasks SET state = 'done', result = %s, finished_at = now() WHERE id = %s",
            (Jsonb(result), task_id),
        )


def get(task_id: UUID) -> Task | None:
    with connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("SELECT * FROM tasks WHERE id = %s", (task_id,)).fetchone()
    return cast("Task | None", row)


def latest(limit: int) -> list[Task]:
    with connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM tasks ORDER BY created_at DESC LIMIT %s", (limit,)).fetchall()
    return cast("list[Task]", rows)


def ping() -> None:
    with connect() as connection:
        connection.execute("SELECT 1 FROM tasks WHERE false")
