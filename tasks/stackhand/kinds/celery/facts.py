"""Facts of a Celery worker, asked by remote control with its own Python, application and broker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult

# Seconds; ask_worker.py gives up a little sooner.
_TIMEOUT = 12.0
# Celery's options that a value follows, and that come before the subcommand.
VALUED = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-l", "--loglevel")
_PROBES = ("find_worker.sh", "become_worker.py", "ask_worker.py")
# Exit codes of find_worker.sh.
_NOT_SEEN, _ANOTHER_USER = 3, 4
_SCHEMES = frozenset({"amqp", "amqps", "redis", "rediss", "valkey", "valkeys"})


@dataclass(frozen=True)
class CeleryFacts:
    """The facts of a worker. Sizes in bytes, `cpus` in cores; 0 is no limit.

    `active` is how many tasks it works on, asked where it consumes nothing. `children` are the sizes of the processes
    of its pool, without the memory that they share; empty where the pool has no processes (threads, gevent, solo).
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


def collect(context: CheckContext, service: str) -> CeleryFacts:
    """Ask a worker. Raises NoAnswer where it or its broker does not answer, CannotAsk where it cannot be asked."""
    container = context.container(service)
    answer = _ask(context, service)
    if answer.exit_code == _ANOTHER_USER:
        answer = _ask(context, service, user=answer.stdout.strip())
    if answer.exit_code is None:
        raise NoAnswer(f"no answer within {answer.seconds:.0f} s")
    if answer.not_found:
        raise CannotAsk("its container has no shell to ask with")
    if answer.exit_code in (_NOT_SEEN, _ANOTHER_USER):
        raise CannotAsk(f"it cannot be looked at: {answer.stdout.strip() or answer.last_error}")
    if not answer.ok:
        raise NoAnswer(answer.last_error)
    said = answer_in(answer.stdout, brokers(context, service))
    limit = container.memory_limit
    return CeleryFacts(
        name=said["name"],
        queues=frozenset(said["queues"]),
        wanted=frozenset(said["wanted"]),
        active=said.get("active", 0),
        concurrency=said["concurrency"],
        autoscale=said["autoscale"],
        children=tuple(said["children"]),
        main=said["main"],
        cpus=container.cpus,
        memory_limit=limit,
        memory_used=context.engine.memory(container.id) if limit else 0,
    )


def brokers(context: CheckContext, service: str) -> list[str]:
    """Return the services that are the worker's broker, as far as its environment shows."""
    clients = (client for client in context.clients if client.service == service)
    return [client.server for client in clients if client.scheme in _SCHEMES or "BROKER" in client.variable.upper()]


def _ask(context: CheckContext, service: str, user: str = "") -> ExecResult:
    find, become, ask = (scripts.read(__package__, name) for name in _PROBES)
    # Where the process's title has replaced its command line.
    variables = {"STACKHAND_ARGV": json.dumps(traits(context.project.services[service]).argv)}
    words = (become, ask, " ".join(VALUED))
    return context.shell(service, find, *words, environment=variables, user=user, timeout=_TIMEOUT)


def answer_in(stdout: str, blames: Iterable[str] = ()) -> dict[str, Any]:
    """Return what the probe printed last.

    Raises NoAnswer, which is blamed on others where the broker did not answer; CannotAsk where the worker cannot be
    asked, and why.
    """
    try:
        said: dict[str, Any] = json.loads((stdout.strip().splitlines() or [""])[-1])
    except ValueError as error:
        raise NoAnswer("it could not be asked: its Python printed no answer") from error
    match said.get("kind"):
        case "silent" if said.get("solo"):
            raise CannotAsk("it works in its only process (pool solo), and answers between tasks")
        case "silent":
            raise NoAnswer(said["error"])
        case "broker":
            raise NoAnswer(said["error"], blames=blames)
        case "app":
            raise CannotAsk(f"its application could not be loaded to ask it: {said['error']}")
        case "control":
            raise CannotAsk(said["error"])
    return said
