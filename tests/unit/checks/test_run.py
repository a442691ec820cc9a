"""The driver of the post-startup fixes, with a kind whose service is a dictionary."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import START, container, healthy, project, service

from stackhand.checks.check import Check, NoAnswer, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext, ServiceActions, ServiceKinds
from stackhand.checks.kind import Kind
from stackhand.checks.suite import Limits
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.host.load import CpuLoad
from stackhand.errors import EngineUnreachable, LockHeld, StackError
from stackhand.model import Fix, Report, Strength
from stackhand.services import fixes as fixing
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

World = dict[str, str]


class Toy(Kind[World]):
    """Each entry of its world is a thing that is `right`, `wrong` or `odd` (a warning)."""

    name = "toy"

    def __init__(self, world: World, phases: Mapping[str, str], repair: Callable[[World, str], None]) -> None:
        self.world = world
        self.looks = 0
        self.done: list[str] = []
        self.strengths: dict[str, Strength] = {}
        self.blames: tuple[str, ...] = ()
        self._phases = phases
        self._repair = repair

    def collect(self, context: CheckContext, service: str) -> World:
        self.looks += 1
        if "silent" in self.world:
            raise NoAnswer("it says nothing")
        return dict(self.world)

    def checks(self) -> Sequence[Check]:
        mine = (Check(f"toy.{name}", phase, self._check(name)) for name, phase in self._phases.items())
        return (*super().checks(), *mine)

    def _check(self, name: str) -> Callable[[CheckContext, str], Iterable[Verdict]]:
        def check(context: CheckContext, service: str) -> Iterable[Verdict]:
            state = context.facts(self, service)[name]
            if state == "crash":
                raise ZeroDivisionError("oh")
            fix = Fix(f"mend {name} in", partial(self._mend, name), self.strengths.get(name, "reload"), settle=0.01)
            yield {
                "right": ok(state, subject=name),
                "wrong": fail(state, subject=name, fix=fix, blames=self.blames),
                "hopeless": fail(state, subject=name, blames=self.blames),
                "odd": warn(state, subject=name, fix=fix),
                "strange": warn(state, subject=name),
            }[state]

        return check

    def _mend(self, name: str) -> None:
        self.done.append(name)
        self._repair(self.world, name)


def mend(world: World, name: str) -> None:
    world[name] = "right"


LONG_AFTER_START = START + timedelta(days=9000)


class StubEngine:
    """An engine that has these containers. Its clock is another one than this machine's."""

    alive = True
    load = CpuLoad(2, 0.5, 1.0)

    def __init__(self, containers: Sequence[Any]) -> None:
        self._containers = containers

    def containers(self, project: str, service: str | None = None) -> Sequence[Any]:
        return self._containers

    def answers(self, within: float | None = None) -> bool:
        return self.alive

    def now(self) -> datetime:
        return LONG_AFTER_START

    def cpu_load(self) -> CpuLoad:
        return self.load

    def ask(self, *_: Any, **__: Any) -> ExecResult:
        return ExecResult(0, "", seconds=0.1)


def context(
    folder: Path,
    toy: Toy,
    *,
    containers: Sequence[Any] | None = None,
    redact: Callable[[str], str] = str,
    patience: float = 0.01,
) -> CheckContext:
    hands = ServiceActions(lambda name: None, lambda name: None, lambda name: None, lambda name, command: None)
    return CheckContext(
        project(service("web")),
        StubEngine([healthy()] if containers is None else containers),  # type: ignore[arg-type]
        ServiceKinds({"web": (toy,)}),
        Fixes(patience=patience),
        StateFolder(folder),
        hands,
        redact=redact,
    )


def run(folder: Path, toy: Toy, **more: Any) -> Report:
    return fixing.run(context(folder, toy), ["web"], **more)


def states(report: Report) -> dict[str, str]:
    return {finding.id: finding.status for finding in report.findings}


PHASES = {"role": "databases", "index": "tuning"}


def test_where_all_is_right_it_looks_once_and_does_nothing(tmp_path: Path) -> None:
    toy = Toy({"role": "right", "index": "right"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert report.ok
    assert report.outcomes == ()
    assert toy.looks == 1
    assert toy.done == []
    assert not (tmp_path / ".stackhand").exists()


def test_what_is_wrong_is_mended_and_seen_to_be(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "right"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert report.ok
    assert [(str(each.action), each.ok, each.error) for each in report.outcomes] == [
        ("mend role in web: wrong", True, None)
    ]
    assert report.before["fail"] == 1
    assert report.to_json()["after"]["fail"] == 0


def test_a_warning_is_mended_only_where_that_is_possible(tmp_path: Path) -> None:
    toy = Toy({"role": "strange", "index": "odd"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert toy.done == ["index"]
    assert states(report)["toy.role"] == "warn"
    assert report.ok


def test_what_cannot_be_mended_is_left_alone(tmp_path: Path) -> None:
    toy = Toy({"role": "hopeless", "index": "right"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert not report.ok
    assert report.outcomes == ()


def test_a_fix_that_does_not_help_is_told_and_not_tried_again(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "right"}, PHASES, lambda world, name: None)
    report = run(tmp_path, toy)
    assert not report.ok
    assert toy.done == ["role"]
    assert [(each.ok, each.error) for each in report.outcomes] == [(False, "it is still so after the fix")]


def test_a_fix_after_which_the_service_is_silent_has_not_helped(tmp_path: Path) -> None:
    def kill(world: World, name: str) -> None:
        world["silent"] = ""

    report = run(tmp_path, Toy({"role": "wrong", "index": "right"}, PHASES, kill))
    assert not report.ok
    assert [each.ok for each in report.outcomes] == [False]
    assert states(report)["toy.answers"] == "fail"


@pytest.mark.parametrize("error", [StackError("it said swordfish"), ValueError("swordfish")])
def test_a_fix_that_fails_says_why_without_the_secret(tmp_path: Path, error: Exception) -> None:
    def fail(world: World, name: str) -> None:
        raise error

    toy = Toy({"role": "wrong", "index": "right"}, PHASES, fail)
    masked = context(tmp_path, toy, redact=lambda text: text.replace("swordfish", "***"))
    report = fixing.run(masked, ["web"])
    assert not report.ok
    assert "***" in str(report.outcomes[0].error)
    assert "swordfish" not in str(report.to_json())


def test_phases_come_in_order(tmp_path: Path) -> None:
    toy = Toy({"index": "wrong", "role": "wrong"}, {"index": "tuning", "role": "databases"}, mend)
    run(tmp_path, toy)
    assert toy.done == ["role", "index"]


def test_a_later_phase_is_judged_by_what_an_earlier_fix_left(tmp_path: Path) -> None:
    def mend_all(world: World, name: str) -> None:
        world.update(dict.fromkeys(PHASES, "right"))

    toy = Toy({"role": "wrong", "index": "wrong"}, PHASES, mend_all)
    assert run(tmp_path, toy).ok
    assert toy.done == ["role"]


def test_what_comes_to_light_after_a_fix_is_mended_too(tmp_path: Path) -> None:
    def uncover(world: World, name: str) -> None:
        world[name] = "right"
        if name == "index":
            world["role"] = "wrong"

    toy = Toy({"role": "right", "index": "wrong"}, PHASES, uncover)
    assert run(tmp_path, toy).ok
    assert toy.done == ["index", "role"]


def test_a_check_that_crashes_is_a_finding(tmp_path: Path) -> None:
    toy = Toy({"role": "crash", "index": "wrong"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert states(report)["toy.role"] == "warn"
    assert "ZeroDivisionError" in next(each.evidence for each in report.findings if each.id == "toy.role")
    assert toy.done == ["index"]


def test_a_service_that_is_silent_is_not_asked_more(tmp_path: Path) -> None:
    report = run(tmp_path, Toy({"silent": ""}, PHASES, mend))
    mine = {name: state for name, state in states(report).items() if name.startswith("toy.")}
    assert mine == {"toy.answers": "fail", "toy.role": "skip", "toy.index": "skip"}


def test_what_does_not_run_is_not_asked(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "right"}, PHASES, mend)
    report = fixing.run(context(tmp_path, toy, containers=[container(status="restarting")]), ["web"])
    assert set(states(report)) == {"services.ready"}
    assert toy.looks == 0


def test_a_missing_engine_is_no_finding(tmp_path: Path) -> None:
    toy = Toy({"role": "right", "index": "right"}, PHASES, mend)

    def gone(context: CheckContext, service: str) -> World:
        raise EngineUnreachable("gone")

    toy.collect = gone  # type: ignore[method-assign]
    with pytest.raises(EngineUnreachable):
        run(tmp_path, toy)


def test_another_run_is_not_disturbed(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "right"}, PHASES, mend)
    with StateFolder(tmp_path).lock("update.all"), pytest.raises(LockHeld, match=r"update\.all"):
        run(tmp_path, toy)
    assert toy.done == []


def test_a_plan_is_what_a_run_would_do(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "odd"}, PHASES, mend)
    made, left = fixing.plan(context(tmp_path, toy), ["web"], ["seed"])
    assert left == ()
    assert [str(each) for each in made.actions] == [
        "mend role in web: wrong",
        "mend index in web: odd",
        "run the step seed: fixes.steps names it",
    ]
    assert toy.done == []
    assert not (tmp_path / ".stackhand").exists()


def test_steps_come_last_and_everything_is_asked_again(tmp_path: Path) -> None:
    toy = Toy({"role": "right", "index": "right"}, PHASES, mend)
    report = run(tmp_path, toy, steps={"seed": lambda: toy.world.update(role="hopeless")})
    assert states(report)["fixes.step"] == "ok"
    assert states(report)["toy.role"] == "fail"


def test_a_step_that_fails_is_a_finding(tmp_path: Path) -> None:
    def fail() -> None:
        raise StackError("no seeds")

    report = run(tmp_path, Toy({"role": "right", "index": "right"}, PHASES, mend), steps={"seed": fail})
    assert not report.ok
    assert [(each.summary, each.evidence) for each in report.findings if each.phase == "steps"] == [
        ("the step seed failed", "no seeds")
    ]


def test_of_several_containers_each_is_asked(tmp_path: Path) -> None:
    class Many(Toy):
        every_container = True

        def collect(self, context: CheckContext, service: str) -> World:
            super().collect(context, service)
            return {"role": "wrong" if context.container(service).number == 2 else "right", "index": "right"}

    pair = [healthy(), healthy(number=2)]

    def restart(world: World, name: str) -> None:
        Many.collect = Toy.collect  # type: ignore[method-assign]
        pair[1] = healthy(number=2, started_at=START + timedelta(seconds=9))

    toy = Many({"role": "right", "index": "right"}, PHASES, restart)
    report = fixing.run(context(tmp_path, toy, containers=pair), ["web"])
    assert [str(each.action) for each in report.outcomes] == ["mend role in web: shop-web-2: wrong"]
    assert report.ok
    assert sorted(each.subject for each in report.findings if each.id == "toy.answers") == ["shop-web-1", "shop-web-2"]


def test_a_plan_comes_with_what_it_can_do_nothing_about(tmp_path: Path) -> None:
    made, left = fixing.plan(context(tmp_path, Toy({"role": "hopeless", "index": "right"}, PHASES, mend)), ["web"])
    assert not made
    assert [each.id for each in left] == ["toy.role"]


def test_a_warning_that_could_not_be_mended_is_a_failure(tmp_path: Path) -> None:
    report = run(tmp_path, Toy({"role": "odd", "index": "right"}, PHASES, lambda world, name: None))
    assert not report.ok
    assert states(report)["toy.role"] == "fail"


def test_a_service_that_has_just_started_is_given_time_to_answer(tmp_path: Path) -> None:
    class Slow(Toy):
        def collect(self, context: CheckContext, service: str) -> World:
            if self.looks == 2:
                self.world.pop("silent", None)
            return super().collect(context, service)

    toy = Slow({"silent": "", "role": "right", "index": "right"}, PHASES, mend)
    just_now = LONG_AFTER_START
    place = context(tmp_path, toy, containers=[healthy(started_at=just_now)], patience=30.0)
    report = fixing.run(place, ["web"])
    assert report.ok
    assert report.outcomes == ()
    assert toy.looks == 3


def test_nor_is_one_given_up_whose_dependency_has_just_started(tmp_path: Path) -> None:
    class Lost(Toy):
        """It has lost its connection, and finds it again at the third look."""

        def collect(self, context: CheckContext, service: str) -> World:
            if self.looks == 2:
                self.world.pop("silent", None)
            return super().collect(context, service)

    toy = Lost({"silent": "", "role": "right", "index": "right"}, PHASES, mend)
    long_ago, just_now = healthy(), healthy("db", started_at=LONG_AFTER_START)
    place = context(tmp_path, toy, containers=[long_ago, just_now], patience=30.0)
    place.project = project(service("web", "db"), service("db"))
    report = fixing.run(place, ["web"])
    assert report.ok
    assert toy.looks == 3


def test_a_service_that_answers_only_with_more_time_is_well(tmp_path: Path) -> None:
    class Slow(Toy):
        def collect(self, context: CheckContext, service: str) -> World:
            if context.within(5) < 20:
                raise NoAnswer("no answer within 5 s")
            return super().collect(context, service)

    toy = Slow({"role": "right", "index": "odd"}, PHASES, mend)
    report = run(tmp_path, toy)
    assert report.ok
    assert toy.done == ["index"]
    assert {states(report)[each] for each in ("toy.answers", "toy.role", "toy.index")} == {"ok"}


def test_on_a_busy_machine_nothing_fails_for_want_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(Toy):
        def collect(self, context: CheckContext, service: str) -> World:
            raise NoAnswer(f"no answer within {context.within(5):g} s")

    monkeypatch.setattr(StubEngine, "load", CpuLoad(2, 25.0, 97.0))
    report = run(tmp_path, Busy({"role": "right", "index": "odd"}, PHASES, mend))
    assert report.ok
    finding = next(each for each in report.findings if each.id == "toy.answers")
    assert (finding.status, finding.summary) == ("skip", "not asked in time")
    assert "load average 25.0 on 2 cores" in finding.evidence
    assert "no answer within 20 s" in finding.evidence
    assert finding.remedy


@pytest.mark.parametrize("alive", [True, False])
def test_a_check_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool) -> None:
    class Hanging(Toy):
        def collect(self, context: CheckContext, service: str) -> World:
            threading.Event().wait(30)
            return {}

    monkeypatch.setattr(fixing, "LIMITS", Limits(check=0.05, stretch=2))
    monkeypatch.setattr(StubEngine, "alive", alive)
    toy = Hanging({"role": "right", "index": "right"}, PHASES, mend)
    if not alive:
        with pytest.raises(EngineUnreachable):
            run(tmp_path, toy)
        return
    found = states(run(tmp_path, toy))
    assert (found["toy.answers"], found["toy.role"]) == ("fail", "warn")
    place = context(tmp_path, toy)
    place.kinds = ServiceKinds({"web": (toy,)}, frozenset({("web", "toy")}))
    assert states(fixing.run(place, ["web"]))["toy.answers"] == "skip"


def test_what_another_run_has_put_right_is_not_done_again(tmp_path: Path) -> None:
    toy = Toy({"role": "wrong", "index": "right"}, PHASES, mend)
    place = context(tmp_path, toy)
    lock = place.state.lock

    def lock_late(task: str) -> AbstractContextManager[None]:
        mend(toy.world, "role")  # meanwhile, by the other run
        return lock(task)

    place.state.lock = lock_late  # type: ignore[assignment, method-assign]
    report = fixing.run(place, ["web"])
    assert report.ok
    assert report.outcomes == ()
    assert toy.done == []


def test_weaker_fixes_of_a_service_come_first(tmp_path: Path) -> None:
    toy = Toy({"a": "wrong", "b": "wrong", "c": "wrong"}, dict.fromkeys("abc", "databases"), mend)
    toy.strengths = {"a": "recreate", "b": "restart"}
    assert run(tmp_path, toy).ok
    assert toy.done == ["c", "b", "a"]


def test_a_finding_names_its_cause_and_causes_come_first(tmp_path: Path) -> None:
    db, web = Toy({"silent": ""}, {}, mend), Toy({"role": "hopeless"}, {"role": "databases"}, mend)
    web.blames = ("db",)
    place = CheckContext(
        project(service("web"), service("db")),
        StubEngine([healthy(), healthy("db")]),  # type: ignore[arg-type]
        ServiceKinds({"web": (web,), "db": (db,)}),
        Fixes(patience=0.01),
        StateFolder(tmp_path),
        ServiceActions(lambda name: None, lambda name: None, lambda name: None, lambda name, command: None),
    )
    report = fixing.run(place, ["web", "db"])
    wrong = [each for each in report.findings if each.status == "fail"]
    assert [(each.service, each.id, each.caused_by) for each in wrong] == [
        ("db", "toy.answers", None),
        ("web", "toy.role", ("toy.answers", "db", "")),
    ]
    assert report.to_json()["findings"][-1]["caused_by"] == {"id": "toy.answers", "service": "db", "subject": ""}
