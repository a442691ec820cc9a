"""Ctrl-C at every stage, an engine that goes away, and what the next run makes of it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from sim.command_line import run
from sim.services import Fake, Life, after, dies, lives, one_shot, plain, server
from sim.world import World, attempts, failure, states

from stackhand.errors import EngineUnreachable, Interrupted
from stackhand.state.journal import Journal

STACK: dict[str, Fake] = {
    "db": server(healthy=10),
    "migrate": one_shot(takes=10, depends_on=after(db="healthy")),
    "api": server(healthy=10, depends_on=after(migrate="completed")),
    "alone": plain(),
}
READY = {"db": "healthy", "migrate": "completed", "api": "healthy", "alone": "running"}


@pytest.mark.parametrize(
    ("takes", "moment", "where"),
    [
        ({"compose create": 5}, 2, "not started: db, migrate, api, alone"),
        ({"engine start": 2}, 1, "starting: db, alone; not started: migrate, api"),
        ({"engine probe": 2}, 1, "starting: db, alone; not started: migrate, api"),
        ({}, 5, "ready: alone; starting: db; not started: migrate, api"),
        ({}, 15, "ready: db, alone; starting: migrate; not started: api"),
        ({}, 25, "ready: db, migrate, alone; starting: api"),
    ],
)
def test_a_start_that_is_interrupted_goes_on_with_the_next(
    world: World, takes: dict[str, float], moment: float, where: str
) -> None:
    world.services(**STACK)
    world.takes = takes
    world.at(moment, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start()
    assert world.clock.monotonic() == moment
    assert world.end_run() == where
    before = {name: run for name, run in world.fingerprint().items() if run.split()[1:]}

    world.takes = {}
    report = world.start()
    assert states(report) == READY
    # What ran, ran on.
    assert {name: run for name, run in world.fingerprint().items() if name in before} == before


@pytest.mark.parametrize("verb", ["build", "pull"])
def test_while_images_are_got(world: World, verb: str) -> None:
    more: dict[str, Any] = {"build": {"context": "."}} if verb == "build" else {"image": "far"}
    world.services(images=False, web=plain(**more))
    world.registry["far"] = "sha256:far"
    world.takes[f"compose {verb}"] = 100
    world.at(50, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start()
    world.end_run()
    assert world.boxes == {}
    world.takes = {}
    assert states(world.start()) == {"web": "running"}


def test_while_hooks_run(world: World) -> None:
    world.services(web=plain(post_start=[{"command": "x"}]), app=plain(depends_on=after(web="started")))
    world.takes["compose hook"] = 10
    world.at(5, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start()
    world.end_run()
    assert world.runs("web")
    assert run(world, "services.status").code == 1, "it runs, but not all of it was done"
    report = world.start()
    assert states(report) == {"web": "running", "app": "running"}
    assert world.calls.count("compose hook web") == 2
    assert world.starts["web"] == 2
    assert run(world, "services.status").code == 0
    before = world.fingerprint()
    world.start()
    assert world.fingerprint() == before


def test_between_two_attempts(world: World) -> None:
    world.services(web=lives(dies()), slow=server(healthy=1000))
    world.at(300, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start(retry_delay=500, timeout=2000)
    assert world.end_run() == "starting: web, slow"
    world.clock.sleep(1000)
    assert world.starts["web"] == 1, "it is not started after the end"


def test_what_waits_is_woken_to_leave(world: World) -> None:
    """With the main thread gone, every thread ends at its next look."""
    world.services(**STACK)
    world.at(5, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start()
    world.end_run()
    calls = list(world.calls)
    world.clock.sleep(100)
    assert world.calls == calls


def test_the_report_of_an_interrupted_run(world: World) -> None:
    world.services(**STACK)
    world.at(5, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.start()
    report = world.starter.report()
    assert report.ok is False
    assert states(report) == {"db": "failed", "migrate": "skipped", "api": "skipped", "alone": "running"}
    assert failure(report, "db").reason == failure(report, "api").reason == "the run was interrupted"


def test_a_restart_that_is_interrupted_is_completed_by_the_next(world: World) -> None:
    follow = after(db="healthy restart")
    world.services(db=server(healthy=3), api=plain(depends_on=follow), other=plain()).start()
    before = world.fingerprint()
    begun = world.clock.monotonic()
    world.at(begun + 1, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.restart("db")
    world.end_run()
    assert world.fingerprint()["shop-api-1"] == before["shop-api-1"]

    done = world.restart()
    assert states(done.report) == {"db": "healthy", "api": "running", "other": "running"}
    assert [(name, "interrupted" in cause) for name, cause in done.changed] == [("api", True)]
    assert world.fingerprint()["shop-other-1"] == before["shop-other-1"]
    assert world.fingerprint()["shop-api-1"] != before["shop-api-1"]
    assert not world.restart().report.changed


def test_a_restart_of_one_service_leaves_to_others_what_was_interrupted(world: World) -> None:
    world.services(db=server(healthy=3), api=plain(depends_on=after(db="healthy restart")), other=plain()).start()
    before = world.fingerprint()
    world.at(world.clock.monotonic() + 1, world.interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.restart("db")
    world.end_run()
    assert world.restart("other").report.ok
    assert world.fingerprint()["shop-api-1"] == before["shop-api-1"]

    done = world.restart()
    assert [name for name, _ in done.changed] == ["api"]
    assert world.fingerprint()["shop-api-1"] != before["shop-api-1"]
    assert not Journal(world.state).unfinished()
    assert not world.restart().report.changed


def test_a_half_made_recreate_is_completed(world: World) -> None:
    """The new container stands beside the old one, under its id and name."""
    world.services(web=plain(), other=plain()).start()
    old = world.box("web")
    draft = replace(old, id="draft", name=f"{'a' * 12}_{old.name}", status="created", started_at=None, replaces=old.id)
    world.boxes["draft"] = draft
    assert states(world.start()) == {"web": "running", "other": "running"}
    assert [each.name for each in world.of("web")] == ["shop-web-1"]


def test_a_half_made_recreate_is_cleared_before_a_fix_recreates(world: World) -> None:
    world.services(web=plain(), other=plain()).start()
    old = world.box("web")
    draft = replace(old, id="draft", name=f"{'a' * 12}_{old.name}", status="created", started_at=None, replaces=old.id)
    world.boxes["draft"] = draft
    world.actions().recreate("web")
    assert world.box("web").id not in (old.id, "draft")
    assert world.runs("web")


@pytest.mark.parametrize("away", [1, 30, 100])
def test_the_engine_goes_away_and_comes_back(world: World, away: float) -> None:
    world.services(db=server(), slow=server(healthy=20), api=plain(depends_on=after(db="healthy", slow="healthy")))
    world.at(5, world.lose_engine)
    world.at(5 + away, world.find_engine)
    report = world.start()
    # It had killed its containers: they are started again.
    assert states(report) == {"db": "healthy", "slow": "healthy", "api": "running"}
    assert attempts(report)["slow"] == 2
    assert any("the engine does not answer; waiting for it" in step for step in world.steps)


def test_an_engine_that_stays_away(world: World) -> None:
    world.services(slow=server(healthy=None))
    world.at(5, world.lose_engine)
    with pytest.raises(EngineUnreachable):
        world.start(timeout=60)
    assert world.clock.monotonic() == pytest.approx(60, abs=2)
    report = world.starter.report()
    assert failure(report, "slow").kind == "engine_gone"
    assert failure(report, "slow").retry is False


def test_an_engine_that_goes_away_during_a_start_costs_no_attempt(world: World) -> None:
    world.services(web=plain())
    world.takes["engine start"] = 3
    world.at(1, world.lose_engine)
    world.at(10, world.find_engine)
    report = world.start()
    assert states(report) == {"web": "running"}
    assert attempts(report) == {"web": 1}


@pytest.mark.parametrize(
    ("back", "state", "kind"),
    [
        # It is waited for once for each attempt that may be lost to it, and once more: four times 5 s after 2 s.
        (8, "running", None),
        (20, "running", None),
        (23, "failed", "engine_gone"),
        (1000, "failed", "engine_gone"),
    ],
)
@pytest.mark.parametrize("how", ["start", "up"])
def test_an_engine_that_is_lost_during_a_start_for_longer_than_the_timeout(
    world: World, how: str, back: float, state: str, kind: str | None
) -> None:
    world.services(web=plain(), next=plain(depends_on=after(web="started")))
    world.takes["engine start"] = 2
    world.at(1, world.lose_engine)
    world.at(back, world.find_engine)
    if how == "up":
        world.begin(timeout=5)
        found = world.up("web")["web"]
        assert (found and found.kind) == kind
    else:
        # Where the engine is still away at the end, nobody can look again.
        with contextlib.suppress(EngineUnreachable):
            world.start(timeout=5)
    report = world.starter.report()
    assert states(report) == {"web": state, **({"next": "skipped" if kind else state} if how == "start" else {})}
    if kind:
        assert failure(report, "web").kind == kind
        assert failure(report, "web").waited == pytest.approx(22)
        assert any(step.endswith("web failed: the engine does not answer") for step in world.steps)
    else:
        assert attempts(report)["web"] == 1, "what was lost to the engine does not count"


def test_lost_events_cost_a_moment(world: World) -> None:
    """An event that never comes delays what waits for it by seconds, no more."""
    world.services(db=lives(Life(ends=7)), api=plain(depends_on=after(db="completed")))
    world.at(6, world.listeners.clear)
    report = world.start()
    assert states(report) == {"db": "completed", "api": "running"}
    assert report.elapsed < 7 + 10 + 2 + 1.1


def test_a_cancelled_run_starts_nothing_more(world: World) -> None:
    world.services(web=plain())
    world.starter.cancel()
    with pytest.raises(Interrupted):
        world.starter.run(["web"])
    assert not world.runs("web")
