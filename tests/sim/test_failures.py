"""What fails: what is tried again and how often, what is told, and what goes on without it."""

from __future__ import annotations

from typing import Any

import pytest
from sim.services import Fake, Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World, attempts, failure, states

CHECKED = {"healthcheck": check()}
IN_USE = "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated"


def times(world: World, service: str, kind: str) -> list[float]:
    """Return the seconds at which steps of a kind were told."""
    return [float(step.split()[0]) for step in world.steps if step.split()[1:3] == [service, f"{kind}:"]]


@pytest.mark.parametrize(
    ("fake", "settings", "state", "attempts_", "starts_at"),
    [
        # Attempts, and what comes between them: 5 s, 10 s, 20 s …
        (lives(dies()), {}, "failed", 3, [0, 5, 15]),
        (lives(dies()), {"retries": 1}, "failed", 1, [0]),
        (lives(dies()), {"retries": 5, "retry_delay": 1, "backoff": 1}, "failed", 5, [0, 1, 2, 3, 4]),
        (lives(dies()), {"retries": 4, "retry_delay": 100, "backoff": 3}, "failed", 4, [0, 100, 400, 1300]),
        (lives(dies(), dies(), Life()), {}, "running", 3, [0, 5, 15]),
        (lives(dies(), Life(healthy=3), **CHECKED), {}, "healthy", 2, [0, 5]),
        (lives(dies(), Life(ends=1)), {}, "completed", 2, [0, 5]),
        # It is alive: waiting is all there is to do, as long as the time limit says.
        (server(healthy=None), {}, "failed", 1, [0]),
        (server(healthy=119), {}, "healthy", 1, [0]),
        (server(healthy=121), {}, "failed", 1, [0]),
        (server(healthy=121), {"timeout": 125}, "healthy", 1, [0]),
        # The engine refuses to start it.
        (lives(Life(refuses="oh"), Life()), {}, "running", 2, [0, 5]),
        (lives(Life(refuses='exec: "nosuch": executable file not found in $PATH')), {}, "failed", 1, [0]),
        # A shell's own codes.
        (lives(dies(127)), {}, "failed", 1, [0]),
        (lives(dies(126)), {}, "failed", 1, [0]),
        # Exit 0 before its healthcheck succeeded.
        (lives(dies(0), Life(healthy=0), **CHECKED), {}, "healthy", 2, [0, 5]),
        (lives(dies(137, oom=True)), {"retries": 2}, "failed", 2, [0, 5]),
    ],
)
def test_attempts(
    world: World, fake: Fake, settings: dict[str, float], state: str, attempts_: int, starts_at: list[float]
) -> None:
    report = world.services(web=fake, other=plain()).start(**settings)
    assert states(report) == {"web": state, "other": "running"}
    assert attempts(report)["web"] == attempts_
    assert times(world, "web", "start") == pytest.approx(starts_at, abs=0.6)
    assert report.ok is (state != "failed")


@pytest.mark.parametrize(
    ("fake", "settings", "kind", "says", "code", "hint"),
    [
        (lives(dies(5, log=("oh no",))), {}, "exited", "it exited with code 5", 5, "log lines"),
        (lives(dies(137)), {}, "exited", "signal 9", 137, "log lines"),
        (lives(dies(127)), {}, "exited", "was not found", 127, "command"),
        (lives(dies(137, oom=True)), {"retries": 1}, "out_of_memory", "memory", 137, "limit"),
        (server(healthy=None), {"timeout": 7}, "timeout", "after 7 s: its healthcheck still fails", 1, "timeout"),
        (
            lives(Life(probe_code=None), **CHECKED),
            {"timeout": 20},
            "timeout",
            "its healthcheck gave no answer within 5 s",
            None,
            "timeout",
        ),
        (lives(Life(refuses=IN_USE)), {}, "port_in_use", "port 80 is held by container web-server", None, "publish"),
    ],
)
def test_what_is_told(
    world: World, fake: Fake, settings: dict[str, float], kind: str, says: str, code: int | None, hint: str
) -> None:
    world.ports[80] = "web-server"
    found = failure(world.services(web=fake).start(**settings), "web")
    assert (found.kind, found.exit_code) == (kind, code)
    assert says in found.reason
    assert hint in found.hint


def test_all_that_is_told_of_one_that_never_gets_there(world: World) -> None:
    report = world.services(
        db=lives(dies(5, log=("line one", "FATAL: no such data directory")), **CHECKED),
        api=plain(depends_on=after(db="healthy")),
        proxy=plain(depends_on=after(api="started")),
        cache=server(),
        web=plain(depends_on=after(cache="healthy")),
    ).start()
    assert states(report) == {
        "db": "failed",
        "api": "skipped",
        "proxy": "skipped",
        "cache": "healthy",
        "web": "running",
    }
    assert attempts(report) == {"db": 3, "api": 0, "proxy": 0, "cache": 1, "web": 1}
    found = failure(report, "db")
    assert found.log_tail == ("line one", "FATAL: no such data directory")
    assert found.tried == ("3 attempts, with pauses of 5 s, 10 s",)
    assert found.waited == pytest.approx(15.3, abs=0.1)
    assert failure(report, "api").reason == failure(report, "proxy").reason == "db failed"
    assert not world.runs("api")
    retries = [step for step in world.steps if " retry: " in step]
    assert retries[0].endswith("it exited with code 5; attempt 2 of 3 in 5 s")


def test_death_is_seen_at_once(world: World) -> None:
    found = failure(world.services(web=lives(dies(after=0.5), **CHECKED)).start(retries=1), "web")
    assert found.waited == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("needs", "state"),
    [
        ("healthy", "skipped"),
        ("started", "running"),
        ("healthy optional", "running"),
        ("completed", "skipped"),
        ("completed optional", "running"),
    ],
)
def test_who_goes_on_without_one_that_fails(world: World, needs: str, state: str) -> None:
    fake = lives(dies(), **({} if "completed" in needs else CHECKED))
    report = world.services(
        cache=fake,
        api=plain(depends_on=after(cache=needs)),
        proxy=plain(depends_on=after(api="started")),
    ).start(retries=1)
    assert states(report) == {"cache": "failed", "api": state, "proxy": state}
    assert report.ok is False


def test_an_optional_dependency_that_nobody_insists_on(world: World) -> None:
    stack = {
        "cache": lives(dies(), **CHECKED),
        "metrics": plain(depends_on=after(cache="healthy")),
        "api": server(depends_on=after(cache="healthy optional")),
        "proxy": server(depends_on=after(api="healthy")),
    }
    report = world.services(**stack).start(retries=1)
    assert states(report) == {"cache": "failed", "metrics": "skipped", "api": "healthy", "proxy": "healthy"}
    assert report.ok is False
    # By name, only `proxy` is insisted on.
    report = world.start("proxy", retries=1)
    assert (states(report), report.ok) == ({"cache": "failed", "api": "healthy", "proxy": "healthy"}, True)


@pytest.mark.parametrize("retries", [1, 3])
def test_a_failed_one_shot_stops_what_waits_for_it(world: World, retries: int) -> None:
    report = world.services(
        migrate=one_shot(3, log=("column does not exist",)),
        api=plain(depends_on=after(migrate="completed")),
        worker=plain(depends_on=after(api="started")),
        alone=plain(),
    ).start(retries=retries)
    assert states(report) == {"migrate": "failed", "api": "skipped", "worker": "skipped", "alone": "running"}
    assert attempts(report)["migrate"] == retries
    assert failure(report, "migrate").exit_code == 3
    assert failure(report, "migrate").log_tail == ("column does not exist",)
    # The next start tries it again, and goes on.
    world.services(**{**world.fakes, "migrate": one_shot()})
    assert states(world.start()) == {
        "migrate": "completed", "api": "running", "worker": "running", "alone": "running",
    }  # fmt: skip


def test_a_one_shot_that_takes_too_long(world: World) -> None:
    report = world.services(migrate=one_shot(takes=500), api=plain(depends_on=after(migrate="completed"))).start()
    assert states(report) == {"migrate": "failed", "api": "skipped"}
    assert failure(report, "migrate").reason == "not ready after 120 s: it has not completed"
    assert world.runs("migrate"), "it may be in the middle of its work"


def test_a_dependant_of_health_without_a_healthcheck(world: World) -> None:
    report = world.services(db=plain(), api=plain(depends_on=after(db="healthy"))).start()
    assert states(report) == {"db": "running", "api": "failed"}
    assert "no healthcheck" in failure(report, "api").reason
    assert attempts(report)["api"] == 0


@pytest.mark.parametrize(
    ("policy", "each", "state", "restarts"),
    [
        # The engine restarts it: a single crash is no failure, nor are two.
        ("always", [dies(), Life()], "running", 1),
        ("on-failure", [dies(), dies(), Life()], "running", 2),
        # It goes on for as long as our own attempts would take (5 s and 10 s).
        ("always", [dies()], "failed", None),
        ("on-failure", [dies(4)], "failed", None),
        ("on-failure", [dies(0)], "completed", 0),
    ],
)
def test_restart_policies(world: World, policy: str, each: list[Life], state: str, restarts: int | None) -> None:
    report = world.services(web=lives(*each, restart=policy), slow=server(healthy=30)).start()
    assert states(report) == {"web": state, "slow": "healthy"}
    assert attempts(report)["web"] == 1, "the restarts are the engine's, not ours"
    if restarts is not None:
        assert world.box("web").restart_count == restarts
    else:
        assert "restart loop" in failure(report, "web").reason
        assert failure(report, "web").waited >= 15


@pytest.mark.parametrize("settle", [0, 1])
def test_a_crash_loop_is_not_ready_between_two_crashes(world: World, settle: float) -> None:
    report = world.services(web=lives(dies(after=0.4), restart="always")).start(settle=settle, retries=3)
    if settle:
        assert states(report) == {"web": "failed"}
    else:
        # With no settle time it is ready the moment it runs; the look afterwards is what sees it fall.
        assert states(report)["web"] in ("running", "failed")


def test_healthy_only_after_being_unhealthy(world: World) -> None:
    often = check(interval=1, retries=1)
    world.services(web=lives(Life(healthy=20), healthcheck=often), next=plain(depends_on=after(web="healthy")))
    report = world.start()
    assert states(report) == {"web": "healthy", "next": "running"}
    assert attempts(report)["web"] == 1
    assert times(world, "next", "start") == pytest.approx([20], abs=1)


def test_a_healthcheck_that_hangs_is_left_to_the_engine(world: World) -> None:
    hanging = lives(Life(probe_code=None, probe="hanging"), **CHECKED)
    report = world.services(web=hanging, other=server()).start(timeout=30)
    assert states(report) == {"web": "failed", "other": "healthy"}
    assert world.calls.count("engine probe web") == 1, "hanging probes must not pile up"
    assert failure(report, "web").probe_output == "hanging"


def test_a_healthcheck_that_can_not_run(world: World) -> None:
    report = world.services(web=lives(Life(probe_error="exec nosuch: not found"), **CHECKED)).start(timeout=10)
    assert failure(report, "web").probe_output == "exec nosuch: not found"


def test_what_a_failing_healthcheck_says(world: World) -> None:
    report = world.services(web=lives(Life(probe="role does not exist", probe_code=2), **CHECKED)).start(timeout=10)
    found = failure(report, "web")
    assert (found.probe_output, found.exit_code) == ("role does not exist", 2)
    assert "healthcheck still fails (exit code 2)" in found.reason


@pytest.mark.parametrize(
    ("fails", "stack", "expected", "step", "kind"),
    [
        (
            {"create web": "Error response from daemon: invalid mount config for type bind"},
            {"web": plain(), "api": plain(depends_on=after(web="started")), "other": plain()},
            {"web": "failed", "api": "skipped", "other": "running"},
            "create",
            "bad_configuration",
        ),
        (
            {"pull web": "manifest unknown"},
            {"web": plain(image="nowhere"), "api": plain(depends_on=after(web="started")), "other": plain()},
            {"web": "failed", "api": "skipped", "other": "running"},
            "image",
            "image_not_found",
        ),
        (
            {"build web": "exit code: 7"},
            {"web": plain(build={"context": "."}), "other": plain()},
            {"web": "failed", "other": "running"},
            "image",
            "build_failed",
        ),
        (
            {"create web": "no space left on device"},
            {"web": plain(), "api": plain(depends_on=after(web="started optional"))},
            {"web": "failed", "api": "running"},
            "create",
            "no_space",
        ),
    ],
)
def test_what_can_not_be_got_or_made(
    world: World, fails: dict[str, str], stack: dict[str, Any], expected: dict[str, str], step: str, kind: str
) -> None:
    world.services(**stack)
    for image in ("nowhere", "shop-web"):
        world.images.pop(image, None)
    world.fails = fails
    report = world.start()
    assert states(report) == expected
    assert (failure(report, "web").step, failure(report, "web").kind) == (step, kind)
    assert attempts(report)["web"] == 0
    assert failure(report, "web").hint


@pytest.mark.parametrize("how", ["start", "restart", "up"])
@pytest.mark.parametrize(
    ("fails", "was", "now", "step"),
    [
        ({"create web": "invalid mount config for type bind"}, plain(), plain(command="other"), "create"),
        (
            {"pull web": "manifest unknown"},
            plain(image="far", pull_policy="always"),
            plain(image="far", pull_policy="always", command="other"),
            "image",
        ),
        (
            {"build web": "exit code: 7"},
            plain(build={"context": "."}, pull_policy="build"),
            plain(build={"context": "."}, pull_policy="build", command="other"),
            "image",
        ),
    ],
)
def test_one_that_runs_and_can_not_be_renewed_fails_and_runs_on(
    world: World, how: str, fails: dict[str, str], was: Fake, now: Fake, step: str
) -> None:
    rest: dict[str, Fake] = {"api": plain(depends_on=after(web="started")), "other": plain()}
    world.registry["far"] = "sha256:far"
    assert world.services(web=was, **rest).start().ok
    before = world.fingerprint()
    world.services(web=now, **rest)
    if how == "restart" and step == "image":
        world.images.pop(world.project.services["web"].image)  # a restart only gets what is not here
    world.fails = fails
    if how == "up":
        world.up("web")
        report = world.starter.report()
    else:
        report = world.start() if how == "start" else world.restart().report
    assert (report.ok, states(report)["web"]) == (False, "failed")
    assert failure(report, "web").step == step
    assert world.fingerprint() == before, "what ran runs on"
    # It is not taken for what was configured: the next start makes it again.
    world.fails, world.calls = {}, []
    assert world.start().ok
    assert "compose create web" in world.calls
    assert world.box("web").config_hash == world.hash_of("web")


def test_what_needs_one_that_can_not_be_renewed_is_skipped_and_renewed_by_the_next(world: World) -> None:
    """`api` needs `web` by way of `mid`, with which nothing is the matter."""
    stack = {
        "web": plain(image="far", pull_policy="always"),
        "mid": plain(depends_on=after(web="started")),
        "api": plain(depends_on=after(mid="started", cache="started")),
        "cache": plain(),
        "next": plain(depends_on=after(api="started")),
    }
    world.registry["far"] = "sha256:far"
    assert world.services(**stack).start().ok
    before = world.fingerprint()
    world.services(
        **{**stack, "api": stack["api"].changed(command="other"), "new": plain(depends_on=after(mid="started"))}
    )
    world.fails["pull web"] = "manifest unknown"
    report = world.start()
    assert states(report) == {
        "web": "failed", "mid": "running", "api": "skipped", "cache": "running", "next": "running", "new": "running",
    }  # fmt: skip
    assert failure(report, "api").reason == "web failed"
    assert {name: run for name, run in world.fingerprint().items() if name in before} == before
    world.fails = {}
    assert world.start().ok
    assert world.box("api").config_hash == world.hash_of("api")


def test_an_image_that_must_not_be_pulled(world: World) -> None:
    world.services(images=False, web=plain(image="none", pull_policy="never"))
    report = world.start()
    assert states(report) == {"web": "failed"}
    assert failure(report, "web").kind == "image_not_found"
    assert not [call for call in world.calls if "pull" in call]


def test_a_bad_one_does_not_take_others_with_it(world: World) -> None:
    """What goes through Compose goes together; when that fails, each goes alone."""
    usual = {"new_in_compose": True}
    report = world.services(good=plain(**usual), bad=lives(Life(refuses="oh"), **usual), fine=plain(**usual)).start(
        retries=1
    )
    assert states(report) == {"good": "running", "bad": "failed", "fine": "running"}
    assert (world.starts["good"], world.starts["fine"]) == (1, 1)


def test_a_failure_changes_nothing_that_was_well(world: World) -> None:
    stack = {"db": server(), "web": plain(depends_on=after(db="started"))}
    world.services(**stack).start()
    before = world.fingerprint()
    world.services(**stack, bad=one_shot(1))
    assert states(world.start(retries=1)) == {"db": "healthy", "web": "running", "bad": "failed"}
    assert {name: run for name, run in world.fingerprint().items() if name in before} == before


def test_branches_that_do_not_need_it_are_finished(world: World) -> None:
    report = world.services(
        bad=lives(dies(), **CHECKED),
        left=plain(depends_on=after(bad="healthy")),
        top=plain(depends_on=after(left="started", fine="healthy")),
        fine=server(healthy=60),
        after_fine=plain(depends_on=after(fine="healthy")),
    ).start(retries=1)
    assert states(report) == {
        "bad": "failed", "left": "skipped", "top": "skipped", "fine": "healthy", "after_fine": "running",
    }  # fmt: skip
    assert failure(report, "top").reason == "bad failed"


def test_secrets_are_masked_in_all_that_is_told(world: World) -> None:
    world.redactor.add(["s3cret-word"])
    told = "password s3cret-word refused"
    report = world.services(
        web=lives(dies(1, log=(told,))), slow=lives(Life(probe=told), **CHECKED), no=lives(Life(refuses=told))
    ).start(retries=1, timeout=5)
    text = str([record.failure for record in report.services]) + str(world.steps)
    assert "s3cret-word" not in text
    assert "***" in text


@pytest.mark.parametrize("ended", ["by itself", "by somebody", "long ago"])
def test_what_crashed_between_two_starts_has_to_run_longer_than_it_did(world: World, ended: str) -> None:
    world.services(web=lives(dies(3, after=5), dies(3, after=5), Life()))
    assert states(world.start()) == {"web": "running"}
    if ended == "by somebody":
        world.clock.sleep(2)
        world.signal(world.box("web"), 1)
        world.clock.sleep(10)
    else:
        world.clock.sleep(10)
    world.forgetful = ended == "long ago"
    report = world.start()
    assert states(report) == {"web": "running"}
    # Its next run crashes, too: it is seen where this start waits for it.
    assert attempts(report)["web"] == (2 if ended == "by itself" else 1)
