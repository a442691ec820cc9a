"""The reference stack, examples/ai-workflow: `services.start` against `docker compose up -d --wait`.

Both sides begin with the stack stopped: images built, databases filled, containers there but not running.
With --fresh the containers and networks are removed as well, the volumes stay.
"""

from __future__ import annotations

from common import Bound, Options, Project, Report, main
from reference import reference

COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start"


def compare(options: Options) -> Report:
    """Start the stack with both sides in turns."""
    fresh = "fresh" in options.flags
    report = Report(f"reference stack, from {'no containers' if fresh else 'stopped'}, images built")
    with reference(options) as stack:
        for _ in range(options.runs):
            _stop(stack, fresh)
            report.add(COMPOSE, stack.compose_up().seconds)
            stack.require_ready()

            _stop(stack, fresh)
            done, _ = stack.services_start()
            stack.require_ready()
            report.add(STACKHAND, done.seconds)
    report.bounds = [Bound("time / compose's time", report.median(STACKHAND) / report.median(COMPOSE), 0.35)]
    return report


def _stop(stack: Project, fresh: bool) -> None:
    if fresh:
        stack.remove(volumes=False)
    else:
        stack.compose("stop")


if __name__ == "__main__":
    main(compare, runs=3, flags={"fresh": "remove the containers before each start, keep the volumes"})
