"""The service graphs that are started: made up, but the same at every run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LABEL = "stackhand.bench"
# Intervals as large self-hosted products set them: most 10 s or 30 s, some 15, 20 or 60 s.
REALISTIC_INTERVALS = (10, 10, 10, 15, 20, 30, 30, 30, 60)


@dataclass(frozen=True)
class Service:
    """One service: what it waits for, how often the engine probes it, how long it takes to get ready."""

    name: str
    depends_on: tuple[str, ...] = ()
    interval: int = 10
    ready_after: float = 1.0

    def definition(self, image: str) -> dict[str, Any]:
        """Return the service as a compose file has it."""
        # /ready is removed first: a container that is started a second time is not ready at once.
        become_ready = f"rm -f /ready; sleep {self.ready_after:g}; touch /ready; exec sleep 3600"
        document: dict[str, Any] = {
            "image": image,
            "init": True,
            "stop_grace_period": "1s",
            "command": ["sh", "-c", become_ready],
            "labels": {LABEL: "true"},
            "healthcheck": {
                "test": ["CMD", "test", "-f", "/ready"],
                "interval": f"{self.interval}s",
                "timeout": "3s",
                "retries": 5,
            },
        }
        if self.depends_on:
            document["depends_on"] = {name: {"condition": "service_healthy"} for name in self.depends_on}
        return document


def compose_file(name: str, services: Sequence[Service], image: str) -> dict[str, Any]:
    """Return a compose file for these services; JSON is YAML, so it may be written as JSON."""
    return {"name": name, "services": {service.name: service.definition(image) for service in services}}


def seven() -> list[Service]:
    """Seven services in four levels: db → pool → api → proxy, and cache, queue, worker beside them."""
    return [
        Service("db"),
        Service("cache"),
        Service("queue"),
        Service("pool", ("db",)),
        Service("api", ("pool", "cache")),
        Service("worker", ("pool", "queue")),
        Service("proxy", ("api",)),
    ]


def levelled(sizes: Sequence[int], dependencies: int, intervals: Sequence[int], seed: int = 2) -> list[Service]:
    """Return services in levels, each waiting for one of the level before; other edges are random."""
    rng = random.Random(seed)
    levels = [[f"l{level}-{number:02}" for number in range(size)] for level, size in enumerate(sizes)]
    edges = {(name, rng.choice(levels[level - 1])) for level in range(1, len(levels)) for name in levels[level]}
    possible = [
        (name, earlier)
        for level in range(1, len(levels))
        for name in levels[level]
        for below in levels[:level]
        for earlier in below
        if (name, earlier) not in edges
    ]
    edges.update(rng.sample(possible, dependencies - len(edges)))
    return [
        Service(
            name,
            tuple(sorted(earlier for later, earlier in edges if later == name)),
            interval=rng.choice(intervals),
        )
        for level in levels
        for name in level
    ]


def large() -> list[Service]:
    """Return 57 services in 5 levels with 240 dependencies and intervals of 10 to 60 s."""
    return levelled((8, 12, 15, 13, 9), 240, REALISTIC_INTERVALS)


def fast_probes() -> list[Service]:
    """Return 40 services in 5 levels with 120 dependencies, each probed by the engine every second."""
    return levelled((8, 8, 8, 8, 8), 120, (1,))


def thirty() -> list[Service]:
    """Return 30 services in 5 levels with 70 dependencies, for a project that is listed, not started."""
    return levelled((6, 6, 6, 6, 6), 70, REALISTIC_INTERVALS)


def many(name: str, image: str) -> dict[str, Any]:
    """Return a compose file of 200 services in 20 levels without healthchecks: each waits for one to be started."""
    usual = {"image": image, "command": ["sleep", "3600"], "network_mode": "none", "stop_grace_period": "0s"}
    services: dict[str, Any] = {f"s{number}": {**usual, "labels": {LABEL: "true"}} for number in range(200)}
    for number in range(10, 200):
        services[f"s{number}"]["depends_on"] = [f"s{number - 10}"]
    return {"name": name, "services": services}


def critical_levels(services: Sequence[Service]) -> int:
    """Return how many services the longest chain of dependencies has."""
    depth: dict[str, int] = {}
    for service in services:  # dependencies come first in every graph above
        depth[service.name] = 1 + max((depth[name] for name in service.depends_on), default=0)
    return max(depth.values())
