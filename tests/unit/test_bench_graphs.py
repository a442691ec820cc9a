"""The graphs of bench/ are what the README says they are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from _imported("graphs", monkeypatch)


@pytest.fixture
def common(graphs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    yield from _imported("common", monkeypatch)


def _imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module(name)
    sys.modules.pop(name)  # such plain names are not to be found by other tests


@pytest.mark.parametrize(
    ("name", "services", "dependencies", "levels"),
    [("seven", 7, 6, 4), ("large", 57, 240, 5), ("fast_probes", 40, 120, 5), ("thirty", 30, 70, 5)],
)
def test_graph_has_the_size_it_claims(
    graphs: ModuleType, name: str, services: int, dependencies: int, levels: int
) -> None:
    made = getattr(graphs, name)()
    assert len({service.name for service in made}) == services
    assert sum(len(set(service.depends_on)) for service in made) == dependencies
    assert graphs.critical_levels(made) == levels


def test_graph_is_the_same_at_every_run(graphs: ModuleType) -> None:
    assert graphs.large() == graphs.large()


def test_large_graph_has_intervals_of_10_to_60_seconds(graphs: ModuleType) -> None:
    intervals = {service.interval for service in graphs.large()}
    assert min(intervals) == 10
    assert max(intervals) == 60


def test_every_service_waits_for_one_of_the_level_before(graphs: ModuleType) -> None:
    for service in graphs.large():
        level = int(service.name[1])
        below = {int(name[1]) for name in service.depends_on}
        assert max(below, default=-1) == level - 1


def test_a_container_that_is_started_again_is_not_ready_at_once(graphs: ModuleType) -> None:
    command = graphs.Service("web").definition("image")["command"]
    assert command[-1].startswith("rm -f /ready; sleep 1;")


def test_a_bound_that_is_only_told_is_neither_met_nor_missed(common: ModuleType) -> None:
    told, met, missed = common.Bound("a", 9.0), common.Bound("b", 1.0, 1.0), common.Bound("c", 1.01, 1.0)
    assert (told.met, met.met, missed.met) == (None, True, False)
    assert common.Report("t", bounds=[told, met]).ok
    assert not common.Report("t", bounds=[told, missed]).ok


def test_report_shows_both_sides_and_the_verdict(common: ModuleType) -> None:
    report = common.Report("title", {"compose": [43.0, 45.0, 44.0], "stackhand": [6.0]})
    report.bounds = [common.Bound("ratio", 0.14, 0.2), common.Bound("memory", 200.0, 150.0, " MB")]
    text = common.as_text(report, "machine")
    assert "44.00" in text
    assert "43.00 45.00 44.00" in text
    assert "≤ 0.2  met" in text
    assert "≤ 150 MB  NOT met" in text


def test_engine_times_have_nanoseconds(common: ModuleType) -> None:
    assert common._when("2026-01-01T00:00:01.250000000Z") == common._when("2026-01-01T00:00:01Z") + 0.25


def test_the_callers_settings_do_not_reach_what_is_measured(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_PROFILES", "dev")
    monkeypatch.setenv("INVOKE_STACKHAND_START_RETRIES", "1")
    kept = common.environment(COMPOSE_PROJECT_NAME="mine")
    assert {name: value for name, value in kept.items() if name.startswith(("COMPOSE_", "INVOKE_"))} == {
        "COMPOSE_PROJECT_NAME": "mine"
    }
