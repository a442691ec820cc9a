"""Who waited for whom, and what decided how long the start took."""

from __future__ import annotations

import pytest
from builders import graph, needs, project, service

from stackhand.engine.compose.project import Project
from stackhand.services.start.record import Record
from stackhand.services.start.timeline import critical_path, waited_for

# proxy → api → db, cache; and a worker that only needs the database to run.
STACK = project(
    service("db"),
    service("cache"),
    service("api", "db", "cache"),
    service("worker", needs("db")),
    service("proxy", "api"),
)


def record(name: str, began: float, started: float | None, ready: float | None, kept: bool = False) -> Record:
    return Record(name, began=began, started=started, ready=ready, kept=kept)


def records(*each: Record) -> dict[str, Record]:
    return {one.name: one for one in each}


FRESH = records(
    record("db", 0, 0.3, 4.0),
    record("cache", 0, 0.3, 1.0),
    record("api", 4.0, 4.3, 6.0),
    record("worker", 0.3, 0.6, 5.0),
    record("proxy", 6.0, 6.2, 7.0),
)


@pytest.mark.parametrize(
    ("name", "waited"),
    [("db", ()), ("cache", ()), ("api", ("db", "cache")), ("worker", ("db",)), ("proxy", ("api",))],
)
def test_the_longest_wait_comes_first(name: str, waited: tuple[str, ...]) -> None:
    assert waited_for(STACK, name, FRESH) == waited


def test_the_critical_path_of_a_fresh_start() -> None:
    assert critical_path(STACK, FRESH) == ("db", "api", "proxy")


def test_it_may_end_in_a_branch() -> None:
    slow = {**FRESH, "worker": record("worker", 0.3, 0.6, 9.0)}
    assert critical_path(STACK, slow) == ("db", "worker")


def test_what_was_ready_before_held_nobody_up() -> None:
    again = {**FRESH, "db": record("db", 0, 0, 0, kept=True)}
    assert waited_for(STACK, "api", again) == ("cache",)
    assert critical_path(STACK, again) == ("cache", "api", "proxy")


def test_what_failed_is_no_part_of_it() -> None:
    broken = {**FRESH, "api": record("api", 4.0, 4.3, None), "proxy": record("proxy", 0, None, None)}
    assert waited_for(STACK, "proxy", broken) == ()
    assert critical_path(STACK, broken) == ("db", "worker")


@pytest.mark.parametrize("known", [{}, records(record("db", 0, 0, 0, kept=True)), records(record("db", 0, 1, None))])
def test_nothing_got_ready(known: dict[str, Record]) -> None:
    assert critical_path(STACK, known) == ()


def test_a_dependency_that_was_not_part_of_the_run() -> None:
    assert waited_for(STACK, "proxy", records(record("proxy", 0, 1, 2))) == ()


def test_a_service_alone() -> None:
    stack: Project = graph({"a": [], "b": []})
    assert critical_path(stack, records(record("a", 0, 1, 2), record("b", 0, 1, 3))) == ("b",)
