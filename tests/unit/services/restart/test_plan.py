"""What a restart does: facts and changes in, actions out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from builders import HASH, IMAGE_ID, container, ended, healthy, needs, project, service

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.services.restart.plan import Changes, changed, plan_restart, scope
from stackhand.services.start.decide_again import replan
from stackhand.services.start.facts import Facts

DONE = "service_completed_successfully"
CHAIN = project(
    service("db"),
    service("api", needs("db", "service_healthy", restart=True), builds=True),
    service("web", needs("api", "service_healthy", restart=True)),
    service("other", needs("db", "service_healthy")),
)
ALL_WELL = (healthy("db"), healthy("api"), healthy("web"), healthy("other"))
APP = project(
    service("migrate", image="app", builds=True),
    service("api", needs("migrate", DONE), image="app", builds=True),
    service("cache"),
)


def facts(stack: Project, *containers: Container, **images: str | None) -> Facts:
    by_service: dict[str, list[Container]] = {}
    for each in containers:
        by_service.setdefault(each.service, []).append(each)
    here: dict[str, str | None] = {each.image: IMAGE_ID for each in stack.services.values()}
    return Facts(by_service, dict.fromkeys(stack.services, HASH), {**here, **images})


def planned(stack: Project, known: Facts, changes: Changes | None = None, names: Sequence[str] = ()) -> list[str]:
    plan = plan_restart(stack, names or list(stack.services), known, changes or Changes())
    assert all(action.cause for action in plan.actions)
    return [f"{action.verb} {action.service}" for action in plan.actions]


@pytest.mark.parametrize(
    ("changes", "names", "actions"),
    [
        ({}, [], []),
        ({"files": {"other": "secret key changed"}}, [], ["restart other"]),
        ({"files": {"db": "secret key changed"}}, [], ["restart db", "restart api", "restart web"]),
        ({"contexts": {"api": "its build context changed"}}, [], ["build api", "recreate api", "restart web"]),
        ({"named": ("web",)}, ["web"], ["restart web"]),
        ({"named": ("db",)}, ["db"], ["restart db", "restart api", "restart web"]),
        ({"interrupted": {"web": "it was interrupted"}}, [], ["restart web"]),
    ],
)
def test_who_changes_and_who_follows(changes: dict[str, Any], names: list[str], actions: list[str]) -> None:
    assert planned(CHAIN, facts(CHAIN, *ALL_WELL), Changes(**changes), names) == actions


def test_what_is_stopped_does_not_follow_and_is_started_only_where_it_is_meant() -> None:
    known = facts(CHAIN, healthy("db"), ended("api"), healthy("web"), healthy("other"))
    assert planned(CHAIN, known, Changes(named=("db",)), ["db"]) == ["restart db"]
    assert planned(CHAIN, known) == ["start api"]


def test_a_dependency_that_drifted_is_for_another_time_unless_compose_makes_a_container() -> None:
    drifted = healthy("db", config_hash="of yesterday")
    named = Changes(named=("other",))
    assert planned(CHAIN, facts(CHAIN, drifted, *ALL_WELL[1:]), named, ["other"]) == ["restart other"]
    gone = facts(CHAIN, drifted, healthy("api"), healthy("web"))
    assert planned(CHAIN, gone, named, ["other"])[:1] == ["recreate db"]
    stopped = facts(CHAIN, ended("db", config_hash="of yesterday"), *ALL_WELL[1:])
    assert planned(CHAIN, stopped, named, ["other"]) == ["start db", "restart other"]


def test_a_dependency_that_is_not_healthy_is_watched_where_somebody_waits_for_it() -> None:
    ill = facts(CHAIN, healthy("db", health="unhealthy"), *ALL_WELL[1:])
    assert planned(CHAIN, ill) == []
    assert planned(CHAIN, ill, Changes(named=("other",)), ["other"]) == ["check db", "restart other"]


@pytest.mark.parametrize("changed", [{}, {"config_hash": "of yesterday"}])
def test_a_dependency_that_is_not_healthy_is_left_alone_where_nobody_waits_for_it(changed: dict[str, str]) -> None:
    stack = project(service("db"), service("api", needs("db")))
    ill = facts(stack, healthy("db", health="unhealthy", **changed), healthy("api"))
    assert planned(stack, ill, Changes(named=("api",)), ["api"]) == ["restart api"]


@pytest.mark.parametrize(
    ("containers", "changes", "actions"),
    [
        # One image for both is built once; both are made anew, the one-shot first.
        (
            [ended("migrate"), container("api")],
            {"contexts": {"migrate": "changed", "api": "changed"}},
            ["build migrate", "recreate migrate", "recreate api"],
        ),
        (
            [ended("migrate"), container("api")],
            {"contexts": {"migrate": "changed"}, "builders": {"migrate": "api"}},
            ["build api", "recreate migrate", "recreate api"],
        ),
        # It has done its work, whatever happens to what waits for it; not where that was stopped.
        ([ended("migrate"), container("api", config_hash="old")], {}, ["recreate api"]),
        ([ended("migrate"), container("api")], {"named": ("api",)}, ["restart api"]),
        ([ended("migrate"), ended("api")], {}, ["start migrate", "start api"]),
        # Itself.
        ([ended("migrate"), container("api")], {"files": {"migrate": "secret changed"}}, ["start migrate"]),
        ([ended("migrate"), container("api")], {"named": ("migrate",)}, ["start migrate"]),
        ([ended("migrate", image_id="old"), container("api")], {}, ["recreate migrate"]),
    ],
)
def test_one_shots(containers: list[Container], changes: dict[str, Any], actions: list[str]) -> None:
    assert planned(APP, facts(APP, container("cache"), *containers), Changes(**changes)) == actions


def test_an_image_that_is_not_here_is_got() -> None:
    stack = project(service("web"), service("built", builds=True), service("never", pull_policy="never"))
    known = facts(stack, **{"image/web": None, "image/built": None, "image/never": None})
    assert planned(stack, known) == ["pull web", "create web", "build built", "create built", "create never"]


def test_a_shared_namespace_goes_with_its_container() -> None:
    beside = service("beside", needs("db", restart=True), raw={"network_mode": "service:db"})
    stack = project(service("db"), beside)
    known = facts(stack, container("db", config_hash="old"), container("beside"))
    assert planned(stack, known) == ["recreate db", "recreate beside"]
    known = facts(stack, container("db"), container("beside"))
    assert planned(stack, known, Changes(named=("db",)), ["db"]) == ["restart db", "restart beside"]


def test_only_what_changed_is_told_with_the_first_cause() -> None:
    changes = Changes(contexts={"api": "its build context changed"})
    known = facts(CHAIN, healthy("db"), healthy("api", image_id="old"), *ALL_WELL[2:])
    after_build = plan_restart(CHAIN, list(CHAIN.services), known, Changes())
    assert changed(after_build, changes) == [("api", "its build context changed")]


def test_followers_restart_only_where_a_leader_did() -> None:
    known = facts(CHAIN, healthy("db", config_hash="old"), *ALL_WELL[1:])
    plan = plan_restart(CHAIN, list(CHAIN.services), known, Changes())
    assert [f"{each.verb} {each.service}" for each in plan.actions] == ["recreate db", "restart api", "restart web"]
    new = {**known.containers, "db": [container("db", id="new", status="created")]}
    left = replan(CHAIN, list(CHAIN.services), plan, known.containers, new)
    assert [f"{each.verb} {each.service}" for each in left.actions] == ["start db", "restart api", "restart web"]
    # Compose has kept it after all.
    left = replan(CHAIN, list(CHAIN.services), plan, known.containers, known.containers)
    assert [f"{each.verb} {each.service}" for each in left.actions] == ["check db", "check api", "check web"]


def test_the_scope_has_what_is_needed_and_what_follows() -> None:
    known = facts(CHAIN, *ALL_WELL)
    assert set(scope(CHAIN, known, ["api"])) == {"db", "api", "web"}
    assert set(scope(CHAIN, known, ["other"])) == {"db", "other"}
    assert set(scope(CHAIN, facts(CHAIN, healthy("db"), healthy("api")), ["db"])) == {"db", "api"}
