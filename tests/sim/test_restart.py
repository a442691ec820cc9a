"""What a restart renews: what changed, what was named, and what asks to follow; everything else runs on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from sim.services import Fake, Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World, attempts, failure, states

FOLLOW = {
    "db": server(healthy=2),
    "api": server(depends_on=after(db="healthy restart")),
    "web": plain(depends_on=after(api="healthy restart")),
    "other": plain(depends_on=after(db="healthy")),
}


def asked(world: World) -> list[str]:
    return [call for call in world.calls if not call.startswith("engine probe")]


def started(world: World, **stack: Fake) -> dict[str, str]:
    """Start a stack, and return what must stay as it is where nothing is renewed."""
    assert world.services(**stack).start().ok
    world.calls, world.steps = [], []
    return world.fingerprint()


def renewed(world: World, before: dict[str, str]) -> list[str]:
    """Return the services whose containers are others, or run since another moment."""
    now = world.fingerprint()
    return sorted({name.split("-")[1] for name in {*now, *before} if now.get(name) != before.get(name)})


def context(folder: Path, text: str) -> dict[str, Any]:
    """Write a folder that an image is built from; return the service's `build:`."""
    place = folder / "app"
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text("FROM scratch\nCOPY version /\n")
    (place / "version").write_text(text)
    return {"context": str(place)}


def test_nothing_changed(world: World) -> None:
    before = started(world, **FOLLOW)
    done = world.restart()
    assert (done.changed, done.report.changed, asked(world)) == ((), False, [])
    assert world.fingerprint() == before


@pytest.mark.parametrize(
    ("names", "touched", "calls"),
    [
        (("web",), ["web"], ["compose restart web"]),
        (("api",), ["api", "web"], ["compose restart api", "compose restart web"]),
        (("db",), ["api", "db", "web"], ["compose restart db", "compose restart api", "compose restart web"]),
        (("other",), ["other"], ["compose restart other"]),
    ],
)
def test_by_name_and_who_follows(world: World, names: tuple[str, ...], touched: list[str], calls: list[str]) -> None:
    before = started(world, **FOLLOW)
    done = world.restart(*names)
    assert done.changed == ((names[0], "it was asked for by name"),)
    assert renewed(world, before) == touched
    assert asked(world) == calls
    assert [name for name, number in sorted(attempts(done.report).items()) if number] == touched
    moments = [world.box(call.split()[2]).started_at for call in calls]
    assert moments == sorted(moments)  # type: ignore[type-var]
    if "db" in names:
        # Each follows when its leader is healthy again.
        assert (moments[1] - moments[0]).total_seconds() >= 2  # type: ignore[operator]


def test_a_changed_configuration_and_who_follows(world: World) -> None:
    beside = plain(network_mode="service:db", depends_on=after(db="started restart"))
    stack = {**FOLLOW, "beside": beside}
    before = started(world, **stack)
    world.services(**{**stack, "db": FOLLOW["db"].changed(environment={"A": "1"})})
    done = world.restart()
    assert [name for name, _ in done.changed] == ["db"]
    assert renewed(world, before) == ["api", "beside", "db", "web"]
    assert world.box("api").id == before["shop-api-1"].split()[0], "only restarted"
    assert not world.restart().report.changed


def test_what_changed_where_nobody_named_it_is_for_another_time(world: World) -> None:
    stack = {"db": server(environment={"A": "1"}), "api": plain(depends_on=after(db="healthy")), "other": plain()}
    before = started(world, **stack)
    world.services(**{**stack, "db": server(environment={"A": "2"}), "other": plain(environment={"A": "2"})})
    assert world.restart("api").report.ok
    assert renewed(world, before) == ["api"]
    assert [name for name, _ in world.restart().changed] == ["db", "other"]


@pytest.mark.parametrize(
    ("change", "names", "touched"),
    [
        ({}, ("api",), ["api"]),
        ({"api": {"environment": {"A": "1"}}}, (), ["api"]),
        ({"migrate": {"environment": {"A": "1"}}}, (), ["migrate"]),
        ({}, ("migrate",), ["migrate"]),
    ],
)
def test_a_one_shot_that_has_not_changed_has_done_its_work(
    world: World, change: dict[str, Any], names: tuple[str, ...], touched: list[str]
) -> None:
    stack = {"migrate": one_shot(), "api": plain(depends_on=after(migrate="completed"))}
    before = started(world, **stack)
    world.services(**{name: fake.changed(**change.get(name, {})) for name, fake in stack.items()})
    assert states(world.restart(*names).report) == (
        {"migrate": "completed"} if names == ("migrate",) else {"migrate": "completed", "api": "running"}
    )
    assert renewed(world, before) == touched


def test_where_all_was_stopped_a_one_shot_runs_again(world: World) -> None:
    started(world, migrate=one_shot(), api=plain(depends_on=after(migrate="completed")))
    world.kill("api", 0)
    assert states(world.restart().report) == {"migrate": "completed", "api": "running"}
    assert world.starts["migrate"] == 2


def test_what_does_not_run_is_started(world: World) -> None:
    before = started(world, db=plain(), api=plain(depends_on=after(db="started")))
    world.kill("api")
    world.services(**world.fakes, new=plain())
    done = world.restart()
    assert sorted(name for name, _ in done.changed) == ["api", "new"]
    assert set(states(done.report).values()) == {"running"}
    assert "db" not in renewed(world, before)


@pytest.mark.parametrize(
    ("fake", "unhealthy"),
    [
        (server(healthy=None), ()),
        (lives(Life(), healthcheck=check(interval=1, retries=1)), ("web",)),
    ],
)
def test_what_is_not_healthy_and_has_not_changed_is_not_waited_for(
    world: World, fake: Fake, unhealthy: tuple[str, ...]
) -> None:
    world.services(web=fake, other=plain())
    world.compose.create(["web", "other"])
    world.compose.start(["web", "other"])
    world.clock.sleep(10)
    done = world.restart()
    assert (done.changed, done.unhealthy) == ((), unhealthy)
    assert world.clock.monotonic() == 10


@pytest.mark.parametrize("change", [{}, {"environment": {"A": "1"}}])
def test_an_unhealthy_dependency_that_nobody_waits_for_is_left_alone(world: World, change: dict[str, Any]) -> None:
    db = lives(Life(), healthcheck=check(interval=1, retries=1))
    stack = {"db": db, "api": plain(depends_on=after(db="started"))}
    world.services(**stack)
    world.compose.create(["db", "api"])
    world.compose.start(["db", "api"])
    world.clock.sleep(10)
    before, world.calls = world.fingerprint(), []
    world.services(**{**stack, "db": db.changed(**change)})
    done = world.restart("api")
    assert (done.report.ok, states(done.report)) == (True, {"db": "running", "api": "running"})
    assert (renewed(world, before), asked(world)) == (["api"], ["compose restart api"])
    assert world.clock.monotonic() < 13, "it is not waited for"


def test_an_unhealthy_leader_is_watched_where_somebody_waits_for_it(world: World) -> None:
    often = check(interval=1, retries=1)
    world.services(db=lives(Life(healthy=15), healthcheck=often), api=plain(depends_on=after(db="healthy")))
    world.compose.create(["db", "api"])
    world.compose.start(["db", "api"])
    world.clock.sleep(10)
    done = world.restart("api")
    assert states(done.report) == {"db": "healthy", "api": "running"}
    assert world.box("api").started_at > world.clock.now().replace(second=14)  # type: ignore[operator]


def test_a_changed_context_is_built_and_nothing_else(world: World, tmp_path: Path) -> None:
    api = plain(build=context(tmp_path, "1"))
    stack = {"api": api, "other": plain(), "web": plain(depends_on=after(api="started"))}
    before = started(world, **stack)
    assert not world.restart().report.changed
    (tmp_path / "app/version").write_text("two")
    world.registry["shop-api"] = "sha256:two"
    assert [str(action) for action in world.restarter().plan(["api", "other", "web"]).actions] == [
        "build api: its build context changed, last written: version",
        "recreate api: image shop-api is made or fetched again; kept if that changes nothing",
    ]
    told: list[Any] = []
    world.begin()
    done = world.restarter().run(["api", "other", "web"], (), told.extend)
    cause = "its build context changed, last written: version"
    assert done.changed == (("api", cause),)
    assert told == [("api", cause)]
    assert asked(world) == ["compose build api", "compose create api", "engine start api-1"]
    assert renewed(world, before) == ["api"]
    assert not world.restart().report.changed


def test_a_build_that_gives_the_same_changes_nothing(world: World, tmp_path: Path) -> None:
    before = started(world, api=plain(build=context(tmp_path, "1")))
    world.restart()  # what the image was built from is known from here on
    (tmp_path / "app/more").write_text("seen by the builder, used by no step")
    done = world.restart()
    assert (done.changed, asked(world)) == ((), ["compose build api"])
    assert world.fingerprint() == before
    world.calls = []
    assert not world.restart().report.changed
    assert asked(world) == []


def test_a_failed_build_leaves_what_runs(world: World, tmp_path: Path) -> None:
    stack = {
        "api": plain(build=context(tmp_path, "1")),
        "web": plain(environment={"A": "1"}),
        "next": plain(depends_on=after(api="started")),
    }
    before = started(world, **stack)
    world.restart()
    (tmp_path / "app/version").write_text("two")
    world.fails["build api"] = "no such module"
    world.services(**{**stack, "web": plain(environment={"A": "2"})})
    done = world.restart()
    assert states(done.report)["api"] == "failed"
    assert states(done.report)["web"] == "running"
    assert "what ran before runs on" in failure(done.report, "api").reason
    assert renewed(world, before) == ["web"]
    assert world.runs("api")
    # The next one tries again.
    world.fails = {}
    world.registry["shop-api"] = "sha256:two"
    assert [name for name, _ in world.restart().changed] == ["api"]


def test_a_shared_image_is_built_once_for_a_one_shot_and_a_server(world: World, tmp_path: Path) -> None:
    shared = {"build": context(tmp_path, "1"), "image": "app"}
    stack = {
        "migrate": one_shot(**shared),
        "api": server(depends_on=after(migrate="completed"), **shared),
        "proxy": plain(depends_on=after(api="healthy")),
    }
    before = started(world, **stack)
    world.restart()
    (tmp_path / "app/version").write_text("two")
    world.registry["app"] = "sha256:two"
    done = world.restart()
    assert sorted(name for name, _ in done.changed) == ["api", "migrate"]
    assert asked(world) == [
        "compose build migrate",
        "compose create migrate api",
        "engine start migrate-1",
        "engine start api-1",
    ]
    assert renewed(world, before) == ["api", "migrate"]


def test_a_mounted_file_that_changed(world: World, tmp_path: Path) -> None:
    file = tmp_path / "conf"
    file.write_text("old")
    os.utime(file, (0, 0))  # the times of files are not simulated
    mount = {"type": "bind", "source": str(file), "target": "/conf"}
    before = started(world, web=plain(volumes=[mount]), other=plain())
    file.write_text("new text")
    os.utime(file, (0, 0))
    done = world.restart()
    assert done.changed == (("web", "file conf changed since its start"),)
    assert renewed(world, before) == ["web"]
    assert not world.restart().report.changed


def test_one_that_does_not_come_back(world: World) -> None:
    db = lives(Life(healthy=0), dies(3), healthcheck=check())
    started(world, db=db, api=plain(depends_on=after(db="healthy restart")))
    before = world.fingerprint()["shop-api-1"]
    done = world.restart("db")
    assert states(done.report) == {"db": "failed", "api": "skipped"}
    assert failure(done.report, "db").exit_code == 3
    assert world.fingerprint()["shop-api-1"] == before, "it runs on"
