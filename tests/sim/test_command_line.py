"""The command line over simulated starts: documents, exit codes, flags, and services as tasks with both executors."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from shapes import by_name, check_start_document
from sim.command_line import Result, run
from sim.services import Fake, Life, after, check, dies, lives, one_shot, plain, server
from sim.world import World

from stackhand.services import stop
from stackhand.state.journal import Journal

QUICK = ("--no-fixes",)
BENCH = Path(__file__).resolve().parent.parent.parent / "bench"


def start(world: World, *words: str, code: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Start, and return the checked document."""
    result = run(world, "services.start", "--json", *QUICK, *words, env=env)
    assert result.code == code, result
    document: dict[str, Any] = result.json()
    check_start_document(document)
    assert document["ok"] is (code == 0)
    return document


def dry(world: World, *words: str) -> list[str]:
    result = run(world, "--dry", *words)
    assert result.code == 0, result
    return result.stdout.splitlines()


def test_the_way_to_the_engine_is_short() -> None:
    trace = runpy.run_path(str(BENCH / "trace_start.py"))
    calls = trace["trace"]()
    assert len(calls) <= trace["MOST_CALLS"] == 12, calls
    assert len(trace["files"](calls)) <= trace["MOST_FILES"] == 5, calls


def test_the_document_and_what_a_person_sees(world: World) -> None:
    world.services(db=server(healthy=2), api=plain(depends_on=after(db="healthy")))
    document = start(world)
    assert {each["name"]: each["state"] for each in document["services"]} == {"db": "healthy", "api": "running"}
    assert document["critical_path"] == ["db", "api"]
    again = run(world, "services.start", *QUICK)
    assert "2 services ready, nothing changed" in again.stdout


def test_what_the_person_sees_of_a_failure(world: World) -> None:
    world.services(
        db=lives(dies(5, log=("FATAL: no such data directory",)), healthcheck=check()),
        api=plain(depends_on=after(db="healthy")),
        web=plain(),
    )
    result = run(world, "services.start", *QUICK)
    assert result.code == 1
    text = result.stderr
    for line in (
        "db failed at step `ready`: it exited with code 5",
        "FATAL: no such data directory",
        "waited: 15.3 s",
        "3 attempts, with pauses of 5 s, 10 s",
        "db: it exited with code 5; attempt 2 of 3 in 5 s",
        "skip api: db failed",
    ):
        assert line in text
    last = [line for line in text.splitlines() if line.startswith(("error: ", "hint: "))]
    assert last[0].startswith("error: 1 of 3 services failed: db: it exited with code 5; skipped: api")
    assert "1 of 3 services ready" in result.stdout


@pytest.mark.parametrize("words", [("services.start", "--dev"), ("up.web",)])
def test_a_failed_build_of_what_runs_is_no_success(world: World, words: tuple[str, ...]) -> None:
    world.services(web=plain(build={"context": "."}, pull_policy="build"))
    assert run(world, "services.start", *QUICK).code == 0
    world.fails["build web"] = "exit code: 7"
    result = run(world, *words, *(QUICK if words[0] == "services.start" else ()))
    assert result.code == 1, result
    assert "web failed at step `image`: its image could not be built: exit code: 7" in result.stderr
    assert world.runs("web")


def test_attempts_are_a_flag_and_a_setting(world: World) -> None:
    world.services(web=lives(dies()))
    setting = {"INVOKE_STACKHAND_START_RETRIES": "2"}
    assert by_name(start(world, "--retries", "1", code=1))["web"]["attempts"] == 1
    assert by_name(start(world, code=1, env=setting))["web"]["attempts"] == 2
    (world.folder / "invoke.yaml").write_text("stackhand: {start: {retries: 4}}")
    assert by_name(start(world, code=1))["web"]["attempts"] == 4
    assert by_name(start(world, "--retries", "5", code=1, env=setting))["web"]["attempts"] == 5


def test_the_time_limit_is_a_flag(world: World) -> None:
    world.services(web=server(healthy=50))
    assert by_name(start(world, "--timeout", "40", code=1))["web"]["error"]["reason"].startswith("not ready after 40 s")
    assert start(world, "--timeout", "60")["ok"]


@pytest.mark.parametrize("task", ["services.start", "up", "up.api"])
def test_dry_prints_the_plan_and_changes_nothing(world: World, task: str) -> None:
    world.services(images=False, db=server(), api=plain(build={"context": "."}, depends_on=after(db="healthy")))
    world.images["bb"] = "sha256:bb"
    printed = dry(world, task)
    assert printed[-2:] == ["would build api: image shop-api is not here", "would create api: it has no container"]
    assert (world.calls, world.boxes) == ([], {})
    # What a real run does is what was printed.
    assert run(world, "services.start", *QUICK).code == 0
    assert [call for call in world.calls if "compose" in call] == ["compose build api", "compose create db api"]
    assert dry(world, "services.start")[0].startswith("would check db") or dry(world, "services.start") == [
        "nothing to do: all is ready"
    ]


def test_profiles_are_activated_by_name(world: World) -> None:
    world.services(web=plain(), debug=plain(profiles=["tools"]))
    assert set(by_name(start(world))) == {"web"}
    assert set(by_name(start(world, "-s", "debug"))) == {"debug"}
    assert run(world, "services.start", "-s", "debog").code == 2


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_ctrl_c(world: World, words: tuple[str, ...]) -> None:
    world.services(db=server(), slow=server(healthy=None), api=plain(depends_on=after(db="healthy", slow="healthy")))
    world.at(5, world.interrupt)
    result = run(world, "services.start", *QUICK, *words)
    assert result.code == 130, result
    assert "error: interrupted; ready: db; starting: slow; not started: api" in result.stderr
    if words:
        assert result.json()["ok"] is False
    # Nothing of it goes on.
    calls = list(world.calls)
    world.clock.sleep(1000)
    assert world.calls == calls


def test_restart_and_its_document(world: World) -> None:
    world.services(db=server(), api=plain(depends_on=after(db="healthy restart")))
    assert run(world, "services.start", *QUICK).code == 0
    assert dry(world, "services.restart") == ["nothing changed"]
    assert dry(world, "services.restart", "-s", "db") == [
        "would restart db: it was asked for by name",
        "would restart api: db is renewed, and api asks to follow it",
    ]
    document = run(world, "services.restart", "--json", *QUICK, "-s", "db").json()
    assert document["changed"] == [{"service": "db", "cause": "it was asked for by name"}]
    assert {name: each["attempts"] for name, each in by_name(document).items()} == {"db": 1, "api": 1}


@pytest.mark.parametrize("task", ["services.start", "services.restart", "services.wait"])
def test_an_unknown_name(world: World, task: str) -> None:
    world.services(api=plain(), db=plain())
    result = run(world, task, "-s", "apj")
    assert (result.code, "'api'" in result.stderr, world.calls) == (2, True, [])


@pytest.mark.parametrize(("healthy", "told"), [(None, "unhealthy: web"), (0.0, "nothing changed")])
def test_a_restart_that_has_nothing_to_do(world: World, healthy: float | None, told: str) -> None:
    world.services(web=lives(Life(healthy=healthy), healthcheck=check(interval=1, retries=1)))
    world.compose.create(["web"])
    world.compose.start(["web"])
    world.clock.sleep(10)
    result = run(world, "services.restart")
    assert result.code == 0, result
    assert "nothing changed" in result.stdout
    assert told in result.stdout
    assert ("unhealthy" in result.stdout) is (healthy is None)


@pytest.mark.parametrize("word", ["up", "up.all", "services.start"])
def test_the_whole_start_has_its_names(world: World, word: str) -> None:
    world.services(web=plain())
    result = run(world, word, "--json", "--no-fixes")
    assert result.code == 0, result
    assert [each["name"] for each in result.json()["services"]] == ["web"]


@pytest.mark.parametrize(("api", "code"), [(plain(), 0), (lives(dies(1)), 1)])
def test_the_document_of_a_start_and_then_a_service_has_both(world: World, api: Fake, code: int) -> None:
    world.services(db=server(), api=api, unrelated=plain())
    result = run(world, "services.start", "-s", "db", "--json", *QUICK, "up.api", "--json")
    assert result.code == code, result
    document = result.json()
    check_start_document(document)
    assert document["ok"] is (code == 0)
    assert set(by_name(document)) == {"db", "api"}


def test_a_stop_that_was_killed_before_anything_stopped_is_over_with_the_next_start(world: World) -> None:
    world.services(web=plain(), db=plain()).start()
    journal = Journal(world.state)
    steps = {world.box(name).run_key: "" for name in ("web", "db")}
    journal.begin(stop.TASK, {"engine_time": world.clock.now().isoformat()}, steps).give_up()
    told = run(world, "services.start", *QUICK, "-s", "web").stderr
    assert "a stop was interrupted; still running: db; `inv services.stop -s db` finishes it" in told
    assert "interrupted" not in run(world, "services.start", *QUICK).stderr
    assert journal.unfinished() == []
    world.kill("web", 1)
    assert stop.stopped_on_purpose(journal.runs(), world.of("web")) == frozenset()


STACK: dict[str, Fake] = {
    "db": server(healthy=1),
    "cache": server(healthy=1, depends_on=after(base="started")),
    "base": plain(),
    "bad": one_shot(7, log=("out of paper",)),
    "unrelated": plain(),
}


def up(world: World, *words: str, graph: bool = True, env: dict[str, str] | None = None) -> Result:
    return run(world, *words, graph=graph, env=env)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "stock"])
class TestServiceTasks:
    def test_one_service(self, world: World, graph: bool) -> None:
        world.services(**STACK)
        result = up(world, "up.cache", "--json", graph=graph)
        assert result.code == 0, result
        found = {each["name"]: each["state"] for each in result.json()["services"]}
        assert found == {"base": "running", "cache": "healthy"}
        assert world.of("db") == []

    def test_several(self, world: World, graph: bool) -> None:
        world.services(**STACK)
        assert up(world, "up.base", "up.cache", "up.db", graph=graph).code == 0
        assert all(world.runs(name) for name in ("base", "cache", "db"))
        assert world.of("unrelated") == []

    def test_one_that_fails(self, world: World, graph: bool) -> None:
        world.services(**STACK)
        result = up(world, "up.bad", "up.db", graph=graph)
        assert result.code == 1, result
        assert "3 attempts" in result.stderr
        assert "out of paper" in result.stderr
        assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
        assert world.of("db") == []

    def test_conditions_and_what_nobody_insists_on(self, world: World, graph: bool) -> None:
        world.services(
            db=server(healthy=1),
            m=one_shot(takes=2, depends_on=after(db="healthy")),
            opt=one_shot(1),
            api=plain(depends_on=after(m="completed", opt="healthy optional")),
        )
        result = up(world, "up.api", graph=graph)
        assert result.code == 0, result
        assert world.runs("api")
        assert "going on without it" in result.stderr
        begun, ended = world.box("api").started_at, world.box("m").finished_at
        assert begun and ended and begun >= ended


def test_a_shared_dependency_starts_once_and_failures_skip_by_name(world: World) -> None:
    world.services(
        base=lives(dies(9), healthcheck=check()),
        left=plain(depends_on=after(base="healthy")),
        right=plain(depends_on=after(base="healthy")),
        top=plain(depends_on=after(left="started", right="started", fine="started")),
        fine=plain(),
    )
    result = up(world, "up.top", env={"INVOKE_STACKHAND_START_RETRIES": "2"})
    assert result.code == 1, result
    assert world.runs("fine")
    assert {f"skipped {name}: base failed" for name in ("left", "right", "up.top")} <= set(result.stderr.splitlines())
    assert result.stderr.count("attempt 2 of 2") == 1


def test_side_by_side(world: World) -> None:
    world.services(
        db=server(healthy=20), cache=server(healthy=20), app=plain(depends_on=after(db="healthy", cache="healthy"))
    )
    assert up(world, "up.app").code == 0
    assert world.clock.monotonic() < 25
