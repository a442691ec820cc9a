"""Actions on whole services: which calls they come to, and what is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import container, project, service

from stackhand.engine.api.containers import Container
from stackhand.errors import OtherFolder, StackError
from stackhand.output.redact import Redactor
from stackhand.services import actions
from stackhand.services.actions import Actions
from stackhand.services.start.record import Record, StartReport
from stackhand.settings import Start
from stackhand.state.folder import StateFolder


class World:
    """Compose, the engine and the starters, and what was asked of them."""

    def __init__(self, folder: Path, *, ready: bool = True, running: Sequence[str] = ()) -> None:
        self.did: list[Any] = []
        self.state = StateFolder(folder)
        self._ready = ready
        self._running = list(running)
        self.compose = self
        self.api = self
        self.files = (folder / "compose.yaml",)
        self.project = project(service("web"), directory=folder, files=self.files)
        self.there: list[Container] = []
        self.starters = 0
        self.actions = Actions(self, self, Start(), self.state, Redactor(), self.did.append)  # type: ignore[arg-type]

    def starter(self, *_: Any) -> Starter:
        self.starters += 1
        return Starter(self, "the run's" if self.starters == 1 else "its own")

    def report(self) -> StartReport:
        return StartReport("shop", 0.0, (Record("web", "healthy" if self._ready else "failed"),))

    def _note(self, *what: Any) -> None:
        self.did.append((*what, "locked" if self.state._holders else "free"))

    def networks(self) -> list[Any]:
        return []

    def replaced_networks(self, names: Sequence[str]) -> list[str]:
        return []

    def chosen(self) -> World:
        return self

    def sharers(self, name: str) -> list[Any]:
        return []

    def containers(self, project: str, name: str) -> list[Container]:
        return self.there

    def remove(self, container: str) -> None:
        self._note("remove", container)

    def restart(self, names: Sequence[str]) -> None:
        self._note("restart", *names)

    def create(self, names: Sequence[str], *, force: bool) -> None:
        self._note("create", *names, force)

    def run_once(self, name: str, command: Sequence[str], on_line: Any) -> None:
        self.did.append(("run", name, *command))
        on_line("a line")

    def one_offs(self, project: str, name: str) -> list[str]:
        return self._running


class Starter:
    def __init__(self, world: World, whose: str) -> None:
        self._world, self._whose = world, whose

    def start_as_is(self, name: str) -> StartReport:
        self._world.did.append(("start", name, self._whose))
        return self._world.report()

    def was_made(self, name: str) -> None:
        assert ("create", name, True, "locked") in self._world.did

    def wait(self, names: Sequence[str]) -> StartReport:
        self._world.did.append(("wait", *names, self._whose))
        return self._world.report()


@pytest.fixture(autouse=True)
def _starters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "OnDemand", lambda starter: None)
    monkeypatch.setattr(actions, "Starter", lambda select, engine, *_, **__: engine.starter())


def test_a_start_is_in_the_records_of_the_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.actions.start("web")
    assert world.did == [("start", "web", "the run's")]


def test_a_restart_is_under_the_lock_and_has_records_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.actions.restart("web")
    assert world.did == [("restart", "web", "locked"), ("wait", "web", "its own")]


def test_a_recreate_makes_and_starts(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.actions.recreate("web")
    assert world.did == [("create", "web", True, "locked"), ("start", "web", "the run's")]


def test_a_recreate_clears_first_what_a_killed_one_has_left(tmp_path: Path) -> None:
    world = World(tmp_path)
    draft = container("web", id="draft", status="created", replaces="old")
    world.there = [container("web", id="old"), replace(draft, name="0123456789ab_shop-web-1")]
    world.actions.recreate("web")
    assert world.did[:2] == [("remove", "draft", "locked"), ("create", "web", True, "locked")]


@pytest.mark.parametrize("action", ["restart", "recreate"])
def test_what_another_folder_has_made_is_left_alone(tmp_path: Path, action: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    world = World(tmp_path)
    world.there = [container("web", made_in=str(other))]
    with pytest.raises(OtherFolder, match=f"web was started from another folder .*: {other}"):
        getattr(world.actions, action)("web")
    assert world.did == []


@pytest.mark.parametrize("action", ["start", "restart", "recreate"])
def test_what_does_not_become_ready_is_an_error(tmp_path: Path, action: str) -> None:
    with pytest.raises(StackError, match="web did not become ready"):
        getattr(World(tmp_path, ready=False).actions, action)("web")


def test_a_command_runs_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.actions.run_once("web", ["migrate", "up"])
    assert world.did == [("run", "web", "migrate", "up"), "a line"]


def test_a_command_is_refused_while_an_earlier_one_runs(tmp_path: Path) -> None:
    world = World(tmp_path, running=["shop-web-run-1"])
    with pytest.raises(StackError, match="shop-web-run-1 still runs"):
        world.actions.run_once("web", ["migrate"])
    assert world.did == []
