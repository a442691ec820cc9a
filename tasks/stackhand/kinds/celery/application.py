"""Asks all workers of one Celery application with one program, which runs in the container of one of them.

To ask is to import the application, which costs seconds of a core: once is enough for workers that are made from the
same image with the same environment. What their broker carries is asked of all of them by one message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.exec import shell_argv
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.graph import schedule
from stackhand.kinds.celery.process import WorkerProcess, look

# Seconds, for all of it; most of that is the import of the application.
_TIMEOUT = 20.0
# Seconds, for the broker's connection and for each answer. Celery's own 1 s gives false alarms when a broker is busy.
_ANSWER_TIMEOUT = 3.0
_LOOKS_AT_ONCE = 4
# From how many containers a broker is asked for that does not answer. An application is imported once for each.
_ASKERS = 2
# Seconds. Celery itself takes one; a healthcheck that asks Celery has the engine's 30 s where nobody says otherwise.
SLOW_IMPORT = 10.0
# What the containers of one application have in common.
_COMMON = ("environment", "volumes", "secrets", "configs", "networks", "network_mode", "working_dir")
# Runs a program as the worker's process would: $1 is its id, $2 become_worker.py, $3 the program.
_RUN = 'exec "$(readlink "/proc/$1/exe")" -ISc "$2" "$1" "$3"'


class StillImporting(CannotAsk):
    """The application is so slow to import that it could not be asked in time. `seconds` is how long that was."""

    def __init__(self, seconds: float) -> None:
        # A worker whose application is slow works all the same, once it has begun.
        super().__init__(f"its application was still being imported after {seconds:.0f} s", late=True)
        self.seconds = seconds


@dataclass(frozen=True)
class Reply:
    """What a worker answered. `active` is how many tasks it works on, asked where it consumes nothing.

    `processes` are those of its pool, none where that has threads. `default` are the queues of a worker without an
    option that names some, `imported` how many seconds the import of the application took, without the time in which
    other programs had the cores.
    """

    node: str
    queues: frozenset[str] = frozenset()
    default: frozenset[str] = frozenset()
    active: int = 0
    concurrency: int = 0
    processes: tuple[int, ...] = ()
    imported: float = 0.0


@dataclass(frozen=True)
class Replies:
    """What came of asking the workers of an application: a reply by container, or an error for each of the others.

    `silent` are those that did not answer although the broker did: there may be another way to them. Nobody waits for
    a slow application twice, so with one of those there are none.
    """

    of: Mapping[str, Reply] = field(default_factory=dict)
    errors: Mapping[str, NoAnswer] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()


_GONE = NoAnswer("its process cannot be seen any more")


def ask(context: CheckContext, service: str, blames: Sequence[str]) -> Reply:
    """Return what the worker in one container answers. `blames` are its brokers.

    One that does not answer when all of its application are asked is asked from its own container, too: it may have
    another way to another broker. Raises NoAnswer, CannotAsk.
    """
    container = context.container(service)
    options = _application(look(context.for_container(container), service))
    together = members(context, service)
    key = ("celery.application", f"{min(each.id for each in together)} {' '.join(options.values())}")
    replies = context.for_container(None).cached(key, lambda: _ask(context, together, options, blames))
    if container.id in replies.silent:
        replies = _ask(context, [container], options, blames)
    if container.id not in replies.of:
        raise replies.errors.get(container.id) or _GONE
    return replies.of[container.id]


def members(context: CheckContext, service: str) -> list[Container]:
    """Return the containers whose workers are of one application with this service's, its own among them."""
    mine = context.container(service)
    wanted = _common(context, mine)
    workers = context.kinds.services("celery")
    running = [each for each in context.containers() if each.running and each.service in {service, *workers}]
    return [each for each in running if each.id == mine.id or _common(context, each) == wanted]


def _common(context: CheckContext, container: Container) -> tuple[object, ...]:
    service = context.project.services[container.service]
    words = [service.raw.get(key) for key in _COMMON]
    return container.image_id, dict(service.environment), *words


def _ask(
    context: CheckContext, containers: Sequence[Container], options: Mapping[str, str], blames: Sequence[str]
) -> Replies:
    """Ask the workers in these containers that have these options, from one of them.

    Where that does not reach the broker they are asked from one more: perhaps only the first is cut off.
    """
    views = {each.id: context.for_container(each) for each in containers}
    looks = schedule.gather(
        {each.id: partial(_seen, views[each.id], each.service) for each in containers}, workers=_LOOKS_AT_ONCE
    )
    asked = {key: each for key, each in looks.items() if each is not None and _application(each) == options}
    cut_off: dict[str, NoAnswer] = {}
    for asker in [each for each in containers if each.id in asked][:_ASKERS]:
        answer = _run(views[asker.id], asker.service, asked)
        try:
            said = answer_in(answer, blames)
        except CannotAsk as error:
            # All import the same code.
            return Replies(errors=dict.fromkeys(asked, error))
        except NoAnswer as error:
            cut_off[asker.id] = error
            if answer.seconds > SLOW_IMPORT:
                break
            continue
        replies = {key: reply for key in asked if (reply := reply_in(said, key)) is not None}
        left, limit = asked.keys() - replies.keys(), context.within(_ANSWER_TIMEOUT)
        errors = {key: cut_off.get(key) or _silent(said["workers"][key], asked[key], limit) for key in left}
        silent = left - cut_off.keys() - {asker.id} if said["imported"] < SLOW_IMPORT else ()
        return Replies(replies, errors, frozenset(silent))
    first = next(iter(cut_off.values()), _GONE)
    return Replies(errors={**dict.fromkeys(asked, first), **cut_off})


def _seen(context: CheckContext, service: str) -> WorkerProcess | None:
    """Return a worker's process, None if it cannot be seen: the check of that worker says why."""
    try:
        return look(context, service)
    except NoAnswer:
        return None


def _application(process: WorkerProcess) -> dict[str, str]:
    """Return the options that say which application it is, and how that reaches its broker."""
    return {
        "app": process.option("-A", "--app"),
        "broker": process.option("-b", "--broker"),
        "config": process.option("--config"),
        "workdir": process.option("--workdir"),
    }


def _run(context: CheckContext, service: str, asked: Mapping[str, WorkerProcess]) -> ExecResult:
    """Run the program that asks these workers."""
    process = look(context, service)
    workers = {key: {"name": each.option("-n", "--hostname"), "host": each.host} for key, each in asked.items()}
    question = {**_application(process), "workers": workers, "limit": context.within(_ANSWER_TIMEOUT)}
    become, program = (scripts.read(__package__, name) for name in ("become_worker.py", "ask_workers.py"))
    argv = shell_argv(_RUN, (str(process.pid), become, program))
    variables = {"STACKHAND_ASK": json.dumps(question)}
    return context.ask(service, argv, environment=variables, user=process.user, timeout=_TIMEOUT)


def answer_in(answer: ExecResult, blames: Sequence[str] = ()) -> dict[str, Any]:
    """Return the document that the program printed last.

    Raises NoAnswer, which is blamed on others where the broker did not answer; CannotAsk where the application cannot
    be asked, and why; StillImporting.
    """
    try:
        said: dict[str, Any] = json.loads((answer.stdout.strip().splitlines() or [""])[-1])
    except ValueError as error:
        if answer.exit_code is None or not answer.ok:
            raise NoAnswer(answer.last_error) from error
        raise NoAnswer("it could not be asked: its Python printed no answer") from error
    if answer.exit_code is None:
        raise StillImporting(answer.seconds) if said.get("stage") == "import" else NoAnswer(answer.last_error)
    match said.get("kind"):
        case "broker":
            raise NoAnswer(said["error"], blames=blames)
        case "app":
            raise CannotAsk(f"its application could not be loaded to ask it: {said['error']}")
        case "control":
            raise CannotAsk(said["error"])
    return said


def reply_in(said: Mapping[str, Any], key: str) -> Reply | None:
    """Return the reply of one worker in the program's document, None where it did not answer all that was asked."""
    worker = said["workers"][key]
    if "queues" not in worker:
        return None
    return Reply(
        worker["node"],
        frozenset(worker["queues"]),
        frozenset(said["default"]),
        worker.get("active", 0),
        worker["concurrency"],
        tuple(worker["processes"]),
        said["imported"],
    )


def _silent(worker: Mapping[str, Any], process: WorkerProcess, limit: float) -> NoAnswer:
    if process.option("-P", "--pool") == "solo":
        return CannotAsk("it works in its only process (pool solo), and answers between tasks")
    return NoAnswer(f"{worker['node']} does not answer within {limit:g} s, and its broker does")
