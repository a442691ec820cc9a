"""The project's own steps among the post-startup fixes: Invoke tasks that `fixes.steps` names."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import CollectionNotFound, Exit
from invoke.executor import Executor
from invoke.loader import FilesystemLoader

from stackhand.errors import StackError, UnknownStep, did_you_mean


def own_steps(c: Context, names: Sequence[str], *, json: bool) -> dict[str, Callable[[], None]]:
    """Return the project's tasks of these names, ready to be called. Raises UnknownStep.

    With `json`, what they print goes to stderr, since stdout is one document.
    """
    if not names:
        return {}
    collection = _collection(c)
    known = list(collection.task_names)
    for name in names:
        # A task answers to its names below other collections too, and to `-` for `_`.
        if name not in collection:
            raise UnknownStep(f"stackhand.fixes.steps names {name}, and there is no such task", _near(name, known))
    return {name: partial(_run, collection, c, name, json) for name in names}


def _collection(c: Context) -> Collection:
    """Load the project's tasks; Invoke does not hand those that it has loaded to a task."""
    try:
        module, folder = FilesystemLoader(config=c.config).load()
    except CollectionNotFound:
        return Collection()
    return Collection.from_module(module, loaded_from=folder)


def _run(collection: Collection, c: Context, name: str, json: bool) -> None:
    config = c.config.clone()
    # A step that runs the fixes itself, or starts something, is no reason to run the steps.
    config.load_overrides({"stackhand": {"fixes": {"steps": []}}})
    with _stdout_to_stderr() if json else contextlib.nullcontext():
        try:
            Executor(collection, config=config).execute(name)
        except (Exit, SystemExit) as ended:
            if ended.code:
                raise StackError(_why(ended)) from ended


def _why(ended: Exit | SystemExit) -> str:
    code = ended.code
    # `sys.exit("why")` has the text for a code.
    text = code if isinstance(code, str) else str(ended) if isinstance(ended, Exit) else ""
    return text or f"exit code {code}"


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Have all that is written to stdout go to stderr, also by a program that inherits it."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _near(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, sorted(known), "tasks")
