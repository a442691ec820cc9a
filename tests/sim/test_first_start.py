"""Databases that still make their data: the temporary server of their image makes nobody start."""

from __future__ import annotations

import pytest
from sim.services import Fake, Life, after, check, one_shot
from sim.world import World, failure, states

from stackhand.services.status import status


def database(life: Life, **entry: object) -> Fake:
    return Fake({"image": "postgres:18", "healthcheck": check(), **entry}, (life,))


def shop(life: Life, **entry: object) -> dict[str, Fake]:
    return {"db": database(life, **entry), "migrate": one_shot(depends_on=after(db="healthy"))}


def started(world: World, name: str) -> float:
    return next(float(step.split()[0]) for step in world.steps if step.split()[1:3] == [name, "start:"])


@pytest.mark.parametrize("interval", [300, 1])
def test_a_temporary_server_is_not_ready(world: World, interval: float) -> None:
    life = Life(healthy=1, initialising=4)
    report = world.services(**shop(life, healthcheck=check(interval=interval))).start()
    assert states(report) == {"db": "healthy", "migrate": "completed"}
    assert 4 <= started(world, "migrate") < 5.5
    assert sum("its data is still being made" in step for step in world.steps) == 1


def test_where_the_engine_alone_runs_the_healthcheck(world: World) -> None:
    crowd = {f"other{n}": Fake({"healthcheck": check(interval=1)}, (Life(healthy=6),)) for n in range(8)}
    life = Life(healthy=0.5, initialising=4)
    world.services(**shop(life, healthcheck=check(interval=1)), **crowd).start()
    assert 4 <= started(world, "migrate") < 6


def test_what_has_its_data_costs_one_look(world: World) -> None:
    world.services(**shop(Life(healthy=1))).start()
    assert world.calls.count("engine processes db") <= world.calls.count("engine probe db")
    assert started(world, "migrate") < 1.4


def test_where_processes_are_not_to_be_seen_the_healthcheck_counts(world: World) -> None:
    report = world.services(**shop(Life(healthy=1, unseen=True))).start()
    assert states(report) == {"db": "healthy", "migrate": "completed"}
    assert started(world, "migrate") < 1.5


def test_a_second_start_waits_though_the_engine_calls_it_healthy(world: World) -> None:
    world.services(**shop(Life(healthy=0, initialising=30), healthcheck=check(interval=1)))
    first = world.start(timeout=5)
    assert failure(first, "db").kind == "timeout"
    assert "its data is still being made" in failure(first, "db").reason
    assert world.box("db").health == "healthy"
    (shown,) = status(world.engine, world.project, ["db"], world.state, str)
    assert (shown.state, shown.ready) == ("starting", False)
    assert states(world.wait(timeout=2))["db"] == "failed"
    world.steps = []
    report = world.start()
    assert states(report) == {"db": "healthy", "migrate": "completed"}
    assert 22 < started(world, "migrate") < 25  # the two runs before it took 7 s
    (shown,) = status(world.engine, world.project, ["db"], world.state, str)
    assert shown.state == "healthy"


def test_without_a_healthcheck_it_runs_when_its_data_is_made(world: World) -> None:
    world.services(db=Fake({"image": "mysql:8.4"}, (Life(initialising=8),)))
    report = world.start()
    (record,) = report.services
    assert record.state == "running"
    assert 8 <= (record.ready_after or 0) < 10.5


def test_a_moment_without_any_server_is_none_of_the_end(world: World) -> None:
    world.services(db=Fake({"image": "postgres:18"}, (Life(initialising=8, begins_to=1.2),)))
    (record,) = world.start().services
    assert 8 <= (record.ready_after or 0) < 10.5


def test_without_a_healthcheck_and_with_processes_unseen(world: World) -> None:
    world.services(db=Fake({"image": "postgres:18"}, (Life(unseen=True),)))
    (record,) = world.start().services
    assert record.state == "running"
    assert (record.ready_after or 0) < 2.5


def test_a_label_says_that_it_is_no_database(world: World) -> None:
    world.services(**shop(Life(healthy=1, initialising=1000), labels={"stackhand.kind": "none"})).start()
    assert started(world, "migrate") < 1.5
