"""40 services in 5 levels with `interval: 1s`: where the engine probes often itself, there is little to
gain.

`services.start` must not be slower than `docker compose up -d --wait`, and must stay small: its own
process, and all its processes together at any one moment, where shared pages count once.
"""

from __future__ import annotations

from common import Bound, Options, Report, main, project
from graphs import fast_probes

COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start"
MEMORY_LIMIT = 150.0


def compare(options: Options) -> Report:
    """Start the graph with both sides in turns, watching the memory of both."""
    services = fast_probes()
    report = Report("40 services in 5 levels, interval 1 s, each ready after 1 s")
    with project(options, "fast", services) as stack:
        for _ in range(options.runs):
            done = stack.compose_up(memory=True)
            stack.require_order(services)
            report.add(COMPOSE, done.seconds)
            report.add("compose: all its processes, MB", done.memory.family)
            stack.remove()

            done, _ = stack.services_start(memory=True)
            stack.require_ready()
            stack.require_order(services)
            report.add(STACKHAND, done.seconds)
            report.add("stackhand: its own process, MB", done.memory.process)
            report.add("stackhand: its largest child, MB", done.memory.largest_child)
            report.add("stackhand: all its processes, MB", done.memory.family)
            stack.remove()
    report.bounds = [
        Bound("time / compose's time", report.median(STACKHAND) / report.median(COMPOSE), 1.0),
        Bound("own process", max(report.rows["stackhand: its own process, MB"]), MEMORY_LIMIT, " MB"),
        Bound("all processes", max(report.rows["stackhand: all its processes, MB"]), MEMORY_LIMIT, " MB"),
    ]
    report.notes = ["memory: peaks, looked at every 50 ms; the largest child is a `docker compose` process"]
    return report


if __name__ == "__main__":
    main(compare, runs=3)
