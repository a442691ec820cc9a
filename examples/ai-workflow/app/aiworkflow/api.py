"""The HTTP interface of the workflow."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
from fastapi import FastAPI, HTTPException, Response
from kombu.exceptions import OperationalError
from pydantic import BaseModel, Field

from . import db
from .queue import celery

app = FastAPI(title="ai-workflow")


class NewTask(BaseModel):
    text: str = Field(min_length=1, max_length=100_000)
    seconds: float = Field(default=0, ge=0, le=60)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Is this process answering? Deliberately nothing about the services behind it: see /readyz."""
    return {"status": "ok"}


@app.get("/readyz")
def readyz(response: Response) -> dict[str, str]:
    """Can it do its work: are the database, through PgBouncer, and the queue there?"""
    checks = {"database": _check(db.ping), "queue": _check(_ping_queue)}
    if any(answer != "ok" for answer in checks.values()):
        response.status_code = 503
    return checks


@app.post("/tasks", status_code=202)
def submit(new: NewTask) -> dict[str, str]:
    task_id = uuid4()
    try:
        db.add(task_id, new.text)
        celery.send_task("analyse", (str(task_id), new.seconds), task_id=str(task_id), retry=False)
    except (psycopg.Error, OperationalError, OSError) as error:
        raise HTTPException(503, detail=f"cannot be taken now: {type(error).__name__}") from error
    return {"id": str(task_id), "state": "queued"}


@app.get("/tasks")
def tasks(limit: int = 20) -> list[db.Task]:
    return db.latest(max(1, min(limit, 100)))


@app.get("/tasks/{task_id}")
def task(task_id: UUID) -> dict[str, Any]:
    """The row of the task, and what Celery itself says about it."""
    row = db.get(task_id)
    if row is None:
        raise HTTPException(404, detail="no such task")
    return {**row, "celery": celery.AsyncResult(str(task_id)).state}


def _ping_queue() -> None:
    with celery.connection_for_write() as connection:
        connection.ensure_connection(max_retries=0, timeout=3)


def _check(probe: Any) -> str:
    try:
        probe()
    except Exception as error:  # whatever is wrong, the answer says so instead of failing itself
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return "ok"
