"""Seven services in four levels: `services.start` against `docker compose up -d --wait`.

Every service has a healthcheck with `interval: 10s`, is ready 1 s after its container's start, and waits
until the services it depends on are healthy. Both sides begin with no containers and no network; the
image is there.
"""

from __future__ import annotations

from common import Bound, InvalidRunError, Options, Report, main, project
from graphs import critical_levels, seven

COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start"
AGAIN = "services.start with nothing to do"
ALONE = "critical path, each service alone"
REPORTED = "critical path, sum of ready_after"


def compare(options: Options) -> Report:
    """Start the graph with both sides in turns, then once more with nothing to do."""
    services = seven()
    report = Report("seven services in four levels, interval 10 s, each ready after 1 s")
    with project(options, "seven", services) as stack:
        for _ in range(options.runs):
            report.add(COMPOSE, stack.compose_up().seconds)
            stack.require_order(services)
            stack.remove()

            done, document = stack.services_start()
            stack.require_ready()
            stack.require_order(services)
            report.add(STACKHAND, done.seconds)
            path = document["critical_path"]
            ready_after = {each["name"]: each["ready_after"] for each in document["services"]}
            report.add(REPORTED, sum(ready_after[name] for name in path))

            before = stack.identities()
            done, _ = stack.services_start()
            if stack.identities() != before:
                raise InvalidRunError("a start with nothing to do has replaced or restarted containers")
            report.add(AGAIN, done.seconds)

            stack.compose("stop", "--timeout", "0")
            report.add(ALONE, sum(stack.ready_alone(name) for name in path))
            stack.remove()

    levels = critical_levels(services)
    took = report.median(STACKHAND)
    report.bounds = [
        Bound("time / compose's time", took / report.median(COMPOSE), 0.20),
        Bound("time / critical path, each service alone", took / report.median(ALONE), 1.3),
        Bound("time / critical path, sum of ready_after", took / report.median(REPORTED)),
        Bound(f"time / {levels} levels of 1 s", took / sum([1.0] * levels)),
        Bound("start with nothing to do", report.median(AGAIN), 1.0, " s"),
    ]
    report.notes = [
        "alone: from the engine's start call until the healthcheck first succeeds, nothing else going on",
        "ready_after: as stackhand reports it, from the moment the container runs; leaves out starting it",
        "after a start with nothing to do, ids and times of start of all containers were the same",
    ]
    return report


if __name__ == "__main__":
    main(compare, runs=3)
