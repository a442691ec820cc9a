"""Every Compose service as a task: `up.<service>`, with what it depends on as pre-tasks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import Task
from invoke.vendor.lexicon import Lexicon

from stackhand.cli.misspelt import first_task, refuse
from stackhand.cli.outcome import RunOutcome
from stackhand.cli.render import services as render
from stackhand.cli.take_over import ask_to_take_over
from stackhand.cli.task import StackTask
from stackhand.context import Stack
from stackhand.engine.compose.files import find_directory
from stackhand.errors import StackError, StartFailed, UnknownService
from stackhand.output.redact import Redactor

if TYPE_CHECKING:
    from stackhand.engine.compose.project import Project

Until = Literal["start", "ready"]


class ServiceTask(StackTask):
    """Starts one service after its dependencies, and waits until it is `until`: started or ready.

    Its pre-tasks are read from the project when they are asked for, so a task can name a service before anybody
    knows whether there is a compose file.
    """

    labels_itself = True  # its lines name the service; GraphExecutor need not

    def __init__(self, service: str, until: Until, required: bool) -> None:
        self.service = service
        self.listed_as = _task_name(service)
        self._until: Until = until
        self._required = required
        super().__init__(self._body_for(), name=_task_name(service), auto_shortflags=False, help=dict(_HELP))
        self.__doc__ = f"Start {service} and what it depends on, and wait until it is ready."

    @property  # type: ignore[override]  # Invoke's annotation says strings; its executor takes tasks
    def pre(self) -> list[Task[Any]]:
        """The tasks of what the service depends on. Those of one that is not required never fail, either."""
        return [
            need(
                entry["service"],
                "start" if entry["condition"] == "service_started" else "ready",
                entry["required"] and self._required,
            )
            for entry in _dependencies(self.service)
        ]

    @pre.setter
    def pre(self, value: object) -> None:
        """Invoke's constructor sets it; ours is computed."""

    def _body_for(self) -> Callable[..., None]:
        def start_service(c: Context, json: bool = False) -> None:
            stack = Stack.of(c)
            if stack.dry:
                render.dry_service(stack, self.service, json=json)
            elif self._required:
                _up(stack, self.service, self._until, json)
                if self.listed_as in _named(sys.argv) and not (json or stack.json):
                    render.up(stack, self.service)
            else:
                _up_if_possible(stack, self.service, self._until)

        return start_service


_HELP = {"json": "print one JSON document on stdout"}
_needs: dict[tuple[str, Until, bool], ServiceTask] = {}
_catalogue: dict[str, list[str]] | None = None


def service(name: str) -> ServiceTask:
    """Return the task that starts the Compose service `name` and waits until it is ready.

    For the `pre` of a task: `@task(pre=[service("postgres")])`. The task's body runs only if the service got ready.
    """
    return need(name, "ready", True)


def need(name: str, until: Until, required: bool) -> ServiceTask:
    """Return the one task for needing a service in this way; the same object every time."""
    key = (name, until, required)
    if key not in _needs:
        _needs[key] = ServiceTask(*key)
    return _needs[key]


class ServiceCollection(Collection):
    """The collection `up`: a task for each service, made when the tasks are first asked for."""

    def __init__(self, whole: StackTask, on_read: Callable[[], None] = lambda: None) -> None:
        """`whole` starts all services; `on_read` is called when the tasks have been made."""
        self._whole = whole
        self._on_read = on_read
        self._loaded: Lexicon | None = None
        super().__init__("up")

    def __deepcopy__(self, memo: object) -> ServiceCollection:
        return self

    @property
    def tasks(self) -> Lexicon:
        """All `up.<service>` tasks and the default, `up` itself."""
        if self._loaded is None:
            self._loaded = Lexicon()  # type: ignore[no-untyped-call]
            self._fill()
            self._on_read()
        return self._loaded

    @tasks.setter
    def tasks(self, value: object) -> None:
        """Invoke's constructor sets an empty one; ours comes later."""

    @property
    def default(self) -> str | None:
        """The name of the task that starts everything."""
        return next((name for name, task in self.tasks.items() if task is self._whole), None)

    @default.setter
    def default(self, value: object) -> None:
        """Set by Invoke's constructor; it is always the whole start."""

    def _fill(self) -> None:
        names = _services(sys.argv)
        taken = task_names(names)
        whole = "all"
        while whole in taken.values():
            whole += "-services"
        self.add_task(self._whole, name=whole)
        for name, task_name in taken.items():
            task = service(name)
            task.listed_as = task_name
            self.add_task(task, name=task_name)


def task_names(services: Iterable[str]) -> dict[str, str]:
    """Return the task name for each service: its own, as far as Invoke can take it.

    Invoke turns `_` into `-` and splits at dots, so names that differ only there are numbered; the one that is
    spelt exactly like its task comes first.

    >>> task_names(["a_b", "a-b", "my.db"])
    {'a-b': 'a-b', 'a_b': 'a-b-2', 'my.db': 'my-db'}
    """
    names: dict[str, str] = {}
    for service in sorted(services, key=lambda each: (_task_name(each) != each, each)):
        plain = name = _task_name(service)
        number = 2
        while name in names.values():
            name, number = f"{plain}-{number}", number + 1
        names[service] = name
    return names


def _task_name(service: str) -> str:
    return re.sub(r"[^a-zA-Z0-9-]", "-", service).strip("-") or "service"


def _up(stack: Stack, name: str, until: Until, json: bool) -> None:
    from stackhand.services.start.record import ServiceFailed

    stack.loader.select([name])
    ask_to_take_over(stack)
    if json or stack.json:
        # Of all services: a task before this one may have started others.
        RunOutcome.of(stack).set_document(report=stack.starter.report)
    with render.live(stack):
        try:
            stack.actions.on_demand.up(name, until=until)
        except ServiceFailed as failed:
            stack.starter.records.mark_required(name)
            render.failure(stack, stack.starter.records[name])
            raise StartFailed(f"{name}: {failed.failure.reason}", failed.failure.hint or None) from failed


def _up_if_possible(stack: Stack, name: str, until: Until) -> None:
    """Bring up an optional service; warn if that fails."""
    if name not in stack.project.services:
        return  # its profile is not active: Compose leaves it out, too
    ask_to_take_over(stack)
    with render.live(stack):
        failure = stack.actions.on_demand.up_if_possible(name, until=until)
    if failure:
        stack.console.progress("warn", f"{name}: {failure.reason}; going on without it")


def _dependencies(name: str) -> list[dict[str, Any]]:
    known = _read_catalogue()
    if name not in known:
        return []  # the body says that there is no such service
    entries = [entry.split(" ", 2) for entry in known[name]]
    return [{"condition": c, "required": r == "1", "service": s} for c, r, s in entries]


def _read_catalogue() -> dict[str, list[str]]:
    global _catalogue  # noqa: PLW0603  task objects exist once per process, and so does what they are made from
    if _catalogue is None:
        from stackhand.cli import name_cache

        environ = dict(os.environ)
        directory = find_directory(Path.cwd(), environ)
        # Invoke's own flag: `--dry` changes nothing anywhere.
        dry = not {"--dry", "-R"}.isdisjoint(sys.argv[1:])
        _catalogue = name_cache.read(directory, environ, lambda: _whole_project(directory, environ), dry=dry)
    return _catalogue


def _whole_project(directory: Path, environ: Mapping[str, str]) -> Project:
    from stackhand.engine.compose.loader import ProjectLoader
    from stackhand.engine.host.programs import Programs

    return ProjectLoader(Programs(), directory, environ, Redactor()).all_profiles.config()


def _services(argv: list[str]) -> list[str]:
    """Return the project's services, or no service outside of a project, so that listing tasks works everywhere.

    Raises Exit, after reporting the error, if the command line names an `up.<service>` that cannot be known.
    """
    named = _named(argv)
    try:
        names = list(_read_catalogue())
        known: Mapping[str, str] = task_names(names)
        for name in named:
            if name not in (*known.values(), "all", "all-services"):
                raise _unknown(name, known)
    except StackError as error:
        if not named:
            return []
        raise refuse(error) from error
    return names


def _named(argv: list[str]) -> list[str]:
    """Return the service tasks that the command line names, `up.<task>`, in any collection."""
    if first_task(argv) is None:
        return []  # Invoke lists, helps or completes
    return [found[1] for word in argv[1:] if (found := re.fullmatch(r"(?:[\w-]+\.)*up\.([\w.-]+)", word))]


def _unknown(name: str, known: Mapping[str, str]) -> StackError:
    error = UnknownService(name, list(known.values()))
    if name in known:
        error.hint = f"its task is up.{known[name]}"
    return error
