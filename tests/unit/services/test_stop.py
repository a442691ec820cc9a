"""Stopping: what the journal has of it, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service

from stackhand.engine.api.containers import Container
from stackhand.errors import StackError, StopFailed
from stackhand.services import stop
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run

SHOP = project(service("web"), service("db"))
WEB, DB = container("web"), container("db")
STOP = datetime(2026, 11, 24, tzinfo=timezone.utc)


def gone(box: Container, seconds: float) -> Container:
    """The same run of a container, ended so many seconds after the stop had begun."""
    return replace(box, status="exited", finished_at=STOP + timedelta(seconds=seconds))


class Fake:
    """An engine and Compose at once; `on_stop` says what becomes of the containers."""

    def __init__(self, on_stop: Callable[[Fake], None]) -> None:
        self.there = [WEB, DB]
        self._on_stop = on_stop

    def containers(self, name: str) -> list[Container]:
        return list(self.there)

    def stop(self, names: list[str]) -> None:
        self._on_stop(self)

    def now(self) -> datetime:
        return STOP

    def end(self, *services: str) -> None:
        self.there = [gone(each, 1) if each.service in services else each for each in self.there]


def do(folder: Path, on_stop: Callable[[Fake], None], *names: str) -> frozenset[str]:
    fake: Any = Fake(on_stop)
    state = StateFolder(folder)
    try:
        stop.stop(fake, fake, SHOP, names or ["web", "db"], state)
    finally:
        assert Journal(state).unfinished() == []
    return on_purpose(folder, *fake.there)


def on_purpose(folder: Path, *containers: Container) -> frozenset[str]:
    return stop.stopped_on_purpose(Journal(StateFolder(folder)).runs(), containers)


def test_what_was_stopped_is_meant_to_stand_still(tmp_path: Path) -> None:
    assert do(tmp_path, lambda fake: fake.end("web", "db")) == {WEB.run_key, DB.run_key}


def test_it_is_written_down_before_anything_stops(tmp_path: Path) -> None:
    def look(fake: Fake) -> None:
        [run] = Journal(StateFolder(tmp_path)).unfinished(stop.TASK)
        assert set(run.steps) == {WEB.run_key, DB.run_key}
        fake.end("web", "db")
        # A kill from here on leaves this.
        assert on_purpose(tmp_path, *fake.there) == {WEB.run_key, DB.run_key}

    do(tmp_path, look)


def test_what_runs_on_was_not_stopped(tmp_path: Path) -> None:
    with pytest.raises(StopFailed, match="still running: db"):
        do(tmp_path, lambda fake: fake.end("web"))
    assert on_purpose(tmp_path, gone(WEB, 1), gone(DB, 2)) == {WEB.run_key}


def test_after_an_interrupt_nothing_is_taken_for_meant(tmp_path: Path) -> None:
    def interrupted(fake: Fake) -> None:
        fake.end("web")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, interrupted)
    assert on_purpose(tmp_path, gone(WEB, 1), gone(DB, 2)) == frozenset()


def test_nothing_runs_so_nothing_is_written(tmp_path: Path) -> None:
    fake: Any = Fake(lambda _: None)
    fake.there = []
    assert stop.stop(fake, fake, SHOP, ["web"], StateFolder(tmp_path)) == []
    assert not (tmp_path / ".stackhand").exists()


def killed(folder: Path, facts: dict[str, Any] | None = None) -> Run:
    """A stop of both whose process is gone."""
    facts = {"engine_time": STOP.isoformat()} if facts is None else facts
    active = Journal(StateFolder(folder)).begin(stop.TASK, facts, {WEB.run_key: "", DB.run_key: ""})
    active.give_up()
    return Journal(StateFolder(folder)).unfinished()[0]


def test_the_engines_clock_is_written_down(tmp_path: Path) -> None:
    def look(fake: Fake) -> None:
        [run] = Journal(StateFolder(tmp_path)).unfinished(stop.TASK)
        assert run.facts == {"engine_time": STOP.isoformat()}
        fake.end("web", "db")

    do(tmp_path, look)


def test_an_engine_that_does_not_say_its_time_is_no_hindrance(tmp_path: Path) -> None:
    def refuse() -> datetime:
        raise StackError("the engine refused")

    fake: Any = Fake(lambda fake: fake.end("web", "db"))
    fake.now = refuse
    assert set(stop.stop(fake, fake, SHOP, ["web", "db"], StateFolder(tmp_path))) == {"web", "db"}


@pytest.mark.parametrize(("seconds", "meant"), [(-1, False), (0, True), (30, True), (500, True), (3600, False)])
def test_of_one_that_was_killed_only_what_ended_about_then_is_meant(tmp_path: Path, seconds: int, meant: bool) -> None:
    killed(tmp_path)
    assert on_purpose(tmp_path, gone(WEB, seconds), DB) == ({WEB.run_key} if meant else frozenset())


@pytest.mark.parametrize("facts", [{}, {"engine_time": 3}, {"engine_time": "noon"}, {"engine_time": "2026-11-24"}])
def test_without_a_time_that_can_be_read_nothing_is_meant(tmp_path: Path, facts: dict[str, Any]) -> None:
    killed(tmp_path, facts)
    assert on_purpose(tmp_path, gone(WEB, 1)) == frozenset()


def test_a_start_takes_back_what_was_not_stopped(tmp_path: Path) -> None:
    killed(tmp_path)
    stop.settle_killed(StateFolder(tmp_path), [WEB, DB], ["web", "db"])
    assert Journal(StateFolder(tmp_path)).unfinished() == []
    assert on_purpose(tmp_path, gone(WEB, 30), gone(DB, 30)) == frozenset()


def test_a_start_of_some_leaves_the_others_as_they_were_meant(tmp_path: Path) -> None:
    killed(tmp_path)
    stop.settle_killed(StateFolder(tmp_path), [WEB, DB], ["web"])
    [run] = Journal(StateFolder(tmp_path)).unfinished()
    told = stop.describe(run, [WEB, DB])
    assert told is not None
    assert told.summary == "a stop was interrupted; still running: db"
    stop.settle_killed(StateFolder(tmp_path), [WEB, gone(DB, 5)], ["web"])
    assert Journal(StateFolder(tmp_path)).unfinished() == []
    assert on_purpose(tmp_path, WEB, gone(DB, 5)) == {DB.run_key}


def test_a_start_leaves_a_stop_alone_that_is_under_way(tmp_path: Path) -> None:
    journal = Journal(StateFolder(tmp_path))
    journal.begin(stop.TASK, steps={WEB.run_key: ""})
    before = journal.runs()
    stop.settle_killed(StateFolder(tmp_path), [WEB], ["web"])
    assert journal.runs() == before


def test_of_one_that_was_killed_the_containers_tell_what_is_left(tmp_path: Path) -> None:
    run = killed(tmp_path)
    told = stop.describe(run, [WEB, replace(DB, status="exited")])
    assert told is not None
    assert told.summary == "a stop was interrupted; still running: web"
    assert told.hint == "`inv services.stop -s web` finishes it"
    assert stop.describe(run, []) is None


def test_the_next_stop_settles_it(tmp_path: Path) -> None:
    killed(tmp_path)
    do(tmp_path, lambda fake: fake.end("web", "db"))


def test_the_next_stop_leaves_alone_what_the_killed_one_has_stopped(tmp_path: Path) -> None:
    killed(tmp_path)
    fake: Any = Fake(lambda fake: fake.end("db"))
    fake.end("web")
    assert stop.stop(fake, fake, SHOP, ["web", "db"], StateFolder(tmp_path)) == ["db"]
    assert Journal(StateFolder(tmp_path)).unfinished() == []
    assert on_purpose(tmp_path, *fake.there) == {WEB.run_key, DB.run_key}


def test_what_was_started_since_is_forgotten(tmp_path: Path) -> None:
    do(tmp_path, lambda fake: fake.end("web"), "web")
    fake: Any = Fake(lambda fake: fake.end("web", "db"))
    fake.there = [replace(WEB, started_at=STOP), DB]
    stop.stop(fake, fake, SHOP, ["web", "db"], StateFolder(tmp_path))
    runs = Journal(StateFolder(tmp_path)).runs()
    assert [set(run.steps) for run in runs] == [set(), {each.run_key for each in fake.there}]
