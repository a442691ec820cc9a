"""GraphExecutor, through Invoke's own program: what `inv a b` does with tasks that have nothing to do with Docker."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.tasks import Task, call, task

from stackhand.cli.program import StackProgram
from stackhand.graph import GraphExecutor

PATIENCE = 30


@dataclass
class Ran:
    code: int
    out: str
    err: str


Inv = Callable[..., Ran]


@pytest.fixture
def inv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Inv]:
    """Runs task names with these tasks, side by side unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    # Invoke passes our stdin on to programs, and pytest's own refuses to be read.
    stdin = Path(os.devnull).open()  # noqa: SIM115
    monkeypatch.setattr("sys.stdin", stdin)

    def run(
        words: str,
        *tasks: Task[Any],
        executor: type[Executor] = GraphExecutor,
        configuration: dict[str, Any] | None = None,
    ) -> Ran:
        namespace = Collection(*tasks)
        namespace.configure(configuration or {})
        program = StackProgram(name="inv", binary="inv", namespace=namespace, executor_class=executor)
        code = 0
        try:
            program.run(["inv", *words.split()])
        except SystemExit as ended:
            code = int(ended.code or 0)
        with warnings.catch_warnings():
            # Invoke leaves the pipes of its programs to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    yield run
    stdin.close()


class Log(list[str]):
    """Makes tasks that note their names here when they run."""

    def task(self, name: str, body: Callable[[], object] = lambda: None, **options: Any) -> Task[Any]:
        def run(c: Context) -> None:
            self.append(name)
            body()

        # A code object of its own, for Invoke compares tasks by name and code.
        return task(run, name=name, **options)


def fail() -> None:
    raise Exit("it broke", code=7)


def test_named_tasks_run_in_the_order_typed(inv: Inv) -> None:
    log = Log()
    tasks = [log.task(name) for name in ("a", "b", "c", "d")]
    assert inv("c a d b", *tasks).code == 0
    assert log == ["c", "a", "d", "b"]


def test_named_tasks_never_overlap(inv: Inv) -> None:
    meeting = threading.Barrier(2)

    def meet() -> None:
        meeting.wait(0.2)

    log = Log()
    with pytest.raises(threading.BrokenBarrierError):
        inv("a b", log.task("a", meet), log.task("b", meet))
    assert log == ["a"]


def test_independent_pre_tasks_overlap(inv: Inv) -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)
    log = Log()
    needed = [log.task(name, meeting.wait) for name in ("a", "b", "c")]
    assert inv("main", log.task("main", pre=needed)).code == 0
    assert sorted(log[:3]) == ["a", "b", "c"]
    assert log[3:] == ["main"]


def test_the_stock_executor_runs_the_same_tasks_one_after_another(inv: Inv) -> None:
    log = Log()
    a = log.task("a")
    b, c = log.task("b", pre=[a]), log.task("c", pre=[a])
    assert inv("main", log.task("main", pre=[b, c]), executor=Executor).code == 0
    assert log == ["a", "b", "c", "main"]


def test_branches_of_different_depth_overlap(inv: Inv) -> None:
    """a → a2 goes on while b still runs."""
    a2_ran = threading.Event()
    log = Log()
    a = log.task("a")
    a2 = log.task("a2", a2_ran.set, pre=[a])
    b = log.task("b", lambda: a2_ran.wait(PATIENCE) or fail())
    assert inv("main", log.task("main", pre=[a2, b])).code == 0
    assert log[-1] == "main"


def test_a_shared_need_runs_once(inv: Inv) -> None:
    log = Log()
    db = log.task("db")
    api, worker = log.task("api", pre=[db]), log.task("worker", pre=[db])
    assert inv("api worker main db", api, worker, db, log.task("main", pre=[api, worker])).code == 0
    assert sorted(log) == ["api", "db", "main", "worker"]
    assert log[0] == "db"


def test_without_dedupe_it_runs_for_each(inv: Inv, tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("tasks: {dedupe: false}\n")
    log = Log()
    db = log.task("db")
    api, worker = log.task("api", pre=[db]), log.task("worker", pre=[db])
    assert inv("api worker", api, worker).code == 0
    assert log == ["db", "api", "db", "worker"]


def test_calls_with_other_arguments_are_other_calls(inv: Inv) -> None:
    seen: list[tuple[str, int]] = []
    lock = threading.Lock()

    @task
    def load(c: Context, what: str = "none", times: int = 1) -> None:
        with lock:
            seen.append((what, times))

    @task(pre=[call(load, what="users"), call(load, what="items", times=2), call(load, what="users")])
    def main(c: Context) -> None:
        seen.append(("main", 0))

    assert inv("main load --what mine", main, load).code == 0
    assert sorted(seen[:2]) == [("items", 2), ("users", 1)]
    assert seen[2:] == [("main", 0), ("mine", 1)]


def test_post_tasks_come_after_in_their_order(inv: Inv) -> None:
    log = Log()
    fix, tell = log.task("fix"), log.task("tell", pre=[log.task("look")])
    assert inv("start next", log.task("start", pre=[log.task("db")], post=[fix, tell]), log.task("next")).code == 0
    assert log == ["db", "start", "fix", "look", "tell", "next"]


def test_post_tasks_of_a_pre_task_come_before_what_needs_it(inv: Inv) -> None:
    log = Log()
    start = log.task("start", post=[log.task("fix")])
    assert inv("main", log.task("main", pre=[start])).code == 0
    assert log == ["start", "fix", "main"]


def test_nothing_that_needs_a_failed_task_runs(inv: Inv) -> None:
    log = Log()
    db = log.task("db", fail)
    api = log.task("api", pre=[db])
    ran = inv("main", log.task("main", pre=[api]))
    assert ran.code == 7
    assert log == ["db"]
    assert "it broke" in ran.err
    assert "skipped api: db failed" in ran.err.splitlines()
    assert "skipped main: db failed" in ran.err.splitlines()


def test_branches_that_do_not_need_it_finish(inv: Inv) -> None:
    log = Log()
    failed = threading.Event()

    def broken() -> None:
        failed.set()
        fail()

    db = log.task("db", broken)
    cache = log.task("cache", lambda: failed.wait(PATIENCE))
    web, api = log.task("web", pre=[cache]), log.task("api", pre=[db])
    ran = inv("main later", log.task("main", pre=[api, web]), log.task("later"))
    assert ran.code == 7
    assert sorted(log) == ["cache", "db", "web"]
    assert sorted(line for line in ran.err.splitlines() if line.startswith("skipped")) == [
        "skipped api: db failed",
        "skipped main: db failed",
    ]


def test_post_tasks_do_not_run_after_a_failure(inv: Inv) -> None:
    log = Log()
    ran = inv("start", log.task("start", fail, post=[log.task("fix")]))
    assert (ran.code, log) == (7, ["start"])
    assert "skipped" not in ran.err


def test_every_failure_is_told(inv: Inv) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def breaking(text: str) -> Callable[[], None]:
        def body() -> None:
            meeting.wait()
            raise Exit(text, code=5)

        return body

    log = Log()
    a, b = log.task("a", breaking("the disk is full")), log.task("b", breaking("the network is down"))
    ran = inv("main", log.task("main", pre=[a, b]))
    assert ran.code == 5
    assert ran.err.count("the disk is full") == 1
    assert ran.err.count("the network is down") == 1


def test_an_error_beside_a_failure_is_told(inv: Inv) -> None:
    failed = threading.Event()

    def first() -> None:
        failed.set()
        fail()

    def second() -> None:
        failed.wait(PATIENCE)
        threading.Event().wait(0.1)
        raise ValueError("no such colour")

    log = Log()
    ran = inv("main", log.task("main", pre=[log.task("a", first), log.task("b", second)]))
    assert ran.code == 7
    assert ran.err.count("no such colour") == 1


def test_tasks_in_a_circle(inv: Inv) -> None:
    log = Log()
    a, b, c = log.task("a"), log.task("b"), log.task("c")
    a.pre, b.pre, c.pre = [b], [c], [a]
    ran = inv("a", a)
    assert (ran.code, log) == (2, [])
    assert "in a circle" in ran.err
    assert "a → b → c → a" in ran.err
    assert len(ran.err.splitlines()) == 1


class TestOutput:
    def test_of_tasks_side_by_side_is_kept_apart_line_by_line(self, inv: Inv) -> None:
        meeting = threading.Barrier(2, timeout=PATIENCE)

        def chatter(name: str) -> Callable[[], None]:
            def body() -> None:
                for number in range(20):
                    meeting.wait()
                    print(f"{name}", end="")
                    meeting.wait()
                    print(f"-line-{number}")
                print(f"{name}-no-newline", end="")

            return body

        log = Log()
        pre = [log.task("left", chatter("left")), log.task("right", chatter("right"))]
        ran = inv("main", log.task("main", lambda: print("alone"), pre=pre))
        lines = ran.out.splitlines()
        for name in ("left", "right"):
            mine = [line for line in lines if line.startswith(f"{name} | ")]
            assert mine == [f"{name} | {name}-line-{n}" for n in range(20)] + [f"{name} | {name}-no-newline"]
        assert lines[-1] == "alone"
        assert len(lines) == 43

    def test_errors_stay_on_stderr(self, inv: Inv) -> None:
        import sys

        meeting = threading.Barrier(2, timeout=PATIENCE)

        def complain() -> None:
            meeting.wait()
            print("oh", file=sys.stderr)

        log = Log()
        ran = inv("main", log.task("main", pre=[log.task("a", complain), log.task("b", complain)]))
        assert sorted(ran.err.splitlines()) == ["a | oh", "b | oh"]
        assert ran.out == ""

    def test_of_a_task_alone_is_as_always(self, inv: Inv) -> None:
        log = Log()
        ran = inv("main", log.task("main", lambda: print("b"), pre=[log.task("one", lambda: print("a"))]))
        assert ran.out == "a\nb\n"

    def test_streams_are_put_back(self, inv: Inv) -> None:
        import sys

        before = sys.stdout, sys.stderr
        log = Log()
        inv("main", log.task("main", fail, pre=[log.task("a"), log.task("b")]))
        assert (sys.stdout, sys.stderr) == before


def test_side_by_side_each_has_a_configuration_of_its_own(inv: Inv) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)
    seen: dict[str, Any] = {}

    def change(name: str) -> Task[Any]:
        def run(c: Context) -> None:
            c.config.colour = name
            c.config.run.echo = name == "left"
            meeting.wait()
            seen[name] = (c.config.colour, c.config.run.echo)

        return task(run, name=name)

    main = task(lambda c: seen.update(main=c.config.colour), name="main", pre=[change("left"), change("right")])
    ran = inv("main", main, configuration={"colour": "grey"})
    assert ran.code == 0, ran
    assert seen == {"left": ("left", True), "right": ("right", False), "main": "grey"}


@pytest.mark.parametrize(
    ("configuration", "variable", "value"),
    [
        ({"size": 3}, "INVOKE_SIZE", "big"),
        ({"hosts": ["a"]}, "INVOKE_HOSTS", "b"),
        ({"a_b": {"c": "1"}, "a": {"b_c": "2"}}, "INVOKE_A_B_C", "3"),
    ],
)
def test_a_bad_environment_override(
    inv: Inv, monkeypatch: pytest.MonkeyPatch, configuration: dict[str, Any], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    log = Log()
    ran = inv("main", log.task("main"), configuration=configuration)
    assert (ran.code, log) == (2, [])
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1
    assert variable in ran.err


def test_an_environment_override_counts(inv: Inv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOKE_SIZE", "4")
    seen: list[int] = []
    inv("main", task(lambda c: seen.append(c.config.size), name="main"), configuration={"size": 3})
    assert seen == [4]


def test_return_values_are_printed_for_named_tasks_only(inv: Inv) -> None:
    inner = task(lambda c: "inner", name="inner", autoprint=True)
    ran = inv("main", task(lambda c: "outer", name="main", autoprint=True, pre=[inner]))
    assert ran.out == "outer\n"


@pytest.mark.parametrize(("words", "code"), [("nosuch", 2), ("main --nosuch", 2), ("main", 0)])
def test_what_the_command_line_gets_wrong(inv: Inv, words: str, code: int) -> None:
    assert inv(words, Log().task("main")).code == code


def test_the_project_settings_count(inv: Inv, tmp_path: Path) -> None:
    (tmp_path / "invoke.yaml").write_text("size: 5\n")
    seen: list[int] = []
    inv("main", task(lambda c: seen.append(c.config.size), name="main"), configuration={"size": 3})
    assert seen == [5]
