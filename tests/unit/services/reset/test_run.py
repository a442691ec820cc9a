"""The reset as a whole, over an engine in memory: what is noted, removed and started, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import needs, project, service

from stackhand.engine.api import resources
from stackhand.engine.api.resources import ContainerUse, ProjectResources, Resource
from stackhand.engine.compose.project import Project, Volume
from stackhand.errors import ResetFailed
from stackhand.services.reset.journal import Journal
from stackhand.services.reset.plan import Item
from stackhand.services.reset.run import Resetter
from stackhand.services.start.record import Record, StartReport
from stackhand.state.folder import StateFolder

WEB = ContainerUse("c1", "shop-web-1", service="web", project="shop", running=True)
TOOL = ContainerUse("c2", "shop-tool-1", service="tool", project="shop", running=True)


def stack(*names: str) -> Project:
    return project(*(service(name) for name in names), volumes={"cache": Volume("shop_cache")})


class World:
    """One project with its containers, a network and a volume; removing takes them out, unless they are stuck."""

    def __init__(self, folder: Path, *containers: ContainerUse, stuck: Sequence[str] = ()) -> None:
        self.there = ProjectResources(
            containers, (Resource("n1", "shop_default", "shop"),), (Resource("shop_cache", "shop_cache", "shop"),), ()
        )
        self.stuck = stuck
        self.state = StateFolder(folder)
        self.did: list[str] = []
        self.compose = self.all_profiles = self
        self.project = stack("web", "db")

    # What a loader does.
    def config(self) -> Project:
        return stack("web", "db", "tool")

    def select(self, names: Sequence[str]) -> list[str]:
        return [*names]

    def stop(self, names: Sequence[str]) -> None:
        self.did.append("stop")

    # What a starter does.
    def run(self, names: Sequence[str]) -> StartReport:
        unfinished = Journal(self.state).unfinished()
        held = "locked" if self.state._holders else "free"
        self.did.append(f"start {' '.join(names)} ({held}, unfinished: {unfinished})")
        return StartReport("shop", 0.0, tuple(Record(name, "running") for name in names))

    def remove(self, number: str) -> None:
        unfinished = Journal(self.state).unfinished()
        self.did.append(f"remove {number} (unfinished: {unfinished and unfinished[0]})")
        if number in self.stuck:
            return

        def without(some: Iterable[Any]) -> tuple[Any, ...]:
            return tuple(each for each in some if each.id != number)

        there = self.there
        self.there = ProjectResources(
            without(there.containers), without(there.networks), without(there.volumes), there.others
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return connect(World(tmp_path, WEB), monkeypatch)


def connect(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(resources, "read", lambda *_: world.there)
    monkeypatch.setattr(resources, "stop", lambda _, number: None)
    monkeypatch.setattr(resources, "remove_container", lambda _, number, volumes: world.remove(number))
    monkeypatch.setattr(resources, "remove_network", lambda _, number: world.remove(number))
    monkeypatch.setattr(resources, "remove_volume", lambda _, number: world.remove(number))
    return world


def resetter(world: World) -> Resetter:
    return Resetter(world, world, world.state, world)  # type: ignore[arg-type]


def reset(world: World, removed: list[Item] | None = None) -> StartReport:
    one = resetter(world)
    gone: list[Item] = [] if removed is None else removed
    return one.run(one.plan("full"), lambda *_: None, gone.extend)


def test_all_goes_and_is_started_again(world: World) -> None:
    removed: list[Item] = []
    assert reset(world, removed).ok
    assert world.did == [
        "stop",
        "remove c1 (unfinished: full)",
        "remove n1 (unfinished: full)",
        "remove shop_cache (unfinished: full)",
        "start web db (locked, unfinished: None)",
    ]
    assert [item.name for item in removed] == ["shop-web-1", "shop_default", "shop_cache"]
    assert world.state._holders == 0


def test_what_could_not_be_removed_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = connect(World(tmp_path, WEB, stuck=["n1"]), monkeypatch)
    removed: list[Item] = []
    with pytest.raises(ResetFailed, match="network shop_default"):
        reset(world, removed)
    assert removed == []
    assert not any(each.startswith("start") for each in world.did)
    again = resetter(world).plan("soft")
    assert again.resumes == "full"
    assert again.names == ("web", "db")


def test_what_was_removed_is_known_also_when_the_start_goes_wrong(world: World) -> None:
    def fail(names: Sequence[str]) -> StartReport:
        raise KeyboardInterrupt

    world.run = fail  # type: ignore[method-assign]
    removed: list[Item] = []
    with pytest.raises(KeyboardInterrupt):
        reset(world, removed)
    assert len(removed) == 3
    assert Journal(world.state).unfinished() is None


def test_a_service_of_an_inactive_profile_starts_again_where_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = connect(World(tmp_path, TOOL), monkeypatch)
    assert resetter(world).plan("full").names == ("web", "db", "tool")
    world.there = ProjectResources((), (), (), ())
    assert resetter(world).plan("full").names == ("web", "db")


def test_what_a_service_needs_starts_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = connect(World(tmp_path), monkeypatch)
    chain = project(service("api", needs("queue")), service("queue", needs("store")), service("store"))
    world.project = chain
    monkeypatch.setattr(world, "config", lambda: chain)
    assert resetter(world).plan("soft").names == ("store", "queue", "api")


def test_a_plan_changes_nothing(world: World) -> None:
    plan = resetter(world).plan("full")
    assert [item.name for item in plan.going] == ["shop-web-1", "shop_default", "shop_cache"]
    assert world.did == []
    assert not world.state.path.exists()
