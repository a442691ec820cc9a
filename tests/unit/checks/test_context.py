"""The context of checks: what a service needs, and views for one container of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service

from stackhand.checks.context import CheckContext, ServiceActions
from stackhand.checks.context import ServiceKinds as Kinds
from stackhand.engine.api.containers import Container
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal


class _Engine:
    """An engine with two containers of web; it keeps which were restarted, and what the journal said meanwhile."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.restarted: list[str] = []
        self.noted: list[str] = []
        self.asked = 0

    def containers(self, project: str) -> list[Container]:
        self.asked += 1
        return [container("web"), container("web", number=2), container("db")]

    def restart(self, name: str) -> None:
        self.restarted.append(name)
        self.noted += [key for run in Journal(self.state).unfinished() for key in run.steps]


@pytest.fixture
def stage(tmp_path: Path) -> CheckContext:
    stack = project(
        service("web", "db", environment={"CACHE_URL": "redis://cache/0", "DB_HOST": "db"}),
        service("db"),
        service("cache"),
    )
    state = StateFolder(tmp_path)
    engine: Any = _Engine(state)
    actions = ServiceActions(
        start=lambda name: None,
        restart=engine.restart,
        recreate=lambda name: None,
        run=lambda name, command: None,
    )
    return CheckContext(stack, engine, Kinds({}), Fixes(), state, actions)


def test_what_a_service_needs(stage: CheckContext) -> None:
    assert stage.needs("web") == ("db", "cache")
    assert stage.needs("db") == ()


def test_a_view_restarts_the_one_container_that_the_check_is_about(stage: CheckContext) -> None:
    engine: Any = stage.engine
    second = engine.containers("shop")[1]
    stage.for_container(second).restart("web")
    assert engine.restarted == [second.id]
    # A killed run would start this one again, and not the others.
    assert engine.noted == [second.run_key]
    stage.restart("web")
    assert engine.restarted[1:] == ["web"]


def test_a_view_for_one_service_asks_the_others_as_always(stage: CheckContext) -> None:
    view = stage.for_container(container("web", number=2))
    assert view.container("web").number == 2
    assert view.container("db").number == 1
    view.restart("db")
    assert stage.engine.restarted == ["db"]  # type: ignore[attr-defined]


def test_what_a_view_invalidates_is_asked_again_by_all(stage: CheckContext) -> None:
    view = stage.for_container(container("web", number=2))
    engine: Any = stage.engine
    stage.containers()
    view.containers()
    assert engine.asked == 1
    view.invalidate()
    stage.containers()
    assert engine.asked == 2
