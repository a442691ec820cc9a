"""What the command line gets wrong, and the nearest right thing."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.exceptions import Exit

from stackhand.errors import BadArgument, ConfigError, StackError, UnknownFlag, UnknownTask
from stackhand.output.console import Console, reports_json
from stackhand.output.redact import Redactor

if TYPE_CHECKING:
    from invoke.exceptions import ParseError

# Invoke's own words (invoke/parser/parser.py, 2.2).
_UNKNOWN = re.compile(r"No idea what (?P<word>['\"].*['\"]) is!")
_NO_VALUE = re.compile(r"Flag <Argument: (?P<flag>[\w-]+)\b.*needed value")
# Invoke's own flags that take the next word for their value.
_TAKES_A_VALUE = {
    "-c", "--collection", "-D", "--list-depth", "-f", "--config", "-F", "--list-format", "-r", "--search-root",
    "-T", "--command-timeout",
}  # fmt: skip
# With these, the words that follow are not tasks to run.
_NO_TASKS = {"-h", "--help", "-l", "--list", "--complete", "--print-completion-script"}


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
    """Return the word of a command line that names the first task, None where no task is to run.

    >>> first_task(["inv", "--dry", "-r", "folder", "services.start", "--dev"])
    'services.start'
    >>> first_task(["inv", "--help", "services.start"])
    """
    words: Iterator[str] = iter(argv[1:])
    for word in words:
        if word in _NO_TASKS or word == "--":
            return None
        if word in _TAKES_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None


def refuse(error: StackError) -> Exit:
    """Report an error that comes before any task; return the exit that ends the run."""
    Console(Redactor()).fail(error, json=reports_json())
    return Exit(code=error.exit_code)
