"""What the command line gets wrong, and the nearest right thing."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError

from stackhand.errors import BadArgument, ConfigError, StackError, UnknownFlag, UnknownTask
from stackhand.output.console import Console, reports_json
from stackhand.output.redact import Redactor

# The texts of Invoke's parse errors (invoke/parser/parser.py, 2.2).
_UNKNOWN = re.compile(r"No idea what (?P<word>['\"].*['\"]) is!")
_NO_VALUE = re.compile(r"Flag <Argument: (?P<flag>[\w-]+)\b.*needed value")
# Invoke's own flags with which it runs no task.
_NO_TASKS = ("help", "list", "complete", "print-completion-script", "version")


def explain(error: ParseError, collection: Collection) -> ConfigError:
    """Return what the parser's error says as an error of ours, with the nearest task or flag."""
    unknown, no_value = _UNKNOWN.search(str(error)), _NO_VALUE.search(str(error))
    if no_value:
        return BadArgument(f"--{no_value['flag']} needs a value", "`inv --help TASK` lists the flags of a task")
    if not unknown:
        return BadArgument(str(error), "`inv --help TASK` lists the flags of a task")
    word: str = ast.literal_eval(unknown["word"])
    if not word.startswith("-"):
        return UnknownTask(word, names_of(collection))
    flags = list(error.context.flags) if error.context else []
    task = error.context.name if error.context else None
    return UnknownFlag(word, [flag for flag in flags if flag.startswith("--")], task)


def names_of(collection: Collection) -> list[str]:
    """Return every name that a task of this collection answers to."""
    return [name for task, aliases in collection.task_names.items() for name in (task, *aliases)]


def refuse_first_word(argv: Sequence[str], ours: Collection) -> None:
    """Refuse a misspelt task, for Invoke's own program, which suggests nothing and exits with 1.

    Only the first word is sure to be a task, since any other may be a value. And only a project whose whole namespace
    is `ours` is sure to have no such task of its own.
    """
    word = first_task(argv)
    loaded = getattr(sys.modules.get("tasks"), "ns", None)
    if word and loaded is ours and word not in ours:
        raise refuse(UnknownTask(word, names_of(ours)))


def first_task(argv: Sequence[str]) -> str | None:
    """Return the word of a command line that names the first task, None where Invoke will run no task.

    Invoke's own flags stand before the first task, and Invoke's own parser reads them: it knows which of them take a
    value.

    >>> first_task(["inv", "--dry", "-r", "folder", "services.start", "--dev"])
    'services.start'
    >>> first_task(["inv", "--help", "services.start"])
    """
    # Not imported at the top: `program` does that in its own way, to save time.
    from invoke.parser import Parser
    from invoke.program import Program

    try:
        own = Parser(initial=Program().initial_context, ignore_unknown=True).parse_argv(list(argv[1:]))
    except (ParseError, ValueError):
        return None  # Invoke reports it
    flags = own[0].args
    if any(flags[name].value for name in _NO_TASKS):
        return None
    word = own.unparsed[0] if own.unparsed else "-"
    return None if word.startswith("-") else word


def refuse(error: StackError) -> Exit:
    """Report an error that comes before any task; return the exit that ends the run."""
    Console(Redactor()).fail(error, json=reports_json())
    return Exit(code=error.exit_code)
