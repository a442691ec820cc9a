"""The reference stack, examples/ai-workflow: `services.start` against `docker compose up -d --wait`.

Both sides begin with the stack stopped: images built, databases filled, containers there but not running.
With --fresh the containers and networks are removed as well, the volumes stay.
"""

from __future__ import annotations

import shutil
import socket
import subprocess

from common import (
    CHECKOUT,
    TASKS,
    Bound,
    InvalidRunError,
    Options,
    Project,
    Report,
    cleaned_up,
    folder,
    main,
    say,
    unique,
)

EXAMPLE = CHECKOUT / "examples" / "ai-workflow"
COMPOSE, STACKHAND = "docker compose up -d --wait", "services.start"


def compare(options: Options) -> Report:
    """Start the stack with both sides in turns."""
    fresh = "fresh" in options.flags
    report = Report(f"reference stack, from {'no containers' if fresh else 'stopped'}, images built")
    with folder() as path:
        place = path / "ai-workflow"
        shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns(".stackhand", "__pycache__", "secrets"))
        (place / "tasks.py").write_text(TASKS)
        # Without compose.override.yaml, which is for development; on a port that nobody has.
        stack = Project(
            place,
            unique("reference"),
            options,
            COMPOSE_FILE="compose.yaml",
            AI_WORKFLOW_PORT=str(_free_port()),
        )
        for step in ("make-base-image", "setup"):
            _run(stack, step)
        say("  building the images")
        stack.compose("build", "--quiet")
        with cleaned_up(stack):
            say("  filling the databases")
            stack.compose("up", "-d", "--wait")
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


def _run(stack: Project, script: str) -> None:
    done = subprocess.run(
        [stack.folder / script], cwd=stack.folder, env=stack.env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InvalidRunError(f"{script} failed: {done.stderr.strip()[-500:]}")


def _stop(stack: Project, fresh: bool) -> None:
    if fresh:
        stack.remove(volumes=False)
    else:
        stack.compose("stop")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main(compare, runs=3, flags={"fresh": "remove the containers before each start, keep the volumes"})
