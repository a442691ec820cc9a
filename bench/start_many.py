"""200 services in 20 levels without healthchecks, from stopped: `services.start` against `docker compose up -d --wait`.

Each waits only until another one is started, so what counts is the work for each service. Both sides begin with
containers that were made, have run, and are stopped. stackhand's time is that of `services.start --no-fixes`.
"""

from __future__ import annotations

from common import IMAGE, Bound, InvalidRunError, Options, Project, Report, main, project_of, unique
from graphs import many

COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start --no-fixes"


def compare(options: Options) -> Report:
    """Start the stopped project with both sides in turns."""
    report = Report("200 services in 20 levels without healthchecks, from stopped")
    with project_of(options, many(unique("many"), IMAGE)) as stack:
        stack.compose("up", "-d")
        for _ in range(options.runs):
            stack.compose("stop", "--timeout", "0")
            report.add(COMPOSE, stack.compose_up().seconds)
            _require_all_running(stack)

            stack.compose("stop", "--timeout", "0")
            done, _ = stack.services_start("--no-fixes")
            _require_all_running(stack)
            report.add(STACKHAND, done.seconds)
    report.bounds = [Bound("time / compose's time", report.median(STACKHAND) / report.median(COMPOSE), 1.1)]
    return report


def _require_all_running(stack: Project) -> None:
    idle = [name for name, each in stack.containers().items() if not each["State"]["Running"]]
    if idle:
        raise InvalidRunError(f"not running: {', '.join(idle)}")


if __name__ == "__main__":
    main(compare, runs=3)
