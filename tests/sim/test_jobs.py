"""One-shots that are slow, and jobs that nobody waits for: a run is waited for, believed, and not made twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from sim.command_line import run
from sim.services import Fake, Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World, failure, states

SLOW: dict[str, Fake] = {
    "db": server(),
    "migrate": one_shot(takes=500, depends_on=after(db="healthy")),
    "app": plain(depends_on=after(migrate="completed")),
}
DONE = {"db": "healthy", "migrate": "completed", "app": "running"}


def status(world: World) -> tuple[int, dict[str, str]]:
    """Return the exit code and the states of `services.status`."""
    done = run(world, "services.status", "--json")
    return done.code, {each["name"]: each["state"] for each in done.json()["services"]}


def ready_findings(world: World) -> tuple[int, dict[str, str]]:
    """Return the exit code of `services.fixes`, and what it finds about each service being ready."""
    done = run(world, "services.fixes", "--json")
    found = done.json()["findings"]
    return done.code, {each["service"]: each["status"] for each in found if each["id"] == "services.ready"}


def give_up(world: World) -> None:
    """Let a start wait for as long as it does."""
    assert states(world.start()) == {"db": "healthy", "migrate": "failed", "app": "skipped"}


def interrupt(world: World) -> None:
    """Press Ctrl-C in a start."""
    world.at(world.clock.monotonic() + 30, world.interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        world.start()
    world.end_run()


@pytest.mark.parametrize("end_early", [give_up, interrupt])
def test_the_run_that_is_under_way_is_waited_for(world: World, end_early: Callable[[World], None]) -> None:
    world.services(**SLOW)
    end_early(world)
    code, found = status(world)
    assert (code, found["migrate"]) == (1, "starting")
    assert failure(world.wait("migrate", timeout=5), "migrate").kind == "timeout"
    assert states(world.start(timeout=600)) == DONE
    app, migrate = world.box("app").started_at, world.box("migrate").finished_at
    assert app and migrate and app >= migrate
    assert (world.starts["migrate"], status(world)[0]) == (1, 0)


def test_the_exit_code_of_that_run_counts(world: World) -> None:
    world.services(**{**SLOW, "migrate": lives(dies(3, after=200), Life(ends=5), depends_on=after(db="healthy"))})
    give_up(world)
    world.steps = []
    assert states(world.start()) == DONE
    assert [step.partition(": ")[2] for step in world.steps if "migrate retry" in step] == [
        "it exited with code 3; attempt 1 of 3 in 5 s"
    ]
    assert world.starts["migrate"] == 2


def start_all(world: World) -> None:
    """Start again, with the same time limit."""
    assert states(world.start()) == DONE


def start_by_name(world: World) -> None:
    """Start what waits for it."""
    assert states(world.start("app")) == DONE


def fix(world: World) -> None:
    """Have the fixes start what does not run."""
    assert ready_findings(world) == (0, dict.fromkeys(DONE, "ok"))


def bring_up(world: World) -> None:
    """Bring up what waits for it."""
    world.begin()
    assert world.up("app") == dict.fromkeys(DONE)


@pytest.mark.parametrize("end_early", [give_up, interrupt])
@pytest.mark.parametrize("next_run", [start_all, start_by_name, fix, bring_up])
def test_one_that_takes_longer_than_the_time_limit_is_not_run_for_ever(
    world: World, end_early: Callable[[World], None], next_run: Callable[[World], None]
) -> None:
    world.services(**SLOW)
    end_early(world)
    world.clock.sleep(1000)
    next_run(world)
    assert world.starts["migrate"] == 1
    # Once that was used, it runs again with what waits for it.
    world.kill("app")
    assert failure(world.start(), "migrate").kind == "timeout"
    assert world.starts["migrate"] == 2
    world.clock.sleep(1000)
    next_run(world)
    assert world.starts["migrate"] == 2


def test_one_that_is_brought_up_by_a_task_is_not_run_for_ever(world: World) -> None:
    """Where each service is brought up for itself, the containers of what waits for it are not there yet."""
    world.services(**SLOW)
    found = world.up("app")
    assert found["migrate"] is not None
    assert (found["migrate"].kind, world.of("app")) == ("timeout", [])
    world.clock.sleep(1000)
    bring_up(world)
    assert world.starts["migrate"] == 1


@pytest.mark.parametrize("then", ["stopped", "renewed"])
def test_one_that_ran_beside_what_waits_for_it_runs_again_with_that(world: World, then: str) -> None:
    """By name it may run at any time; what ran meanwhile has not waited for that run."""
    world.services(**{**SLOW, "migrate": one_shot(takes=5, depends_on=after(db="healthy"))})
    start_all(world)
    world.clock.sleep(60)
    assert world.start("migrate").ok
    world.clock.sleep(60)
    if then == "stopped":
        world.signal(world.box("app"), 0)
    else:
        world.services(**{**world.fakes, "app": plain(depends_on=after(migrate="completed"), environment={"A": "1"})})
    start_all(world)
    assert world.starts["migrate"] == 3


def test_by_name_it_is_believed_once(world: World) -> None:
    world.services(**SLOW)
    give_up(world)
    world.clock.sleep(1000)
    assert states(world.start("migrate"))["migrate"] == "completed"
    assert world.starts["migrate"] == 1
    assert failure(world.start("migrate"), "migrate").kind == "timeout"
    assert world.starts["migrate"] == 2


def test_it_runs_again_where_what_it_worked_on_is_made_again(world: World) -> None:
    world.services(**SLOW)
    give_up(world)
    world.clock.sleep(1000)
    world.services(**{**SLOW, "db": SLOW["db"].changed(environment={"A": "1"})})
    world.start()
    assert world.starts["migrate"] == 2


JOB_DONE = {"job": "completed", "web": "running"}


@pytest.mark.parametrize("takes", [0.5, 2.5, 100, 5000])
@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("restart", ["no", "on-failure:3"])
def test_a_job_that_nobody_waits_for_is_completed(world: World, takes: float, forgetful: bool, restart: str) -> None:
    world.services(job=one_shot(takes=takes, restart=restart), web=plain())
    report = world.start()
    assert (report.ok, states(report)["web"]) == (True, "running")
    assert status(world)[0] == 0
    world.clock.sleep(takes)
    world.forgetful = forgetful
    assert status(world) == (0, JOB_DONE)
    assert states(world.wait()) == JOB_DONE
    assert ready_findings(world) == (0, dict.fromkeys(JOB_DONE, "ok"))
    assert states(world.start()) == JOB_DONE
    # From now on it is known, whatever becomes of the others.
    world.kill("web", 0)
    assert status(world) == (1, {"job": "completed", "web": "exited"})
    assert states(world.start()) == JOB_DONE
    assert world.starts["job"] == 1
    # It is asked for.
    assert world.start("job").ok
    assert world.starts["job"] == 2


def test_a_job_that_ends_while_others_start(world: World) -> None:
    report = world.services(job=one_shot(takes=2.5), web=server(healthy=6)).start()
    assert (report.ok, states(report)) == (True, {"job": "completed", "web": "healthy"})
    assert world.starts["job"] == 1


def test_a_job_that_ends_while_somebody_waits(world: World) -> None:
    world.services(job=one_shot(takes=20), web=server(healthy=30))
    world.compose.create(["job", "web"])
    world.at(1, lambda: world.compose.start(["job", "web"]))
    assert states(world.wait()) == {"job": "running", "web": "healthy"}
    assert status(world) == (0, {"job": "completed", "web": "healthy"})


def test_a_job_that_fails_later_has_not_completed(world: World) -> None:
    world.services(job=one_shot(3, takes=2.5), web=plain()).start()
    world.clock.sleep(10)
    assert status(world) == (1, {"job": "exited", "web": "running"})
    # The next start sees it through: it waits for longer than the run before took.
    report = world.start()
    assert states(report) == {"job": "failed", "web": "running"}
    assert failure(report, "job").exit_code == 3
    assert world.starts["job"] == 4


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize("more", [{}, {"healthcheck": check()}])
def test_a_server_that_was_stopped_with_the_others_is_started(world: World, forgetful: bool, more: Fake) -> None:
    world.services(worker=plain(), web=lives(Life(healthy=0), **more)).start()  # type: ignore[arg-type]
    world.clock.sleep(100)
    world.kill("web", 0)
    world.clock.sleep(10)
    world.kill("worker", 0)
    world.forgetful = forgetful
    assert status(world) == (1, {"worker": "exited", "web": "exited"})
    assert world.start().ok
    assert (world.starts["worker"], world.starts["web"]) == (2, 2)


def test_a_server_that_was_stopped_alone_is_started(world: World) -> None:
    world.services(worker=plain(), web=plain()).start()
    world.clock.sleep(100)
    world.kill("worker", 0)
    assert status(world) == (1, {"worker": "exited", "web": "running"})
    assert world.start().ok
    assert world.starts["worker"] == 2


def test_what_stackhand_has_stopped_is_started_although_the_engine_has_forgotten(world: World) -> None:
    world.services(worker=plain(), web=plain()).start()
    world.clock.sleep(100)
    assert run(world, "services.stop", "-s", "worker").code == 0
    world.forgetful = True
    world.clock.sleep(5000)
    assert status(world) == (1, {"worker": "exited", "web": "running"})
    assert world.start().ok
    assert world.starts["worker"] == 2


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_job_whose_restart_policy_starts_it_again(world: World, policy: str) -> None:
    report = world.services(job=one_shot(restart=policy), app=plain(depends_on=after(job="completed"))).start()
    found = failure(report, "job")
    assert (found.kind, found.exit_code) == ("restart_loop", 0)
    assert f"restart policy `{policy}`" in found.reason
    assert 'restart: "no"' in found.hint
    assert report.elapsed < 2, "it never completes, however long one waits"
    # Where nobody waits for it, it is told what to do as well.
    report = world.services(job=one_shot(takes=0.2, restart=policy)).start()
    assert 'restart: "no"' in failure(report, "job").hint


def test_a_hook_that_fails_is_a_failure(world: World) -> None:
    hooked = plain(post_start=[{"command": "x"}])
    world.services(web=hooked, good=hooked, app=plain(depends_on=after(web="started")))
    world.hooks_fail["web"] = 2
    world.start(retries=2)
    report = world.starter.report()
    assert states(report) == {"web": "failed", "good": "running", "app": "skipped"}
    assert failure(report, "web").kind == "hook_failed"
    assert not world.runs("web"), "the next start would take it for ready"
    assert status(world)[0] == 1
    # The next one begins with the hook again, and so does a restart.
    assert world.start().ok
    world.hooks_fail["web"] = 1
    assert world.restart("web").report.ok
    assert world.starts["web"] == 5
