"""What the post-startup fixes cost with many Celery workers: `services.fixes` with 30 that are all well.

Then the same beside two programs that keep a core busy each. A run counts only when no check failed and nothing was
changed: a busy machine is no reason to call a worker broken.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from common import LIMIT, Bound, InvalidRunError, Options, Project, Report, main, measure, say
from reference import reference

WORKERS = 30
QUIET, BUSY = "services.fixes", "beside two busy programs"
_COMPOSE = "compose.workers.yaml"


def compare(options: Options) -> Report:
    """Run the fixes on a stack of workers that needs none, alone and beside two busy programs."""
    report = Report(f"post-startup fixes, {WORKERS} healthy Celery workers")
    with reference(options) as stack:
        _add_workers(stack)
        before = stack.identities()
        for _ in range(options.runs):
            report.add(QUIET, _fixes(stack, options))
            with _busy(2):
                report.add(BUSY, _fixes(stack, options))
        if stack.identities() != before:
            raise InvalidRunError("a container is not the one that it was before")
    report.bounds = [Bound(f"seconds with {WORKERS} workers", report.median(QUIET), 20.0)]
    return report


def _add_workers(stack: Project) -> None:
    """Start workers like the reference stack's own, each a service of its own, and wait until they take tasks.

    They have no healthchecks: each one of those imports Celery, so that 30 every ten seconds need more than two cores.
    """
    worker = {"extends": {"file": "compose.yaml", "service": "worker"}, "healthcheck": {"disable": True}}
    more = {f"worker-{number}": worker for number in range(2, WORKERS + 1)}
    (stack.folder / _COMPOSE).write_text(json.dumps({"services": more}))
    stack.env["COMPOSE_FILE"] = f"compose.yaml:{_COMPOSE}"
    say(f"  starting {len(more)} more workers")
    stack.compose("up", "-d")
    began = time.monotonic()
    while not all(
        b" ready." in stack.client.logs(each["Id"]) for name, each in stack.containers().items() if name in more
    ):
        if time.monotonic() - began > LIMIT:
            raise InvalidRunError(f"not all workers were ready after {LIMIT} s")
        time.sleep(1)


def _fixes(stack: Project, options: Options) -> float:
    done = measure([*options.stackhand, "services.fixes", "--json"], stack.folder, stack.env)
    document = json.loads(done.stdout)
    if done.code or document["fixes"]:
        raise InvalidRunError(f"services.fixes ended with {done.code} and found {document}")
    well = [each for each in document["findings"] if each["id"] == "celery.answers" and each["status"] == "ok"]
    if len(well) != WORKERS:
        raise InvalidRunError(f"{len(well)} of {WORKERS} workers were seen to answer: {document}")
    say(f"  services.fixes: {done.seconds:.2f} s")
    return done.seconds


@contextlib.contextmanager
def _busy(number: int) -> Iterator[None]:
    """Keep so many cores busy."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for each in programs:
            each.kill()
            each.wait()


if __name__ == "__main__":
    main(compare, runs=3)
