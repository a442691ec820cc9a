"""The one scheduler: runs the nodes of a graph, each as soon as what it needs is done.

>>> from stackhand.graph.schedule import run
>>> seen = []
>>> result = run({"api": ["db"], "db": [], "proxy": ["api"]}, seen.append, workers=1)
>>> seen
['db', 'api', 'proxy']
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Generic, TypeVar

from stackhand.errors import DependencyCycle
from stackhand.graph import clock as clocks
from stackhand.graph.clock import Clock

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
Graph = Mapping[N, Collection[N]]
"""Each node with the nodes it needs."""


@dataclass
class Result(Generic[N]):
    """What became of every node; `skipped` names for each node the failed one it would have needed."""

    done: list[N] = field(default_factory=list)
    failed: dict[N, BaseException] = field(default_factory=dict)
    skipped: dict[N, N] = field(default_factory=dict)


def run(
    graph: Graph[N],
    work: Callable[[N], object],
    *,
    after: Graph[N] | None = None,
    workers: int | None = None,
    clock: Clock | None = None,
) -> Result[N]:
    """Run `work` on every node, `workers` at a time (None: as many as are ready).

    When a node raises an exception, the branches that do not need it are finished, and its dependants are
    skipped. `after` holds weaker edges: a node waits for those too, but runs whatever became of them.

    A node that is alone runs in the calling thread, as all do with one worker; side by side, each runs in a
    thread of its own. KeyboardInterrupt is raised at once; the caller has to stop the nodes that run.

    Raises DependencyCycle before anything runs.
    """
    return _Run(graph, after or {}, work, workers, clock or clocks.SYSTEM).run()


def gather(work: Mapping[str, Callable[[], T]], *, workers: int | None = None) -> dict[str, T]:
    """Call functions side by side, `workers` at a time (None: all), and return what each returned.

    Raises the first error there was, when all ended.

    >>> gather({"one": lambda: 1, "two": lambda: 2}) == {"one": 1, "two": 2}
    True
    """
    results: dict[str, T] = {}

    def one(name: str) -> None:
        results[name] = work[name]()

    failed = run(dict.fromkeys(work, ()), one, workers=workers).failed
    for error in failed.values():
        raise error
    return results


def order(graph: Graph[N]) -> list[N]:
    """Return the nodes so that each comes after what it needs. Raises DependencyCycle."""
    return [node for level in levels(graph) for node in level]


def levels(graph: Graph[N]) -> list[list[N]]:
    """Return the nodes in steps: those that need nothing, those that only need these, and so on.

    Raises DependencyCycle.

    >>> levels({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    [['a'], ['b', 'c'], ['d']]
    """
    sorter = _sorter(graph)
    found: list[list[N]] = []
    while sorter.is_active():
        ready = list(sorter.get_ready())
        sorter.done(*ready)
        found.append(ready)
    return found


def heights(graph: Graph[N]) -> dict[N, int]:
    """Return for each node how long the longest chain is of nodes that need it, one after another.

    >>> heights({"db": [], "api": ["db"], "proxy": ["api"], "cache": []})
    {'db': 2, 'api': 1, 'proxy': 0, 'cache': 0}
    """
    found = dict.fromkeys(graph, 0)
    for node in reversed(order(graph)):
        for need in graph[node]:
            if need in found:
                found[need] = max(found[need], found[node] + 1)
    return found


@dataclass(frozen=True)
class _FinishedMarker(Generic[N]):
    """Stands in a weaker edge for a node: done as soon as that node is done, failed or skipped."""

    node: N


class _Run(Generic[N]):
    """One run of the scheduler: a ready set (graphlib), and the threads that work on it."""

    def __init__(
        self, graph: Graph[N], after: Graph[N], work: Callable[[N], object], workers: int | None, clock: Clock
    ) -> None:
        self._graph = graph
        self._work = work
        self._workers = workers
        self._clock = clock
        self._result: Result[N] = Result()
        self._ended: deque[tuple[N, BaseException | None]] = deque()
        self._one_ended = threading.Condition()
        self._watched = {node for nodes in after.values() for node in nodes if node in graph}
        edges: dict[Any, list[Any]] = {node: list(needs) for node, needs in graph.items()}
        order({node: [*needs, *after.get(node, ())] for node, needs in graph.items()})  # a cycle is told first
        for node, others in after.items():
            edges[node] += [_FinishedMarker(other) for other in others if other in self._watched]
        edges.update({_FinishedMarker(node): [] for node in self._watched})
        self._sorter = _sorter(edges)
        self._heights = heights(graph)

    def run(self) -> Result[N]:
        waiting: list[N] = []
        running = 0
        while True:
            waiting.extend(node for node in self._sorter.get_ready() if not isinstance(node, _FinishedMarker))
            # What the longest chain waits for comes first.
            waiting.sort(key=lambda node: -self._heights[node])
            if not waiting and not running:
                return self._result
            if not running and (len(waiting) == 1 or self._workers == 1):
                self._settle(*self._attempt(waiting.pop(0)))
                continue
            while waiting and (self._workers is None or running < self._workers):
                self._start(waiting.pop(0))
                running += 1
            self._settle(*self._next_end())
            running -= 1

    def _start(self, node: N) -> None:
        def body() -> None:
            try:
                end = self._attempt(node)
            except BaseException as error:
                end = node, error
            with self._one_ended:
                self._ended.append(end)
                self._one_ended.notify()

        self._clock.start_thread(body, str(node))

    def _next_end(self) -> tuple[N, BaseException | None]:
        with self._one_ended:
            self._clock.wait_for(self._one_ended, lambda: bool(self._ended))
            return self._ended.popleft()

    def _attempt(self, node: N) -> tuple[N, BaseException | None]:
        try:
            self._work(node)
        except Exception as error:
            return node, error
        return node, None

    def _settle(self, node: N, error: BaseException | None) -> None:
        if error is None:
            self._result.done.append(node)
            self._sorter.done(node)
            settled = [node]
        else:
            self._result.failed[node] = error  # never done, so what needs it never becomes ready
            lost = _dependants(self._graph, node, self._result.skipped)
            self._result.skipped.update(dict.fromkeys(lost, node))
            settled = [node, *lost]
        for each in settled:
            if each in self._watched:
                self._sorter.done(_FinishedMarker(each))


def _dependants(graph: Graph[N], failed: N, skipped: Collection[N]) -> list[N]:
    """Return all that needs `failed`, directly or not, and was not skipped before."""
    lost: list[N] = []
    queue_ = [failed]
    while queue_:
        cause = queue_.pop()
        for node, needs in graph.items():
            if cause in needs and node not in skipped and node not in lost:
                lost.append(node)
                queue_.append(node)
    return lost


def _sorter(graph: Mapping[Any, Collection[Any]]) -> TopologicalSorter[Any]:
    # An edge to a node that is not in the graph counts as done already.
    sorter = TopologicalSorter({node: [need for need in needs if need in graph] for node, needs in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        # graphlib lists a cycle against the direction of "needs".
        raise DependencyCycle([str(node) for node in reversed(error.args[1])]) from None
    return sorter
