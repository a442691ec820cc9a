"""Services as tasks: each is brought up when a task needs it, and once for all that do."""

from __future__ import annotations

from typing import Any

import pytest
from sim.services import Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World, states

from stackhand.services.start.record import ServiceFailed

STACK = {
    "base": plain(),
    "db": server(healthy=2),
    "cache": server(healthy=2, depends_on=after(base="started")),
    "api": plain(depends_on=after(db="healthy", cache="healthy")),
    "unrelated": plain(),
}


def test_one_service_and_what_it_needs(world: World) -> None:
    world.services(**STACK).up("cache")
    assert states(world.starter.report()) == {"base": "running", "cache": "healthy"}
    assert world.of("db") == []


def test_independent_ones_start_side_by_side(world: World) -> None:
    world.services(**STACK).up("api", "base", "db")
    assert states(world.starter.report()) == {"base": "running", "db": "healthy", "cache": "healthy", "api": "running"}
    assert world.clock.monotonic() < 5


def test_containers_are_made_in_as_few_calls_as_possible(world: World) -> None:
    names = [f"s{number}" for number in range(8)]
    world.takes["compose create"] = 1
    world.services(**{name: plain() for name in names}).up(*names)
    assert len([call for call in world.calls if call.startswith("compose create")]) == 2
    assert states(world.starter.report()) == dict.fromkeys(names, "running")


def test_a_second_look_is_not_taken(world: World) -> None:
    world.services(**STACK).up("api")
    before, world.calls = world.fingerprint(), []
    world.up("api")
    assert (world.fingerprint(), world.calls) == (before, [])


def test_another_run_changes_nothing(world: World) -> None:
    world.services(**STACK).up("api")
    before = world.fingerprint()
    world.begin()
    world.up("api")
    assert world.fingerprint() == before
    assert not world.starter.report().changed


def test_one_that_fails_fails_for_all_and_is_tried_once(world: World) -> None:
    world.services(
        base=lives(dies(9), healthcheck=check()),
        left=plain(depends_on=after(base="healthy")),
        right=plain(depends_on=after(base="healthy")),
        top=plain(depends_on=after(left="started", right="started", fine="started")),
        fine=plain(),
    )
    found = world.up("top")
    assert {name: bool(failed) for name, failed in found.items()} == {"base": True, "fine": False}
    assert world.starts["base"] == 3
    assert world.runs("fine")
    with pytest.raises(ServiceFailed):
        world.on_demand.up("base")
    assert world.starts["base"] == 3, "what this run has given up is not tried again"


def test_until_it_only_runs(world: World) -> None:
    world.services(db=server(healthy=100))
    record = world.on_demand.up("db", until="start")
    assert (record.state, world.clock.monotonic()) == ("running", 0)
    assert world.on_demand.up("db").state == "healthy"
    assert 100 <= world.clock.monotonic() < 103


def test_several_threads_that_need_one(world: World) -> None:
    world.services(db=server(healthy=5))
    done: list[str] = []
    for _ in range(4):
        world.clock.start_thread(lambda: done.append(world.on_demand.up("db").state), "task")
    world.clock.sleep(20)
    assert done == ["healthy"] * 4
    assert (world.starts["db"], len([call for call in world.calls if "create" in call])) == (1, 1)


def test_one_that_nobody_insists_on(world: World) -> None:
    world.services(opt=one_shot(1), api=plain(depends_on=after(opt="healthy optional")))
    found = world.on_demand.up_if_possible("opt", until="ready")
    assert found is not None
    assert found.exit_code == 1
    report = world.starter.report()
    assert (states(report), report.ok) == ({"opt": "failed"}, True)
    # Somebody does, after all.
    world.starter.records.mark_required("opt")
    assert world.starter.report().ok is False


def test_what_an_optional_one_can_not_do_without(world: World) -> None:
    world.services(base=lives(dies(), healthcheck=check()), opt=plain(depends_on=after(base="healthy")))
    assert world.on_demand.up_if_possible("base", until="ready") is not None
    found = world.on_demand.up_if_possible("opt", until="ready")
    assert found is not None
    assert found.reason == "base failed"
    assert states(world.starter.report()) == {"base": "failed", "opt": "skipped"}


def test_a_follower_restarts_after_its_leader_was_made_again(world: World) -> None:
    stack = {"db": server(healthy=2), "api": plain(depends_on=after(db="healthy restart"))}
    world.services(**stack).up("api")
    world.services(**{**stack, "db": stack["db"].changed(environment={"A": "1"})})
    world.up("api")
    assert world.starts["api"] == 2
    assert world.box("api").started_at > world.box("db").started_at  # type: ignore[operator]


@pytest.mark.parametrize(
    ("api", "image"),
    [
        ({}, "bb"),
        ({"image": "far", "pull_policy": "always"}, "far"),
        ({"build": {"context": "."}, "pull_policy": "build"}, "shop-api"),
    ],
)
@pytest.mark.parametrize("is_new", [False, True])
def test_a_follower_follows_also_where_its_image_is_got_again(
    world: World, api: dict[str, Any], image: str, is_new: bool
) -> None:
    world.stops_followers = False
    world.registry["far"] = "sha256:far"
    stack = {"db": server(healthy=2), "api": plain(depends_on=after(db="healthy restart"), **api)}
    world.services(**stack).up("api")
    before = world.box("api")
    world.services(**{**stack, "db": stack["db"].changed(environment={"A": "1"})})
    if is_new:
        world.registry[image] = world.images[image] = "sha256:new"
    world.up("api")
    assert world.starts["api"] == 2
    assert (world.box("api").id != before.id) is is_new
    assert world.box("api").started_at > world.box("db").started_at  # type: ignore[operator]


def test_conditions_hold(world: World) -> None:
    world.services(
        db=server(healthy=1),
        migrate=one_shot(takes=3, depends_on=after(db="healthy")),
        api=plain(depends_on=after(migrate="completed")),
    ).up("api")
    db, migrate, api = (world.box(name) for name in ("db", "migrate", "api"))
    assert db.started_at and migrate.started_at and migrate.finished_at and api.started_at
    assert (migrate.started_at - db.started_at).total_seconds() >= 1
    assert api.started_at >= migrate.finished_at


def test_what_fell_between_two_tasks_is_not_noticed_by_the_same_run(world: World) -> None:
    """What this run has brought up is not looked at again: a task's own body may have stopped it."""
    world.services(db=lives(Life(healthy=0), healthcheck=check()))
    world.on_demand.up("db")
    world.kill("db")
    assert world.on_demand.up("db").state == "healthy"
    assert world.starts["db"] == 1
