"""A misspelt task or flag is exit code 2, and the nearest one is named."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.program import Program

from stackhand.cli import service_tasks
from stackhand.cli.misspelt import first_task, refuse_first_word
from stackhand.cli.program import StackProgram
from stackhand.cli.service_tasks import ServiceCollection
from stackhand.cli.task import task


@pytest.fixture(autouse=True)
def _services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service_tasks, "_catalogue", {"redis": [], "web": ["service_healthy 1 redis"]})
    yield


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    """Run a command line over stackhand's own tasks, the service tasks made anew; return the exit code."""
    from stackhand.cli import services
    from stackhand.cli.namespace import ns

    collection = Collection.from_module(types.SimpleNamespace(ns=ns, __name__="tasks", __doc__=""))
    monkeypatch.setattr(sys, "argv", ["inv", *words.split()])
    try:
        collection.collections = {**collection.collections, "up": ServiceCollection(services.up)}  # type: ignore[assignment]
        StackProgram(name="inv", binary="inv", namespace=collection, version="0").run(sys.argv)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("services.strat", "unknown task 'services.strat'", "did you mean 'services.start'?"),
        ("Services.Start", "unknown task 'Services.Start'", "did you mean 'services.start'?"),
        ("service.start", "unknown task 'service.start'", "did you mean 'services.start'?"),
        ("perm.fix", "unknown task 'perm.fix'", "did you mean 'perms.fix'?"),
        ("statsu", "unknown task 'statsu'", "did you mean 'services.status'?"),
        ("redis", "unknown task 'redis'", "did you mean 'up.redis'?"),
        ("demoo", "unknown task 'demoo'", "did you mean 'demo'?"),
        ("zzzz", "unknown task 'zzzz'", "`inv -l` lists the tasks"),
        ("services.status --json zzzz", "unknown task 'zzzz'", "`inv -l` lists the tasks"),
        ("--help services.strat", "unknown task 'services.strat'", "did you mean 'services.start'?"),
        ("services.start --retris 3", "unknown flag --retris of services.start", "did you mean '--retries'?"),
        ("services.start --nofixes", "unknown flag --nofixes of services.start", "did you mean '--no-fixes'?"),
        ("services.start -x", "unknown flag -x of services.start", "flags: --dev, --json, "),
        ("up.redis --jsn", "unknown flag --jsn of up.redis", "did you mean '--json'?"),
        ("--list-dept", "unknown flag --list-dept", "did you mean '--list-depth'?"),
        ("--nosuch", "unknown flag --nosuch", "`inv --help` lists Invoke's own flags"),
        ("services.start --timeout", "--timeout needs a value", "`inv --help TASK` lists the flags of a task"),
        ("services.start -s", "--service needs a value", "`inv --help TASK` lists the flags of a task"),
        ("services.stop --service", "--service needs a value", "`inv --help TASK` lists the flags of a task"),
    ],
)
def test_what_is_misspelt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, error: str, hint: str
) -> None:
    assert run(monkeypatch, words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {error}"
    assert lines[1].startswith(f"hint: {hint}")
    assert len(lines) == 2


def test_a_misspelt_service(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from stackhand.cli import services

    monkeypatch.setattr(sys, "argv", ["inv", "up.redi"])
    with pytest.raises(Exit) as ended:
        ServiceCollection(services.up).tasks  # noqa: B018
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: unknown service 'redi'\nhint: did you mean 'redis'?\n"


def test_a_service_that_is_being_completed_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from stackhand.cli import services

    monkeypatch.setattr(sys, "argv", ["inv", "--complete", "--", "inv", "up.redi"])
    assert "redis" in ServiceCollection(services.up).tasks


def test_in_json_it_is_the_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "services.strat --json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["inv"], None),
        (["inv", "up"], "up"),
        (["inv", "--dry", "-f", "x.yaml", "up", "demo"], "up"),
        (["inv", "--search-root=x", "up"], "up"),
        (["inv", "-l", "services"], None),
        (["inv", "--help", "up"], None),
        (["inv", "--complete", "--", "inv up.re"], None),
        (["inv", "-c"], None),
        (["inv", "-T", "soon", "up"], None),
        (["inv", "-eT", "30", "up"], "up"),
        (["inv", "-eT30", "up"], None),  # Invoke takes it for -e -T -3 -0
        (["inv", "-el", "up"], None),
        (["inv", "-V", "up"], None),
        (["inv", "-e", "--", "up"], None),
        (["inv", "--nosuch", "up"], None),
    ],
)
def test_the_first_task(argv: list[str], word: str | None) -> None:
    assert first_task(argv) == word


_WITH_VALUE = [
    ("-" if len(name) == 1 else "--") + name
    for flag in [*Program().core_args(), *Program().task_args()]
    if flag.takes_value and not flag.optional and flag.name != "print-completion-script"
    for name in flag.names
]


@pytest.mark.parametrize("flag", _WITH_VALUE)
def test_the_value_of_a_flag_of_invokes_is_no_task(flag: str) -> None:
    assert first_task(["inv", flag, "1", "services.graph"]) == "services.graph"
    assert first_task(["inv", f"{flag}=1", "services.graph"]) == "services.graph"
    if not flag.startswith("--"):
        assert first_task(["inv", f"-e{flag[1]}", "1", "services.graph"]) == "services.graph"


def test_there_are_such_flags() -> None:
    assert {"--hide", "--command-timeout", "-T", "--config", "-f", "--search-root", "-r"} <= set(_WITH_VALUE)


class TestInvokesOwnProgram:
    """`inv` of another installation: only what its first word is can be known, and only in a namespace of ours."""

    @pytest.fixture
    def ours(self) -> Collection:
        @task()
        def start(c: Context) -> None:
            """Start."""

        return Collection(Collection("services", start))

    def loaded(self, monkeypatch: pytest.MonkeyPatch, ns: Collection) -> None:
        monkeypatch.setitem(sys.modules, "tasks", types.SimpleNamespace(ns=ns))  # type: ignore[arg-type]

    def test_a_misspelt_first_task(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ours: Collection
    ) -> None:
        self.loaded(monkeypatch, ours)
        with pytest.raises(Exit) as ended:
            refuse_first_word(["inv", "services.strat"], ours)
        assert ended.value.code == 2
        assert "did you mean 'services.start'?" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "words",
        [
            ["services.start"],
            ["services.start", "--flag", "nope"],
            [],
            ["-l", "nope"],
            ["--hide", "both", "services.start"],
            ["-eT", "30", "services.start"],
        ],
    )
    def test_nothing_else_is_refused(self, monkeypatch: pytest.MonkeyPatch, ours: Collection, words: list[str]) -> None:
        self.loaded(monkeypatch, ours)
        refuse_first_word(["inv", *words], ours)

    def test_another_projects_own_tasks_are_left_to_invoke(
        self, monkeypatch: pytest.MonkeyPatch, ours: Collection
    ) -> None:
        self.loaded(monkeypatch, Collection("theirs"))
        refuse_first_word(["inv", "deploy"], ours)
