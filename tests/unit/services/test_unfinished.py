"""What a person is told of runs that were killed half way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from builders import container

from stackhand.engine.api.containers import Container
from stackhand.services.unfinished import unfinished
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal

API, DB = container("api"), container("db")


def begun(folder: Path, task: str, *steps: Container, alive: bool = False, **facts: object) -> None:
    active = Journal(StateFolder(folder)).begin(task, facts, {each.run_key: "why" for each in steps})
    if not alive:
        active.give_up()


def told(folder: Path, *containers: Container) -> list[str]:
    return [f"{run.summary}; {run.hint}" for run in unfinished(StateFolder(folder), lambda: containers)]


def test_without_such_a_run_no_container_is_asked_for(tmp_path: Path) -> None:
    def ask() -> Sequence[Container]:
        pytest.fail("nothing is to be decided")

    assert unfinished(StateFolder(tmp_path), ask) == []
    begun(tmp_path, "services.restart", API, alive=True)
    assert unfinished(StateFolder(tmp_path), ask) == []


def test_each_task_says_what_finishes_it(tmp_path: Path) -> None:
    begun(tmp_path, "services.reset", mode="soft", names=["db"])
    begun(tmp_path, "services.restart", API, DB)
    begun(tmp_path, "services.fixes", API)
    begun(tmp_path, "services.stop", API, DB)
    begun(tmp_path, "something.else", API)
    assert told(tmp_path, replace(API, status="exited"), DB) == [
        "a reset --soft was interrupted before all was removed; `inv services.reset --soft` finishes it",
        "a restart was interrupted before all had restarted: api, db; `inv services.restart` finishes it",
        "a fix was interrupted while it restarted api; `inv services.fixes` finishes it",
        "a stop was interrupted; still running: db; `inv services.stop -s db` finishes it",
    ]


def test_the_containers_decide_what_is_left(tmp_path: Path) -> None:
    begun(tmp_path, "services.restart", API)
    begun(tmp_path, "services.fixes", API)
    begun(tmp_path, "services.stop", API)
    again = container("api", id="another")
    assert told(tmp_path, again) == []


def test_two_runs_of_a_task_are_told_together(tmp_path: Path) -> None:
    begun(tmp_path, "services.restart", API)
    begun(tmp_path, "services.reset", mode="full")
    begun(tmp_path, "services.restart", DB)
    assert [line.partition(";")[0] for line in told(tmp_path, API, DB)] == [
        "a reset --full was interrupted before all was removed",
        "a restart was interrupted before all had restarted: api, db",
    ]
