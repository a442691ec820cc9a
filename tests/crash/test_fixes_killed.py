"""Fixes are killed in their middle: whatever was done by then, the next run leaves a stack that is whole."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from reference_stack import Reference


def redis_loses_a_user(reference: Reference) -> None:
    reference.redis("SET", "mark", "kept")
    reference.redis("ACL", "DELUSER", "app")
    reference.redis("ACL", "SAVE")


def worker_is_deaf(reference: Reference) -> None:
    reference.compose(
        "exec", "-T", "worker", "celery", "--app=aiworkflow.queue", "control", "cancel_consumer", "workflow"
    )


def worker_is_off_its_network(reference: Reference) -> None:
    reference.docker("network", "disconnect", f"{reference.name}_back", reference.container("worker")["Id"])


def migration_is_pending(reference: Reference) -> None:
    reference.sql("DROP INDEX tasks_created_at; DELETE FROM schema_migrations WHERE version = '0003_created_index'")


def index_is_invalid(reference: Reference) -> None:
    reference.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tasks_created_at'::regclass")


def role_is_gone(reference: Reference) -> None:
    reference.sql("DROP OWNED BY app; DROP ROLE app")


@pytest.mark.parametrize(
    ("damage", "event", "about"),
    [
        # Ended by its own command, before anything has started it again.
        (redis_loses_a_user, "die", "redis"),
        (worker_is_deaf, "die", "worker"),
        (worker_is_deaf, "start", "worker"),
        (worker_is_off_its_network, "", "connect worker"),
        (migration_is_pending, "start", "migrate"),
        (index_is_invalid, "", "rebuild"),
        (role_is_gone, "", "put right the role app"),
    ],
)
def test_the_next_run_repairs(
    reference: Reference, damage: Callable[[Reference], None], event: str, about: str
) -> None:
    damage(reference)
    labels = [f"com.docker.compose.project={reference.name}", f"com.docker.compose.service={about}"]
    seen: Any = reference.client.events(decode=True, filters={"event": [event], "label": labels}) if event else None
    run = reference.start_inv("services.fixes")
    try:
        if seen:
            next(seen)
        else:
            run.wait_for(about)
        run.signal(signal.SIGKILL)
        run.wait()
    finally:
        run.close()
        if seen:
            seen.close()
    document = reference.fixes()
    assert document["ok"], document
    reference.is_whole()
    assert damage is not redis_loses_a_user or reference.redis("GET", "mark") == "kept"
