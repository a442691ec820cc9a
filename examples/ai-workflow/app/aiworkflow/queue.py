"""The Celery application: Redis carries the tasks (database 0) and their results (database 1)."""

from __future__ import annotations

from typing import Any

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_ready  # type: ignore[import-untyped]

from .settings import QUEUE, READY, redis_url

celery = Celery("aiworkflow", broker=redis_url(0), backend=redis_url(1), include=["aiworkflow.tasks"])
celery.conf.update(
    task_default_queue=QUEUE,
    # A task is taken off the queue when it is done, not when it is begun: one that dies with its worker runs again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_time_limit=300,
    result_expires=24 * 3600,
    broker_connection_retry_on_startup=True,
    # A Redis that is gone, or there and not answering, must be noticed soon and not be waited for without end.
    broker_transport_options={"socket_connect_timeout": 3, "socket_timeout": 5, "socket_keepalive": True},
    redis_socket_connect_timeout=3,
    redis_socket_timeout=5,
)


@worker_ready.connect  # type: ignore[untyped-decorator]
def mark_ready(**_: Any) -> None:
    READY.touch()
