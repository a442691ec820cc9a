"""57 services in 5 levels with 240 dependencies: `services.start` against `docker compose up -d --wait`.

Healthchecks have intervals of 10 to 60 s, as large self-hosted products set them; every service is ready
1 s after its container's start. The engine's own limit is measured in the same run: `docker compose
create`, then all containers started at once through the engine's interface, waiting for nothing.
"""

from __future__ import annotations

from common import Bound, Options, Report, main, project
from graphs import large

COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start"
LIMIT = "create, and all started at once"


def compare(options: Options) -> Report:
    """Start the graph with both sides and at once, in turns."""
    services = large()
    report = Report("57 services in 5 levels, 240 dependencies, intervals 10 to 60 s, each ready after 1 s")
    with project(options, "large", services) as stack:
        for _ in range(options.runs):
            report.add(COMPOSE, stack.compose_up().seconds)
            stack.require_order(services)
            stack.remove()

            done, _ = stack.services_start()
            stack.require_ready()
            stack.require_order(services)
            report.add(STACKHAND, done.seconds)
            stack.remove()

            report.add(LIMIT, stack.start_at_once())
            stack.remove()
    took = report.median(STACKHAND)
    report.bounds = [
        Bound("time / compose's time", took / report.median(COMPOSE), 0.15),
        Bound("time / the engine's own limit", took / report.median(LIMIT), 2.0),
    ]
    return report


if __name__ == "__main__":
    main(compare, runs=1)
