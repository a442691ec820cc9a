"""Stopping: what the journal has of it, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service

from stackhand.engine.api.containers import Container
from stackhand.errors import StopFailed
from stackhand.services import stop
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run

SHOP = project(service("web"), service("db"))
WEB, DB = container("web"), container("db")


class Fake:
    """An engine and Compose at once; `on_stop` says what becomes of the containers."""

    def __init__(self, on_stop: Callable[[Fake], None]) -> None:
        self.there = [WEB, DB]
        self._on_stop = on_stop

    def containers(self, name: str) -> list[Container]:
        return list(self.there)

    def stop(self, names: list[str]) -> None:
        self._on_stop(self)

    def end(self, *services: str) -> None:
        self.there = [replace(each, status="exited") if each.service in services else each for each in self.there]


def do(folder: Path, on_stop: Callable[[Fake], None]) -> frozenset[str]:
    fake: Any = Fake(on_stop)
    state = StateFolder(folder)
    try:
        stop.stop(fake, fake, SHOP, ["web", "db"], state)
    finally:
        assert Journal(state).unfinished() == []
    return stop.stopped_on_purpose(state)


def test_what_was_stopped_is_meant_to_stand_still(tmp_path: Path) -> None:
    assert do(tmp_path, lambda fake: fake.end("web", "db")) == {WEB.run_key, DB.run_key}


def test_it_is_written_down_before_anything_stops(tmp_path: Path) -> None:
    def look(fake: Fake) -> None:
        [run] = Journal(StateFolder(tmp_path)).unfinished(stop.TASK)
        assert set(run.steps) == {WEB.run_key, DB.run_key}
        # A kill from here on leaves this.
        assert stop.stopped_on_purpose(StateFolder(tmp_path)) == {WEB.run_key, DB.run_key}
        fake.end("web", "db")

    do(tmp_path, look)


def test_what_runs_on_was_not_stopped(tmp_path: Path) -> None:
    with pytest.raises(StopFailed, match="still running: db"):
        do(tmp_path, lambda fake: fake.end("web"))
    assert stop.stopped_on_purpose(StateFolder(tmp_path)) == {WEB.run_key}


def test_after_an_interrupt_nothing_is_taken_for_meant(tmp_path: Path) -> None:
    def interrupted(fake: Fake) -> None:
        fake.end("web")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, interrupted)
    assert stop.stopped_on_purpose(StateFolder(tmp_path)) == frozenset()


def test_nothing_runs_so_nothing_is_written(tmp_path: Path) -> None:
    fake: Any = Fake(lambda _: None)
    fake.there = []
    assert stop.stop(fake, fake, SHOP, ["web"], StateFolder(tmp_path)) == []
    assert not (tmp_path / ".stackhand").exists()


def killed(folder: Path) -> Run:
    """A stop of both whose process is gone."""
    active = Journal(StateFolder(folder)).begin(stop.TASK, steps={WEB.run_key: "", DB.run_key: ""})
    active.give_up()
    return Journal(StateFolder(folder)).unfinished()[0]


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
