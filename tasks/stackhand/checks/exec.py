"""Runs programs in containers: inside the service's own, in a neighbour's, or in a helper made for it.

All three return an `ExecResult`, and never raise for an exit code. A program that is not there is `not_found`, by the
exit code 127 of shells: another container may have it. One that took too long has no exit code.

Inside: `CheckContext.ask`, `shell` and `act`. From a neighbour's container, where the own one may lack the program:

    asked = first_able(context.neighbours(service), lambda place: context.ask(place, ["psql", "-h", service, …]))

In a helper, which sees the network as the service does, of any image that is there: `CheckContext.ask_in_helper`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.api.helper import Helper
from stackhand.engine.api.sdk import ContainerGone
from stackhand.errors import Interrupted, PrerequisiteMissing, StackError

# Seconds. What answers at all answers a question like these in a fraction of a second, also when it is busy.
ASK_TIMEOUT = 5.0
ACT_TIMEOUT = 60.0


class Answer(NamedTuple):
    """What a program said, and the service in whose container it ran."""

    place: str
    result: ExecResult


def shell_argv(script: str, words: Iterable[str] = ()) -> list[str]:
    """Return the command line by which a container's `sh` runs a script, `words` being its $1, $2, …

    >>> shell_argv("echo $1", ["hello"])
    ['sh', '-c', 'echo $1', 'sh', 'hello']
    """
    return ["sh", "-c", script, "sh", *words]


def inside(
    engine: Engine,
    container: Container,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    user: str = "",
    timeout: float = ASK_TIMEOUT,
) -> ExecResult:
    """Run a program inside a running container. Raises NoAnswer where the container has ended.

    Passwords go into the `environment`, never on the command line.
    """
    try:
        return engine.ask(container.id, argv, environment=environment, user=user, timeout=timeout)
    except ContainerGone as error:
        raise NoAnswer(f"the container of {container.service} has ended: {error.message}") from error


def first_able(
    places: Iterable[str],
    run: Callable[[str], ExecResult],
    able: Callable[[ExecResult], bool] = lambda result: not result.not_found,
) -> Answer | None:
    """Run something in one place after another, and return the first answer of one that has the program for it.

    `places` are services, `run` runs the program in the container of one of them, `able` tells from the result whether
    that could be done there. None where no place can.
    """
    answers = (Answer(place, run(place)) for place in places)
    return next((answer for answer in answers if able(answer.result)), None)


def in_helper(
    engine: Engine,
    container: Container,
    image: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = ASK_TIMEOUT,
) -> ExecResult:
    """Run a program of another image in the network namespace of a running container, and remove its container.

    It has the container's addresses, its `localhost` and its name service; its files and processes are not seen.
    Raises NoAnswer where the container has ended, CannotAsk where the helper cannot be made.
    """
    network = f"container:{container.id}"
    helper = Helper(image, tuple(argv), "checks", network=network, environment=environment or {})
    try:
        return engine.run_helper(helper, timeout)
    except ContainerGone as error:
        raise NoAnswer(f"the container of {container.service} has ended: {error.message}") from error
    except (PrerequisiteMissing, Interrupted):
        raise
    except StackError as error:
        raise CannotAsk(f"no helper container of {image} could be made: {error.message}") from error
