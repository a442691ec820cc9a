"""Facts of a Celery worker: what it answers by remote control, and what is seen of it in its container."""

from __future__ import annotations

from dataclasses import dataclass

from stackhand.checks.context import CheckContext
from stackhand.kinds.celery import application
from stackhand.kinds.celery.process import look

_SCHEMES = frozenset({"amqp", "amqps", "redis", "rediss", "valkey", "valkeys"})


@dataclass(frozen=True)
class CeleryFacts:
    """The facts of a worker. Sizes in bytes, `cpus` in cores; 0 is no limit.

    `active` is how many tasks it works on, asked where it consumes nothing. `children` are the sizes of the processes
    of its pool, without the memory that they share; empty where the pool has no processes (threads, gevent, solo).
    `imported` is how many seconds the import of its application took.
    """

    name: str
    queues: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    active: int = 0
    concurrency: int = 0
    autoscale: str = ""
    children: tuple[int, ...] = ()
    main: int = 0
    cpus: float = 0.0
    memory_limit: int = 0
    memory_used: int = 0
    imported: float = 0.0


def collect(context: CheckContext, service: str) -> CeleryFacts:
    """Ask a worker. Raises NoAnswer where it or its broker does not answer, CannotAsk where it cannot be asked."""
    container = context.container(service)
    process = look(context.for_container(container), service)
    reply = application.ask(context, service, brokers(context, service))
    named, excluded = process.option("-Q", "--queues"), process.option("-X", "--exclude-queues").split(",")
    wanted = frozenset(named.split(",")) if named else reply.default
    limit = container.memory_limit
    return CeleryFacts(
        name=reply.node,
        queues=reply.queues,
        wanted=wanted.difference(excluded),
        active=reply.active,
        concurrency=reply.concurrency,
        autoscale=process.option("--autoscale"),
        children=tuple(process.memory.get(each, 0) for each in reply.processes),
        main=process.memory.get(process.pid, 0),
        cpus=container.cpus,
        memory_limit=limit,
        memory_used=context.engine.memory(container.id) if limit else 0,
        imported=reply.imported,
    )


def brokers(context: CheckContext, service: str) -> list[str]:
    """Return the services that are the worker's broker, as far as its environment shows."""
    clients = (client for client in context.clients if client.service == service)
    return [client.server for client in clients if client.scheme in _SCHEMES or "BROKER" in client.variable.upper()]
