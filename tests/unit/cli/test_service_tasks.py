"""Services as tasks: their names, and the whole as the default."""

from __future__ import annotations

from typing import Any

import pytest

from stackhand.cli import service_tasks as up
from stackhand.cli.service_tasks import ServiceCollection, task_names


@pytest.mark.parametrize(
    ("services", "names"),
    [
        (["db", "api"], {"db": "db", "api": "api"}),
        (["a_b"], {"a_b": "a-b"}),
        (["a_b", "a-b"], {"a-b": "a-b", "a_b": "a-b-2"}),
        (["a-b", "a_b", "a.b"], {"a-b": "a-b", "a.b": "a-b-2", "a_b": "a-b-3"}),
        (["a-b", "a_b", "a-b-2"], {"a-b": "a-b", "a-b-2": "a-b-2", "a_b": "a-b-3"}),
        (["my.db"], {"my.db": "my-db"}),
        (["Web", "web"], {"Web": "Web", "web": "web"}),
        (["_x_"], {"_x_": "x"}),
        (["x", "_x", "x_"], {"x": "x", "_x": "x-2", "x_": "x-3"}),
        (["1"], {"1": "1"}),
        (["___"], {"___": "service"}),
        ([], {}),
    ],
)
def test_task_names(services: list[str], names: dict[str, str]) -> None:
    assert task_names(services) == names


@pytest.mark.parametrize("services", [["a-b", "a_b", "a.b", "a-b-2", "A_B", "a__b"], ["x.y", "x_y", "x-y-2", "x-y"]])
def test_names_are_unique_and_do_not_depend_on_the_order(services: list[str]) -> None:
    names = task_names(services)
    assert len(set(names.values())) == len(services)
    assert task_names(reversed(services)) == names


def collection(monkeypatch: pytest.MonkeyPatch, *services: str) -> ServiceCollection:
    from stackhand.cli import services as tasks

    monkeypatch.setattr(up, "_catalogue", {name: [] for name in services})
    return ServiceCollection(tasks.up)


@pytest.mark.parametrize("services", [["db"], ["all", "db"], ["all", "all-services"], ["up"], []])
def test_the_default_is_the_whole_start(monkeypatch: pytest.MonkeyPatch, services: list[str]) -> None:
    from stackhand.cli import services as tasks

    found = collection(monkeypatch, *services)
    assert found.default is not None
    assert found[found.default] is tasks.up
    assert {task.service for name, task in found.tasks.items() if task is not tasks.up} == set(services)


def test_every_service_can_be_called_by_its_task_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = collection(monkeypatch, "a-b", "a_b", "my.db", "Big_One")
    assert {name: found[name].service for name in ("a-b", "a-b-2", "my-db", "Big-One")} == {
        "a-b": "a-b",
        "a-b-2": "a_b",
        "my-db": "my.db",
        "Big-One": "Big_One",
    }


def test_pre_tasks_follow_the_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = {
        "api": ["service_started 1 db", "service_healthy 1 cache", "service_completed_successfully 1 m"],
        "soft": ["service_healthy 0 cache"],
    }
    monkeypatch.setattr(up, "_catalogue", catalogue)
    assert up.service("api").pre == [
        up.need("db", "start", True),
        up.need("cache", "ready", True),
        up.need("m", "ready", True),
    ]
    assert up.service("soft").pre == [up.need("cache", "ready", False)]
    # One that may fail must not stop others, and what only it needs may fail as well.
    soft: list[Any] = up.need("api", "ready", False).pre
    assert all(task is up.need(task.service, task._until, False) for task in soft)
    assert up.service("unknown").pre == []
