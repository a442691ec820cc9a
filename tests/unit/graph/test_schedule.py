"""The scheduler: a ready set over a pure graph."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from stackhand.errors import DependencyCycle
from stackhand.graph import schedule

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
# Long enough for a machine that does ten other things.
PATIENCE = 30


class Broken(Exception):
    pass


def failing(*names: str, seen: list[str] | None = None) -> Callable[[str], None]:
    def work(name: str) -> None:
        if seen is not None:
            seen.append(name)
        if name in names:
            raise Broken(name)

    return work


@pytest.mark.parametrize("workers", [1, 2, None])
def test_everything_runs_once_and_after_what_it_needs(workers: int | None) -> None:
    graph = {f"n{i}": [f"n{j}" for j in range(i) if (i * j) % 3 == 1] for i in range(40)}
    done: list[str] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        with lock:
            missing = [need for need in graph[name] if need not in done]
        assert not missing
        with lock:
            done.append(name)

    result = schedule.run(graph, work, workers=workers)
    assert result.failed == {}
    assert sorted(done) == sorted(result.done) == sorted(graph)


def test_independent_nodes_overlap() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)
    result = schedule.run({"a": [], "b": [], "c": []}, lambda _: meeting.wait())
    assert sorted(result.done) == ["a", "b", "c"]


def test_a_node_starts_as_soon_as_its_own_needs_are_done() -> None:
    """`late` must not hold up `after_early`: the scheduler does not work level by level."""
    after_early = threading.Event()

    def work(name: str) -> None:
        if name == "late":
            assert after_early.wait(PATIENCE)
        if name == "after_early":
            after_early.set()

    result = schedule.run({"early": [], "late": [], "after_early": ["early"]}, work)
    assert result.done[-1] == "late"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_than_so_many_at_once(workers: int) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1

    schedule.run({number: [] for number in range(12)}, work, workers=workers)
    assert 1 <= most <= workers


def test_one_worker_stays_in_the_calling_thread_and_keeps_the_order() -> None:
    threads: set[threading.Thread] = set()
    seen: list[str] = []

    def work(name: str) -> None:
        threads.add(threading.current_thread())
        seen.append(name)

    schedule.run({"z": [], "a": [], "m": ["z"]}, work, workers=1)
    assert threads == {threading.current_thread()}
    assert seen == ["z", "a", "m"]


@pytest.mark.parametrize("workers", [1, None])
@pytest.mark.parametrize(
    ("graph", "broken", "done", "skipped"),
    [
        (DIAMOND, ["a"], [], {"b": "a", "c": "a", "d": "a"}),
        (DIAMOND, ["b"], ["a", "c"], {"d": "b"}),
        (DIAMOND, ["d"], ["a", "b", "c"], {}),
        ({"a": [], "b": ["a"], "x": [], "y": ["x"]}, ["a"], ["x", "y"], {"b": "a"}),
        ({"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}, ["a"], [], {"b": "a", "c": "a", "d": "a"}),
    ],
)
def test_a_failure_skips_its_dependants_only(
    workers: int | None, graph: dict[str, list[str]], broken: list[str], done: list[str], skipped: dict[str, str]
) -> None:
    seen: list[str] = []
    result = schedule.run(graph, failing(*broken, seen=seen), workers=workers)
    assert sorted(result.done) == done
    assert {name: str(error) for name, error in result.failed.items()} == {name: name for name in broken}
    assert result.skipped == skipped
    assert not set(seen) & set(skipped)


def test_what_two_failures_would_have_needed_is_named_for_one_of_them() -> None:
    result = schedule.run({"a": [], "b": [], "c": ["a", "b"]}, failing("a", "b"))
    assert set(result.failed) == {"a", "b"}
    assert result.skipped["c"] in ("a", "b")
    assert result.done == []


class TestWeakEdges:
    """`after`: wait for it, and go on whatever became of it."""

    def test_waits(self) -> None:
        seen: list[str] = []
        schedule.run({"app": [], "cache": []}, seen.append, after={"app": ["cache"]})
        assert seen == ["cache", "app"]

    @pytest.mark.parametrize("workers", [1, None])
    def test_goes_on_after_a_failure(self, workers: int | None) -> None:
        result = schedule.run({"app": [], "cache": []}, failing("cache"), after={"app": ["cache"]}, workers=workers)
        assert result.done == ["app"]
        assert set(result.failed) == {"cache"}
        assert result.skipped == {}

    def test_goes_on_after_a_skip(self) -> None:
        graph = {"disk": [], "cache": ["disk"], "app": []}
        result = schedule.run(graph, failing("disk"), after={"app": ["cache"]})
        assert result.done == ["app"]
        assert result.skipped == {"cache": "disk"}

    def test_a_hard_edge_beside_it_still_counts(self) -> None:
        graph = {"db": [], "cache": [], "app": ["db"]}
        result = schedule.run(graph, failing("db"), after={"app": ["cache"]})
        assert result.done == ["cache"]
        assert result.skipped == {"app": "db"}

    def test_to_a_node_that_is_not_there(self) -> None:
        assert schedule.run({"app": []}, failing(), after={"app": ["gone"]}).done == ["app"]

    def test_a_cycle_through_one_is_told_before_anything_runs(self) -> None:
        seen: list[str] = []
        with pytest.raises(DependencyCycle):
            schedule.run({"a": ["b"], "b": []}, seen.append, after={"b": ["a"]})
        assert seen == []


@pytest.mark.parametrize(
    ("graph", "circle"),
    [
        ({"a": ["a"]}, {"a"}),
        ({"a": ["b"], "b": ["a"]}, {"a", "b"}),
        ({"a": ["b"], "b": ["c"], "c": ["a"], "x": ["a"], "y": []}, {"a", "b", "c"}),
    ],
)
def test_a_cycle_is_named_in_the_direction_of_needs(graph: dict[str, list[str]], circle: set[str]) -> None:
    seen: list[str] = []
    with pytest.raises(DependencyCycle) as caught:
        schedule.run(graph, seen.append)
    assert seen == []
    names = caught.value.cycle
    assert names[0] == names[-1]
    assert set(names) == circle
    assert all(need in graph[name] for name, need in itertools.pairwise(names))
    assert " → ".join(names) in caught.value.message
    assert caught.value.exit_code == 2


def test_levels_and_order() -> None:
    assert schedule.levels(DIAMOND) == [["a"], ["b", "c"], ["d"]]
    assert schedule.order(DIAMOND) == ["a", "b", "c", "d"]
    assert schedule.levels({"a": ["not here"]}) == [["a"]]
    assert schedule.levels({}) == []


def test_an_interrupt_in_the_calling_thread_leaves_at_once() -> None:
    def work(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule.run({"a": [], "b": ["a"]}, work)


def test_nothing_to_do() -> None:
    assert schedule.run({}, failing()).done == []
