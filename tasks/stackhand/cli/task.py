"""The task class of every stackhand task: compared by identity, and the one boundary for errors."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from stackhand.cli.outcome import RunOutcome
from stackhand.context import Stack
from stackhand.errors import BadArgument, Interrupted, StackError
from stackhand.graph.signals import interrupt_on_termination

# Flags that several tasks have, explained once.
HELP = {
    "service": "only this service (may be repeated)",
    "json": "print one JSON document on stdout",
    "yes": "answer every question with yes",
    "timeout": "seconds that a service may take to become ready",
    "retries": "attempts that a service gets",
    "no_fixes": "leave out the post-startup fixes",
    "dev": "with the development overrides; rebuild what changed; no settle time, no tuning",
}


class StackTask(Task[Callable[..., Any]]):
    """An Invoke task that is equal to itself only, and turns errors into one line and an exit code.

    Invoke drops a task as a duplicate when another has the same name and code object (invoke #536), which thin
    tasks easily have; and it copies tasks when it loads a namespace, after which identity would be lost.
    """

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: object) -> StackTask:
        return self

    def get_arguments(self, *args: Any, **kwargs: Any) -> list[Argument]:
        """Return the body's arguments, and `--yes` also if the body never asks."""
        texts = dict(self.help)
        arguments: list[Argument] = super().get_arguments(*args, **kwargs)
        self.help = texts  # Invoke takes out each text that it uses, and may ask again
        for argument in arguments:
            if argument.kind is list:
                # Invoke sets it to [], by which its parser takes a flag without a value for one that has it.
                argument.raw_value = None
        if not self._asks:
            arguments.append(Argument(names=("yes", "y"), kind=bool, default=False, help=HELP["yes"]))
        return arguments

    @property
    def _asks(self) -> bool:
        return "yes" in inspect.signature(self.body).parameters

    def interrupted(self, c: Context, kwargs: dict[str, Any]) -> Exit:
        """End what the run has under way; return the exit. Also asked by GraphExecutor, when tasks run side by side."""
        stack = Stack.of(c)
        return _exit(stack, interrupt(stack), kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; raise Exit with the contract's exit code where it fails."""
        stack = Stack.of(args[0])
        interrupt_on_termination()
        if not self._asks:
            kwargs.pop("yes", None)
        try:
            return super().__call__(*args, **kwargs)
        except StackError as error:
            raise _exit(stack, error, kwargs) from error
        except KeyboardInterrupt as interrupt:
            raise self.interrupted(args[0], kwargs) from interrupt
        except Exit:
            raise
        except Exception as bug:
            unexpected = StackError(
                f"unexpected {type(bug).__name__}: {bug}",
                "this is a bug in stackhand or in a task; `inv --debug TASK` shows where",
                foreign=str(bug),
            )
            raise _exit(stack, unexpected, kwargs) from bug


def task(**options: Any) -> Callable[[Callable[..., Any]], StackTask]:
    """Make a stackhand task of a function; the options are those of Invoke's `@task`.

    Flags that are in HELP need no help of their own.
    """

    def decorate(body: Callable[..., Any]) -> StackTask:
        known = {name.replace("_", "-"): text for name, text in HELP.items() if name in body.__code__.co_varnames}
        options["help"] = {**known, **options.get("help", {})}
        return StackTask(body, **options)

    return decorate


def number(flag: str, value: str | None) -> float | None:
    """Return a flag's value as a positive number. Raises BadArgument."""
    if value is None:
        return None
    try:
        parsed = float(value)
    except ValueError:
        parsed = -1
    if not 0 < parsed < float("inf"):
        raise BadArgument(f"--{flag} takes a number above 0, not {value!r}")
    return parsed


def count(flag: str, value: str | None) -> int | None:
    """Return a flag's value as a whole number of at least 1. Raises BadArgument."""
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise BadArgument(f"--{flag} takes a whole number of at least 1, not {value!r}")
    return int(value)


def choice(flag: str, value: str, known: tuple[str, ...]) -> str:
    """Return a flag's value when it is one of the known ones. Raises BadArgument."""
    if value not in known:
        raise BadArgument(f"--{flag} takes one of {', '.join(known)}, not {value!r}")
    return value


def interrupt(stack: Stack) -> Interrupted:
    """End what is under way, programs at once and threads at their next look; return the error to report."""
    actions, programs = stack.made("actions"), stack.made("commands")
    how_far = actions.starter.records.where() if actions else ""
    if actions:
        actions.starter.cancel()
    if programs:
        programs.stop()
    if not how_far:
        return Interrupted("interrupted")
    return Interrupted(f"interrupted; {how_far}", "what runs is left running; the next start carries on from there")


def _exit(stack: Stack, error: StackError, kwargs: dict[str, Any]) -> Exit:
    """Report an error; return the exit that ends the run with the error's code."""
    # When tasks run side by side, the main thread reports the interrupt.
    if not isinstance(error, Interrupted) or threading.current_thread() is threading.main_thread():
        RunOutcome.of(stack).fail(error, json=bool(kwargs.get("json")))
    if logging.getLogger("invoke").isEnabledFor(logging.DEBUG):
        traceback.print_exc(file=sys.stderr)
    return Exit(code=error.exit_code)
