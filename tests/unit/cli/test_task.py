"""The task class: compared by identity, and the one boundary for errors."""

from __future__ import annotations

import copy
import functools
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser import Argument
from invoke.tasks import Call, Task

from stackhand import errors
from stackhand.cli import service_tasks as up
from stackhand.cli.program import StackProgram
from stackhand.cli.task import StackTask, choice, count, number, task
from stackhand.errors import BadArgument, StackError
from stackhand.graph import GraphExecutor

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _no_real_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Service tasks come from this catalogue, and signal handlers are put back."""
    monkeypatch.chdir(tmp_path)
    services = {"db": [], "a-b": ["service_healthy 1 db"], "a_b": ["service_started 0 db"], "a.b": []}
    monkeypatch.setattr(up, "_catalogue", services)
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def all_tasks(collection: Collection, prefix: str = "") -> dict[str, Task[Any]]:
    """Return every task of a collection and of those in it, by its dotted name."""
    found: dict[str, Task[Any]] = {f"{prefix}{name}": one for name, one in collection.tasks.items()}
    for name, inner in collection.collections.items():
        found |= all_tasks(inner, f"{prefix}{name}.")
    return found


def fresh() -> Collection:
    """Return stackhand's own tasks, its service tasks read anew."""
    from stackhand.cli import services
    from stackhand.cli.namespace import ns

    collection = Collection.from_module(types.SimpleNamespace(ns=ns, __name__="tasks", __doc__=""))
    collection.collections = dict(collection.collections)  # type: ignore[assignment]
    collection.collections["up"] = up.ServiceCollection(services.up)
    return collection


class TestIdentity:
    def test_no_two_tasks_of_the_namespace_count_as_equal(self) -> None:
        tasks = list(all_tasks(fresh()).items())
        assert {"services.start", "up.db", "up.a-b", "up.a-b-2"} <= {name for name, _ in tasks}
        same = [(n1, n2) for i, (n1, t1) in enumerate(tasks) for n2, t2 in tasks[:i] if t1 == t2]
        assert same == []
        assert len({hash(one) for _, one in tasks}) == len(tasks)

    def test_nor_do_their_pre_and_post_tasks(self) -> None:
        direct = list(all_tasks(fresh()).values())
        every = direct + [other for one in direct for other in (*one.pre, *one.post)]
        distinct = {id(one): one for one in every}
        same = [(a, b) for a in distinct.values() for b in distinct.values() if a is not b and a == b]
        assert same == []

    def test_invoke_copies_namespaces_and_tasks_stay_the_same(self) -> None:
        from stackhand.cli.namespace import ns

        module = types.SimpleNamespace(ns=ns, __name__="tasks", __doc__="")
        loaded = Collection.from_module(module)
        start = ns["services.start"]
        assert loaded["services.start"] is start
        assert copy.deepcopy(start) is start
        assert copy.deepcopy(loaded)["services.start"] is start

    def test_two_bodies_behind_one_wrapper_both_run(self) -> None:
        seen: list[str] = []

        def wrapped(text: str) -> Callable[[Context], None]:
            def body(c: Context) -> None:
                seen.append(text)

            return body

        one = StackTask(wrapped("one"), name="same")
        two = StackTask(wrapped("two"), name="same")
        assert one != two
        assert Call(one) != Call(two)
        assert Call(one) == Call(one)
        assert run("main", task(pre=[one, two])(_main))[0] == 0
        assert sorted(seen) == ["one", "two"]

    def test_a_service_has_one_task(self) -> None:
        from stackhand import service

        assert service("db") is service("db")
        assert service("db") is not service("a.b")
        pre: list[Any] = service("a-b").pre
        assert [one.service for one in pre] == ["db"]


def _main(c: Context) -> None:
    """Stand in for a main task."""


_main.__name__ = "main"


def run(words: str, *tasks: Task[Any]) -> tuple[int, list[str]]:
    """Run tasks by name; return the exit code. What they write is for capsys."""
    program = StackProgram(
        name="inv", binary="inv", namespace=Collection(*tasks), executor_class=GraphExecutor, version="0"
    )
    argv = ["inv", *words.split()]
    before, sys.argv = sys.argv, argv
    try:
        program.run(argv)
    except SystemExit as ended:
        return int(ended.code or 0), argv
    finally:
        sys.argv = before
    return 0, argv


def failing(error: BaseException) -> StackTask:
    @task()
    def broken(c: Context, json: bool = False) -> None:
        """Fail."""
        raise error

    return broken


ERRORS = [
    each("it broke", "mend it")
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, StackError) and each.__init__ is StackError.__init__
]


class TestErrors:
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_each_class_ends_the_run_with_its_code(self, error: StackError, capsys: pytest.CaptureFixture[str]) -> None:
        code, _ = run("broken", failing(error))
        captured = capsys.readouterr()
        assert code == error.exit_code
        assert captured.err == "error: it broke\nhint: mend it\n"
        assert captured.out == ""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (errors.DependencyCycle(["a", "b", "a"]), 2),
            (errors.UnknownService("x", ["y"]), 2),
            (errors.CommandFailed(["docker"], 9, "oh"), 1),
            (KeyboardInterrupt(), 130),
            (ValueError("oh"), 1),
            (Exit("own", code=42), 42),
        ],
    )
    def test_other_ends(self, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("broken", failing(error))[0] == code
        assert "Traceback" not in capsys.readouterr().err

    def test_a_bug_is_one_line_and_where_to_see_more(self, capsys: pytest.CaptureFixture[str]) -> None:
        run("broken", failing(KeyError("nope")))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("error: ")
        assert "KeyError" in lines[0]
        assert "--debug" in lines[1]

    def test_in_json_the_error_is_the_document(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, _ = run("broken --json", failing(errors.UnknownService("pg", ["postgres", "pgb"])))
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        assert code == 2
        assert document["ok"] is False
        assert document["error"]["exit_code"] == 2
        assert "pg" in document["error"]["message"]
        assert captured.err.startswith("error: ")

    def test_in_json_a_pre_tasks_error_is_the_document_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        @task(pre=[failing(errors.EngineUnreachable("gone"))])
        def report(c: Context, json: bool = False) -> None:
            """Never runs."""

        code, _ = run("report --json", report)
        assert code == 3
        assert json.loads(capsys.readouterr().out)["error"]["message"] == "gone"

    def test_termination_is_an_interrupt(self, capsys: pytest.CaptureFixture[str]) -> None:
        @task()
        def stuck(c: Context) -> None:
            """Wait for the signal."""
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

        assert run("stuck", stuck)[0] == 130
        assert "interrupted" in capsys.readouterr().err


def test_no_task_takes_the_projects_lock() -> None:
    """The function that carries a verb out takes it, and other code than a task can call that, too."""
    from stackhand import cli

    folder = Path(cli.__file__).parent
    assert [path.name for path in folder.rglob("*.py") if ".lock(" in path.read_text(encoding="utf-8")] == []


class TestYes:
    @pytest.mark.parametrize("flag", ["", "--yes", "-y"])
    def test_a_task_that_never_asks_takes_it(self, flag: str) -> None:
        seen: list[bool] = []

        @task()
        def quiet(c: Context, json: bool = False) -> None:
            """Ask nobody."""
            seen.append(json)

        assert run(f"quiet {flag} --json", quiet)[0] == 0
        assert seen == [True]

    @pytest.mark.parametrize(("flag", "said"), [("", False), ("--yes", True), ("-y", True)])
    def test_a_task_that_asks_is_told(self, flag: str, said: bool) -> None:
        seen: list[bool] = []

        @task()
        def asking(c: Context, yes: bool = False) -> None:
            """Ask, unless that was answered beforehand."""
            seen.append(yes)

        assert run(f"asking {flag}", asking)[0] == 0
        assert seen == [said]


class TestArguments:
    @pytest.mark.parametrize(("text", "value"), [(None, None), ("5", 5.0), ("0.5", 0.5), ("1e2", 100.0)])
    def test_numbers(self, text: str | None, value: float | None) -> None:
        assert number("timeout", text) == value

    @pytest.mark.parametrize("text", ["", "soon", "0", "-1", "inf", "nan", "1,5"])
    def test_no_numbers(self, text: str) -> None:
        with pytest.raises(BadArgument, match="--timeout"):
            number("timeout", text)

    @pytest.mark.parametrize(("text", "value"), [(None, None), ("1", 1), ("12", 12)])
    def test_counts(self, text: str | None, value: int | None) -> None:
        assert count("retries", text) == value

    @pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "²", " 1"])
    def test_no_counts(self, text: str) -> None:
        with pytest.raises(BadArgument, match="--retries"):
            count("retries", text)

    def test_choices(self) -> None:
        assert choice("format", "svg", ("text", "svg")) == "svg"
        with pytest.raises(BadArgument, match="text, svg"):
            choice("format", "png", ("text", "svg"))


def names() -> list[str]:
    from stackhand.cli.namespace import ns

    return sorted(name for name in all_tasks(ns) if not name.startswith("up.") or name == "up.all")


@functools.cache
def arguments(one: Task[Any]) -> list[Argument]:
    """Return a task's arguments. Invoke takes the help out of the task when it is first asked, and has none later."""
    found: list[Argument] = one.get_arguments()
    return found


def flags_of(one: Task[Any]) -> set[str]:
    return {str(argument.name).replace("_", "-") for argument in arguments(one)}


def page_for(name: str) -> str:
    """Return the page of a task's namespace; what has none is explained wherever that fits."""
    space, dot, _ = name.partition(".")
    if dot and space != "up":
        page = DOCS / f"{space}.md"
        assert page.exists(), f"docs/{space}.md is missing"
        return page.read_text(encoding="utf-8")
    return "\n".join(page.read_text(encoding="utf-8") for page in (*DOCS.glob("*.md"), *DOCS.parent.glob("README.md")))


class TestWhatPeopleRead:
    @pytest.mark.parametrize("name", [*names(), "up.db"])
    def test_every_task_and_every_flag_has_help(self, name: str) -> None:
        one = all_tasks(fresh())[name]
        assert (one.__doc__ or "").strip()
        flags = {argument.name: argument.help for argument in arguments(one)}
        assert [flag for flag, text in flags.items() if not text] == []

    @pytest.mark.parametrize("name", names())
    def test_every_task_and_flag_has_a_place_in_the_docs(self, name: str) -> None:
        shown, text = "up" if name == "up.all" else name, page_for(name)
        assert f"`{shown}" in text or f"inv {shown}" in text
        missing = [flag for flag in flags_of(all_tasks(fresh())[name]) if f"--{flag}" not in text]
        assert missing == []

    @pytest.mark.parametrize(
        "name", ["services.start", "services.status", "services.wait", "services.fixes", "services.graph"]
    )
    def test_what_reports_takes_json_and_services(self, name: str) -> None:
        assert {"json", "service"} <= flags_of(all_tasks(fresh())[name])

    def test_start_and_up_take_the_same_flags(self) -> None:
        tasks = all_tasks(fresh())
        start, whole = tasks["services.start"], tasks["up.all"]
        assert [(a.names, a.kind, a.help) for a in arguments(start)] == [
            (a.names, a.kind, a.help) for a in arguments(whole)
        ]
        assert {"service", "dev", "timeout", "retries", "no-fixes", "json"} <= flags_of(start)

    def test_every_task_takes_yes(self) -> None:
        for name in [*names(), "up.db"]:
            (yes,) = [one for one in all_tasks(fresh())[name].get_arguments() if one.name == "yes"]
            assert set(yes.names) == {"yes", "y"}, name
            assert (yes.kind, yes.default) == (bool, False)

    def test_services_short_flag_is_s(self) -> None:
        for name in names():
            for argument in arguments(all_tasks(fresh())[name]):
                if argument.name == "service":
                    assert "s" in argument.names
