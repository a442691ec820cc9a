"""What the worker does."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any
from uuid import UUID

import psycopg
from celery.exceptions import Ignore  # type: ignore[import-untyped]

from . import db
from .queue import celery
from .settings import ollama_url


# A database that is away for a moment is no reason to lose a task.
@celery.task(name="analyse", bind=True, autoretry_for=(psycopg.OperationalError,), retry_backoff=True)  # type: ignore[untyped-decorator]
def analyse(self: Any, task_id: str, seconds: float = 0) -> dict[str, Any]:
    """Counts the words of a text and notes which models were there to work on it.

    `seconds` makes it take longer, to look at a queue with something in it.
    """
    task = db.get(UUID(task_id))
    if task is None:
        raise Ignore
    time.sleep(seconds)
    result: dict[str, Any] = {
        "words": len(task["text"].split()),
        "characters": len(task["text"]),
        "models": models(),
        "worker": self.request.hostname,
        "pid": os.getpid(),
    }
    db.finish(UUID(task_id), result)
    return result


def models() -> list[str] | None:
    """The names of the models Ollama has, or None when it is not there: the worker does without."""
    try:
        with urllib.request.urlopen(f"{ollama_url()}/api/tags", timeout=2) as answer:
            return [str(model["name"]) for model in json.load(answer)["models"]]
    except (OSError, ValueError, KeyError):
        return None
