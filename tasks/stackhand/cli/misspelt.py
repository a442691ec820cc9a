"""Explains mistakes on the command line: an unknown task or flag, with the nearest known one, or a missing value."""

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
    """Turn an error of Invoke's parser into one of ours, which names the nearest task or flag."""
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
    """Return the names and aliases of all tasks of a collection."""
    return [name for task, aliases in collection.task_names.items() for name in (task, *aliases)]


def refuse_first_word(argv: Sequence[str], ours: Collection) -> None:
    """Raise Exit, after reporting the error, if the command line begins with a task that does not exist.

    This is for Invoke's own program `inv`, which would suggest no task and exit with 1. It looks at the first task
    only: a later word may be the value of a flag. It leaves a project alone that has more tasks than `ours`: the word
    may be one of those.
    """
    word = first_task(argv)
    loaded = getattr(sys.modules.get("tasks"), "ns", None)
    if word and loaded is ours and word not in ours:
        raise refuse(UnknownTask(word, names_of(ours)))


def first_task(argv: Sequence[str]) -> str | None:
    """Return the first task that a command line names, None if Invoke will run none.

    Invoke's own flags stand before it. Invoke's parser reads them here, because it knows which of them take a value.

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
    """Report an error that was found before any task ran; return the Exit to raise."""
    Console(Redactor()).fail(error, json=reports_json())
    return Exit(code=error.exit_code)
