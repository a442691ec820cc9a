"""What a start does with services that work, and with the little things that go wrong on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sim.services import Fake, Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World, attempts, failure, states

from stackhand.errors import LockHeld, MissingFile
from stackhand.state.folder import StateFolder

SHOP = {
    "db": server(healthy=1),
    "cache": plain(),
    "migrate": one_shot(depends_on=after(db="healthy")),
    "api": server(depends_on=after(db="healthy", cache="started", migrate="completed")),
}
READY = {"db": "healthy", "cache": "running", "migrate": "completed", "api": "healthy"}


def started(world: World, name: str) -> float:
    """Return the second at which the last run of a service began."""
    moments = [float(step.split()[0]) for step in world.steps if step.split()[1:3] == [name, "start:"]]
    return moments[-1]


def asked(world: World) -> list[str]:
    """Return what was asked of engine and Compose, without the probes."""
    return [call for call in world.calls if not call.startswith("engine probe")]


def test_the_first_start(world: World) -> None:
    report = world.services(**SHOP).start()
    assert (report.ok, report.changed, states(report)) == (True, True, READY)
    assert set(attempts(report).values()) == {1}
    assert asked(world) == [
        "compose create db cache migrate api",
        "engine start db-1",
        "engine start cache-1",
        "engine start migrate-1",
        "engine start api-1",
    ]
    services = {record.name: record for record in report.services}
    assert services["db"].waited_for == ()
    assert services["migrate"].waited_for == ("db",)
    assert services["api"].waited_for == ("migrate", "db", "cache")
    assert report.critical_path == ("db", "migrate", "api")
    # Each begins when what it waits for is ready, which our own probes tell long before the engine's.
    assert 1 <= started(world, "migrate") < 1.2
    assert report.elapsed < 2


def test_a_second_start_changes_nothing(world: World) -> None:
    world.services(**SHOP).start()
    before, world.calls, world.steps = world.fingerprint(), [], []
    report = world.start()
    assert (states(report), report.changed) == (READY, False)
    assert world.fingerprint() == before
    # Only the healthchecks are run that the engine has not come to yet.
    assert (asked(world), set(attempts(report).values())) == ([], {0})
    assert {step.split()[2] for step in world.steps} == {"kept:", "wait:", "ready:"}


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({"cache": {"environment": {"SIZE": "big"}}}, ["compose create cache", "engine start cache-1"]),
        # The one-shot runs again before what waits for it.
        (
            {"api": {"environment": {"SIZE": "big"}}},
            ["compose create api", "engine start migrate-1", "engine start api-1"],
        ),
        ({"migrate": {"command": "other"}}, ["compose create migrate", "engine start migrate-1"]),
    ],
)
def test_only_what_changed_is_made_again(world: World, changes: dict[str, Any], calls: list[str]) -> None:
    world.services(**SHOP).start()
    before, world.calls = world.fingerprint(), []
    world.services(**{name: fake.changed(**changes.get(name, {})) for name, fake in SHOP.items()})
    assert states(world.start()) == READY
    assert asked(world) == calls
    touched = {call.split()[2] for call in calls if call.startswith("engine")}
    now = world.fingerprint()
    assert {name: now[name] for name in now if name.removeprefix("shop-") not in touched} == {
        name: before[name] for name in before if name.removeprefix("shop-") not in touched
    }


@pytest.mark.parametrize(
    ("needs", "begins"),
    [
        ("started", 0),
        ("healthy", 7),
        ("healthy optional", 7),
    ],
)
def test_what_a_dependency_waits_for(world: World, needs: str, begins: float) -> None:
    report = world.services(db=server(healthy=7), api=plain(depends_on=after(db=needs))).start()
    assert states(report) == {"db": "healthy", "api": "running"}
    assert begins <= started(world, "api") <= begins + 0.5


def test_a_long_wait_costs_nothing_here(world: World) -> None:
    report = world.services(db=server(healthy=3000), api=plain(depends_on=after(db="healthy"))).start(timeout=4000)
    assert report.ok
    assert 3000 <= report.elapsed < 3010


@pytest.mark.parametrize(
    ("interval", "probes"),
    [
        (300, range(20, 60)),  # ours, more slowly the longer it takes
        (1, range(20, 60)),
    ],
)
def test_healthchecks_are_run_often_at_first_and_never_side_by_side(
    world: World, interval: float, probes: range
) -> None:
    check = {"test": ["CMD", "check"], "interval": interval, "timeout": 5, "retries": 99}
    report = world.services(db=lives(Life(healthy=10), healthcheck=check)).start()
    assert states(report) == {"db": "healthy"}
    assert world.calls.count("engine probe db") in probes
    assert report.elapsed <= 10.6


def test_many_with_frequent_healthchecks_are_left_to_the_engine(world: World) -> None:
    often = {"test": ["CMD", "check"], "interval": 1, "timeout": 5, "retries": 99}
    names = [f"s{number}" for number in range(8)]
    report = world.services(**{name: lives(Life(healthy=0), healthcheck=often) for name in names}).start()
    assert states(report) == dict.fromkeys(names, "healthy")
    assert not [call for call in world.calls if "probe" in call]


def test_a_restart_follows_a_recreated_dependency(world: World) -> None:
    stack = {
        "db": server(healthy=2),
        "api": plain(depends_on=after(db="healthy restart")),
        "other": plain(depends_on=after(db="healthy")),
    }
    world.services(**stack).start()
    before, world.calls = world.fingerprint(), []
    world.services(**{**stack, "db": stack["db"].changed(environment={"A": "1"})})
    report = world.start()
    assert states(report) == {"db": "healthy", "api": "running", "other": "running"}
    # Compose stopped it with the old one; it begins when the new one is healthy.
    assert asked(world) == ["compose create db", "engine start db-1", "engine start api-1"]
    assert world.box("api").started_at > world.box("db").started_at  # type: ignore[operator]
    assert world.fingerprint()["shop-other-1"] == before["shop-other-1"]


def test_what_compose_keeps_is_not_followed(world: World) -> None:
    stack = {"db": server(build={"context": "db"}), "api": plain(depends_on=after(db="healthy restart"))}
    world.services(**stack).start()
    before, world.calls = world.fingerprint(), []
    # Built again, the image is the same.
    report = world.start(dev=True)
    assert states(report) == {"db": "healthy", "api": "running"}
    assert asked(world) == ["compose build db", "compose create db"]
    assert world.fingerprint() == before
    world.registry["shop-db"] = "sha256:new"
    world.calls = []
    assert world.start(dev=True).ok
    assert asked(world) == ["compose build db", "compose create db", "engine start db-1", "engine start api-1"]


def test_only_what_was_named_and_what_it_needs(world: World) -> None:
    world.services(db=server(), api=plain(depends_on=after(db="started")), worker=plain(), alone=plain())
    assert set(states(world.start("api", "alone"))) == {"db", "api", "alone"}
    assert world.of("worker") == []


def test_profiles(world: World) -> None:
    optional = after(extra="healthy optional")
    world.services(web=plain(depends_on=optional), extra=server(profiles=["more"]))
    assert states(world.start()) == {"web": "running"}
    world.select("more")
    assert states(world.start()) == {"web": "running", "extra": "healthy"}


@pytest.mark.parametrize("replicas", [0, 1, 3])
def test_replicas_are_ready_when_all_are(world: World, replicas: int) -> None:
    slow_last = lives(*[Life(healthy=2.0 * n) for n in range(max(1, replicas))], healthcheck=check())
    world.services(web=slow_last.changed(scale=replicas), proxy=plain(depends_on=after(web="healthy")))
    report = world.start()
    assert states(report) == {"web": "healthy" if replicas else "running", "proxy": "running"}
    assert len(world.of("web")) == replicas
    assert started(world, "proxy") >= 2.0 * max(0, replicas - 1)
    before = world.fingerprint()
    assert not world.start().changed
    assert world.fingerprint() == before


def test_fewer_and_more_replicas(world: World) -> None:
    for replicas in (2, 1, 3):
        world.services(web=plain(scale=replicas))
        assert states(world.start()) == {"web": "running"}
        assert [world.runs("web"), len(world.of("web"))] == [True, replicas]


def test_a_one_shot_runs_again_with_what_waits_for_it(world: World) -> None:
    world.services(migrate=one_shot(), api=plain(depends_on=after(migrate="completed"))).start()
    first = world.box("migrate").started_at
    world.kill("api")
    assert states(world.start()) == {"migrate": "completed", "api": "running"}
    assert world.box("migrate").started_at != first


@pytest.mark.parametrize(("names", "runs"), [((), 1), (("api",), 1), (("migrate",), 2)])
def test_a_one_shot_that_nobody_needs_again(world: World, names: tuple[str, ...], runs: int) -> None:
    world.services(migrate=one_shot(), api=plain(depends_on=after(migrate="completed"))).start()
    assert world.start(*names).ok
    assert world.starts["migrate"] == runs


def test_what_ends_with_0_and_nobody_waits_for_has_done_its_work(world: World) -> None:
    world.services(job=one_shot(takes=0.3), web=plain())
    assert states(world.start()) == {"job": "completed", "web": "running"}
    assert states(world.start()) == {"job": "completed", "web": "running"}
    assert world.starts["job"] == 1, "it was seen to end by itself"


def test_what_has_no_healthcheck_must_stay_up_a_moment(world: World) -> None:
    world.services(steady=plain(), brief=one_shot(1, takes=0.9), next=plain(depends_on=after(brief="started")))
    report = world.start(retries=1)
    assert states(report) == {"steady": "running", "brief": "failed", "next": "running"}
    steady = next(record for record in report.services if record.name == "steady")
    assert steady.ready_after is not None
    assert 1 <= steady.ready_after < 1.1


@pytest.mark.parametrize(("settle", "dev", "elapsed"), [(1, False, 1), (30, False, 30), (30, True, 0)])
def test_how_long_it_must_stay_up(world: World, settle: float, dev: bool, elapsed: float) -> None:
    report = world.services(web=plain()).start(dev=dev, settle=settle)
    assert elapsed <= report.elapsed < elapsed + 0.1


def test_a_stopped_and_a_paused_service(world: World) -> None:
    world.services(one=server(), two=plain()).start()
    kept = world.fingerprint()["shop-two-1"]
    world.kill("one", 0)
    assert states(world.start()) == {"one": "healthy", "two": "running"}
    assert world.fingerprint()["shop-two-1"] == kept
    world.pause("two")
    report = world.start()
    assert states(report)["two"] == "failed"
    assert "paused" in failure(report, "two").reason


def test_a_container_that_is_removed_meanwhile_is_made_again(world: World) -> None:
    world.services(db=server(healthy=5))
    world.at(2, lambda: world.remove("db"))
    report = world.start()
    assert states(report) == {"db": "healthy"}
    assert attempts(report) == {"db": 2}
    # Compose makes it again with the start.
    assert asked(world) == ["compose create db", "engine start db-1", "compose up db"]


def test_what_falls_later_is_started_again(world: World) -> None:
    world.services(db=server(), slow=server(healthy=5), api=plain(depends_on=after(db="healthy")))
    world.at(3, lambda: world.kill("db"))
    report = world.start()
    assert states(report) == {"db": "healthy", "slow": "healthy", "api": "running"}
    assert world.starts["db"] == 2
    assert world.starts["api"] == 1


def test_what_falls_again_and_again_is_given_up(world: World) -> None:
    other = lives(Life(healthy=0, ends=4), Life(healthy=6), healthcheck=check())
    world.services(db=lives(Life(ends=2, code=3, log=("no room",))), slow=server(healthy=5), other=other)
    report = world.start()
    assert states(report) == {"db": "failed", "slow": "healthy", "other": "healthy"}
    found = failure(report, "db")
    assert (found.reason, found.exit_code, found.log_tail) == ("it exited with code 3", 3, ("no room",))
    assert world.starts["db"] == 3, "as often as any other, and not for ever"


@pytest.mark.parametrize(
    ("fake", "state", "starts", "elapsed"),
    [
        # It ran for 2 s and crashed: from then on it has to run longer, the settle time longer.
        (lives(dies(after=2), Life()), "running", 2, 6 + 3),
        (lives(dies(after=2), dies(after=2.9), Life()), "running", 3, 6 + 2.9 + 10 + 3.9),
        (lives(dies(after=2)), "failed", 3, 6 + 2 + 10 + 2),
        # So has one with a healthcheck, which is healthy at once each time.
        (lives(dies(after=2, healthy=0), Life(healthy=0), healthcheck=check()), "healthy", 2, 6 + 3),
        (lives(dies(after=2, healthy=0), healthcheck=check()), "failed", 3, 6 + 2 + 10 + 2),
        # One that its restart policy has started again is running each time that somebody looks.
        (lives(dies(after=2), Life(), restart="always"), "running", 2, 6),
        (lives(dies(after=2), restart="unless-stopped"), "failed", None, None),
        (lives(dies(after=2, healthy=0), restart="always", healthcheck=check()), "failed", None, None),
        # It ended because somebody stopped it: that is no crash.
        (plain(), "running", 2, 6 + 1),
    ],
)
def test_what_crashed_has_to_run_longer_than_it_did(
    world: World, fake: Fake, state: str, starts: int | None, elapsed: float | None
) -> None:
    world.services(app=fake, slow=server(healthy=6))
    if fake.lives == plain().lives:
        world.at(5, lambda: world.kill("app"))
    report = world.start()
    assert states(report) == {"app": state, "slow": "healthy"}
    if starts:
        assert world.starts["app"] == starts
        assert report.elapsed == pytest.approx(elapsed, abs=0.5)
    if state == "failed":
        assert failure(report, "app").exit_code == 1


def test_it_may_take_as_much_longer_as_it_ran_before(world: World) -> None:
    crashes = lives(dies(after=150, healthy=0), Life(healthy=0), healthcheck=check())
    slow = server(healthy=90)
    report = world.services(app=crashes, slow=slow, next=slow.changed(depends_on=after(slow="healthy"))).start()
    assert states(report) == {"app": "healthy", "slow": "healthy", "next": "healthy"}
    assert report.elapsed == pytest.approx(180 + 151, abs=3)


def test_what_fell_and_what_was_skipped_for_it(world: World) -> None:
    """A dependant of what failed is not started with what fell; what waits for the fallen one is."""
    world.services(
        db=lives(Life(ends=2, code=3), Life()),
        bad=one_shot(1, healthcheck=server().entry["healthcheck"]),
        late=plain(depends_on=after(bad="healthy")),
        slow=server(healthy=5),
    )
    report = world.start(retries=1)
    assert states(report) == {"db": "running", "bad": "failed", "late": "skipped", "slow": "healthy"}
    assert (world.starts["db"], world.starts["bad"], world.starts["late"]) == (2, 1, 0)


@pytest.mark.parametrize("keys", [{"post_start": [{"command": "x"}]}, {"new_in_compose": True}])
def test_what_compose_does_at_a_start_is_left_to_compose(world: World, keys: dict[str, Any]) -> None:
    assert world.services(web=plain(**keys), db=plain()).start().ok
    assert "compose up web" in world.calls
    assert "engine start db-1" in world.calls
    assert "engine start web-1" not in world.calls


def test_starts_through_compose_are_joined(world: World) -> None:
    names = [f"s{number}" for number in range(6)]
    world.takes["compose up"] = 0.5
    report = world.services(**{name: plain(new_in_compose=True) for name in names}).start()
    assert states(report) == dict.fromkeys(names, "running")
    calls = [call for call in world.calls if call.startswith("compose up")]
    assert len(calls) <= 2
    assert sorted(" ".join(calls).replace("compose up", "").split()) == names


def test_hooks_are_part_of_the_start(world: World) -> None:
    world.takes["compose up"] = 4
    hook = {"post_start": [{"command": "x"}]}
    world.services(db=plain(**hook), api=plain(depends_on=after(db="started"))).start()
    assert started(world, "api") >= 4


def test_few_starts_go_one_by_one_and_the_most_urgent_first(world: World) -> None:
    world.takes["engine start"] = 1
    world.services(
        alone=plain(),
        db=server(),
        api=server(depends_on=after(db="healthy")),
        web=plain(depends_on=after(api="healthy")),
    ).start()
    assert asked(world)[1:3] == ["engine start db-1", "engine start alone-1"]


def test_images_that_are_not_here_are_got_first(world: World) -> None:
    world.services(images=False, web=plain(image="web"), built=plain(build={"context": "."}), two=plain(image="web"))
    world.registry["web"] = "sha256:web"
    report = world.start()
    assert states(report) == dict.fromkeys(("web", "built", "two"), "running")
    assert sorted(asked(world)[:2]) == ["compose build built", "compose pull web"]
    assert "built image: #1 [built 1/2] RUN make" in " ".join(world.steps)


def test_a_missing_secret_is_told_before_anything_is_done(world: World) -> None:
    world.services(web=plain(secrets=[{"source": "key"}]))
    world.project = replace(world.project, secret_files={"key": world.folder / "nowhere"})
    with pytest.raises(MissingFile):
        world.start()
    assert world.calls == []


def test_two_at_once(world: World) -> None:
    """Who changes something needs the lock; who finds nothing to do does not."""
    world.services(web=plain())
    with StateFolder(world.folder).lock("services.start"):
        with pytest.raises(LockHeld):
            world.start()
        assert world.calls == []
    world.start()
    with StateFolder(world.folder).lock("services.start"):
        assert states(world.start()) == {"web": "running"}


def test_start_as_it_is(world: World) -> None:
    """A fix starts what stopped, whatever has changed since."""
    stack: dict[str, Fake] = {"db": server(), "migrate": one_shot(depends_on=after(db="healthy"))}
    world.services(**stack).start()
    world.kill("db")
    world.services(**{name: fake.changed(environment={"A": "1"}) for name, fake in stack.items()})
    world.calls = []
    assert states(world.starter.start_as_is("migrate")) == {"db": "healthy", "migrate": "completed"}
    assert asked(world) == ["engine start db-1", "engine start migrate-1"]


def test_start_as_it_is_keeps_also_what_crashes_after_it_was_ready(world: World) -> None:
    world.registry["far"] = "sha256:far"
    api = lives(Life(), Life(ends=2, code=1), Life(), image="far", pull_policy="always")
    stack: dict[str, Fake] = {"api": api, "slow": server(healthy=6, depends_on=after(api="started"))}
    assert world.services(**stack).start().ok
    before = world.box("api").id
    world.kill("api")
    world.kill("slow")
    world.services(**{**stack, "api": api.changed(environment={"A": "1"})})
    world.calls = []
    assert states(world.starter.start_as_is("slow")) == {"api": "running", "slow": "healthy"}
    assert world.starts["api"] == 3, "it was started once more"
    assert world.box("api").id == before


def test_what_was_started_as_it_is_is_not_taken_for_what_is_configured(world: World) -> None:
    """Also where another task of the same process brings something up afterwards."""
    api = plain()
    assert world.services(api=api).start().ok
    world.services(api=api.changed(environment={"A": "1"}, deploy={"replicas": 2}), other=plain())
    assert world.starter.start_as_is("api").ok
    world.up("other")
    wanted = world.hash_of("api")
    assert [box.config_hash == wanted for box in world.of("api")] == [False, True]
    world.start()
    assert [box.config_hash == wanted for box in world.of("api")] == [True, True]


@pytest.mark.parametrize(
    ("fake", "moment", "state"),
    [
        (server(healthy=None), 3.0, "healthy"),
        (lives(dies(after=0.5)), 9.0, "failed"),
    ],
)
def test_waiting_starts_nothing(world: World, fake: Fake, moment: float, state: str) -> None:
    world.services(db=fake)
    world.compose.create(["db"])
    world.calls = []
    world.at(1, lambda: world.compose.start(["db"]))
    world.at(moment, lambda: world.open.add("db"))
    report = world.wait()
    assert states(report) == {"db": state}
    assert asked(world) == ["compose up db"], "that was us"


@pytest.mark.parametrize("entry", [{"scale": 0}, {"deploy": {"replicas": 0}}])
@pytest.mark.parametrize(
    "image", [{"image": "none"}, {"image": "none", "pull_policy": "always"}, {"build": {"context": "."}}]
)
def test_a_service_of_no_replicas_needs_no_image(world: World, entry: dict[str, Any], image: dict[str, Any]) -> None:
    off = plain(**entry, **image)
    world.services(images=False, off=off, web=plain(depends_on=after(off="started")))
    world.images["bb"] = "sha256:bb"
    report = world.start()
    assert (report.ok, states(report)) == (True, {"off": "running", "web": "running"})
    assert asked(world) == ["compose create web", "engine start web-1"]
    assert world.start(dev=True).ok
    assert world.restart().report.ok
    assert len(asked(world)) == 2
