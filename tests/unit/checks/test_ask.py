"""Questions that get no answer in time are asked again, alone and with more time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import healthy, project, service
from shells import context as make_context

from stackhand.checks.ask import Asker, Question
from stackhand.checks.check import CannotAsk, Check, NoAnswer, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import time_ran_out
from stackhand.checks.suite import Limits, Suite
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.host.load import CpuLoad
from stackhand.graph.slots import EXECS_AT_ONCE

QUIET, BUSY = CpuLoad(2, 0.5, 1.0), CpuLoad(2, 25.0, 97.0)
SUITE = Suite("services.fixes", ("services", "network"), (), limits=Limits(check=5.0, stretch=4.0))


class Engine:
    """Has one container; `true` takes `seconds` in it."""

    def __init__(self, load: CpuLoad | None = QUIET, seconds: float = 0.1) -> None:
        self.restarted: list[str] = []
        self.load = load
        self.seconds = seconds

    def containers(self, project: str) -> Sequence[Any]:
        return [healthy()]

    def cpu_load(self) -> CpuLoad | None:
        return self.load

    def answers(self, within: float) -> bool:
        return True

    def ask(self, container: str, argv: Sequence[str], **_: Any) -> ExecResult:
        assert list(argv) == ["true"]
        return ExecResult(0, "", seconds=self.seconds)


class Asked:
    """A check that answers in time when it is given `needs` times the usual; remembers how much it was given."""

    def __init__(self, needs: float, late: Verdict | NoAnswer, more: Sequence[Verdict] = ()) -> None:
        self.needs = needs
        self.late = late
        self.more = more
        self.given: list[float] = []

    def __call__(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        self.given.append(context.within(1))
        yield from self.more
        if context.within(1) >= self.needs:
            yield ok("it answers")
        elif isinstance(self.late, NoAnswer):
            raise self.late
        else:
            yield self.late


def question(asked: Any, name: str = "it") -> Question:
    return Question(f"test.{name}", "web", Check(f"test.{name}", "network", asked))


def asker(tmp_path: Path, engine: Engine) -> Asker:
    return Asker(make_context(project(service("web")), engine, tmp_path), SUITE)


def statuses(verdicts: Iterable[Verdict]) -> list[str]:
    return [each.status for each in verdicts]


LATE = fail("no way", "no answer within 2 s")


@pytest.mark.parametrize(
    "late",
    [LATE, warn("slow", "curl: (28) Operation timed out"), NoAnswer("timeout expired"), CannotAsk("busy", late=True)],
)
def test_what_is_late_is_asked_again_with_more_time(tmp_path: Path, late: Verdict | NoAnswer) -> None:
    asked = Asked(4, late)
    (verdicts,) = asker(tmp_path, Engine()).ask([question(asked)]).values()
    assert statuses(verdicts) == ["ok"]
    assert asked.given == [1, 4]


@pytest.mark.parametrize("early", [fail("no", "Connection refused"), NoAnswer("refused"), CannotAsk("no program")])
def test_what_failed_in_time_is_not(tmp_path: Path, early: Verdict | NoAnswer) -> None:
    asked = Asked(4, early)
    asker(tmp_path, Engine(BUSY)).ask([question(asked)])
    assert asked.given == [1]


@pytest.mark.parametrize(
    ("engine", "status"),
    [
        (Engine(QUIET), "fail"),
        (Engine(BUSY), "skip"),
        (Engine(CpuLoad(64, 25.0, 97.0)), "fail"),
        # Still in the average, and over.
        (Engine(CpuLoad(2, 25.0, 3.0)), "fail"),
        (Engine(QUIET, seconds=4.0), "skip"),
        # The engine is on another machine.
        (Engine(None), "fail"),
        (Engine(None, seconds=4.0), "skip"),
    ],
)
def test_late_even_so_is_a_failure_unless_the_machine_is_busy(tmp_path: Path, engine: Engine, status: str) -> None:
    asked = Asked(9, LATE, [ok("the rest is well"), fail("wrong", "404")])
    (verdicts,) = asker(tmp_path, engine).ask([question(asked)]).values()
    assert statuses(verdicts) == ["ok", "fail", status]
    assert asked.given == [1, 4]
    if status == "skip":
        assert verdicts[-1].summary == "not asked in time"
        assert LATE.evidence in verdicts[-1].evidence


def test_a_check_that_takes_too_long_for_all_its_answers_is_asked_again(tmp_path: Path) -> None:
    ended = threading.Event()

    def once_slow(context: CheckContext, service: str) -> Iterable[Verdict]:
        if context.within(1) == 1:
            ended.wait(30)
        return [ok("it answers")]

    stage = make_context(project(service("web")), Engine(), tmp_path)
    suite = Suite("services.fixes", ("services",), (), limits=Limits(check=0.05, stretch=100))
    (verdicts,) = Asker(stage, suite).ask([question(once_slow)]).values()
    ended.set()
    assert statuses(verdicts) == ["ok"]


def test_what_is_surely_late_is_not_asked_again_until_something_changes(tmp_path: Path) -> None:
    asked = Asked(9, LATE)
    asks = asker(tmp_path, Engine())
    for _ in range(2):
        asks.ask([question(asked)])
    assert asked.given == [1, 4, 1]
    asks.forget()
    asks.ask([question(asked)])
    assert asked.given == [1, 4, 1, 1, 4]


def test_they_are_asked_again_one_by_one(tmp_path: Path) -> None:
    lock = threading.Lock()

    def late(context: CheckContext, service: str) -> Iterable[Verdict]:
        if context.within(1) == 1:
            return [LATE]
        alone = lock.acquire(blocking=False)
        time.sleep(0.01)
        lock.release()
        return [ok("it answers") if alone else fail("it is not alone")]

    found = asker(tmp_path, Engine()).ask([question(late, str(number)) for number in range(6)])
    assert {each.status for verdicts in found.values() for each in verdicts} == {"ok"}


def test_where_one_is_late_by_itself_the_others_are_asked_together(tmp_path: Path) -> None:
    """Where a whole network is down, its services are not waited for one after another."""
    together, again = threading.Barrier(5), []

    def late(context: CheckContext, service: str) -> Iterable[Verdict]:
        if context.within(1) > 1:
            again.append(service)
            if len(again) > 1:
                together.wait(30)
        return [LATE]

    found = asker(tmp_path, Engine()).ask([question(late, str(number)) for number in range(6)])
    assert {each.status for verdicts in found.values() for each in verdicts} == {"fail"}
    assert len(again) == 6
    assert not together.broken


def test_no_thread_for_each_question_of_a_large_stack(tmp_path: Path) -> None:
    lock, now, peak = threading.Lock(), [0], [0]
    pair = threading.Barrier(2)

    def check(context: CheckContext, service: str) -> Iterable[Verdict]:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        pair.wait(30)  # so that at least two are asked at once
        with lock:
            now[0] -= 1
        return [ok("it answers")]

    asker(tmp_path, Engine()).ask([question(check, str(number)) for number in range(300)])
    assert 1 < peak[0] <= 8 * EXECS_AT_ONCE


@pytest.mark.parametrize(
    ("text", "ran_out"),
    [
        ("no answer within 5 s", True),
        ("celery@x does not answer within 3 s, and its broker does", True),
        ("psql: error: connection to server failed: timeout expired", True),
        ("canceling statement due to statement timeout", True),
        ("Health check exceeded timeout (5s)", True),
        ("nc: connect: Connection timed out", True),
        ("TimeoutError: ", True),
        ("Connection refused", False),
        ("No route to host", False),
        ('FATAL: role "app" does not exist', False),
    ],
)
def test_messages_that_say_that_time_ran_out(text: str, ran_out: bool) -> None:
    assert time_ran_out(text) is ran_out
