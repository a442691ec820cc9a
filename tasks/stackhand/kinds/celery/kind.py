"""The kind celery: workers. Beat and Flower are not workers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from stackhand.checks.check import Check, Fix, Verdict, fail, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits
from stackhand.kinds.celery.application import SLOW_IMPORT, StillImporting
from stackhand.kinds.celery.facts import CeleryFacts, collect
from stackhand.kinds.celery.process import VALUED

_MEGABYTE = 1024 * 1024
_FULL = 0.9
_PROBE = re.compile(r"celery\b.*\b(inspect|status)\b")
# Projects made of a well-known template start theirs with `/start-celeryworker`.
_SCRIPT = re.compile(r"(^|[-_.])celery[-_]?worker([-_.]|$)")
# Seconds: a warm shutdown lets tasks end, a start imports the application.
_SETTLE = 30.0


class Celery(Kind[CeleryFacts]):
    """A worker answers by remote control, and consumes its queues."""

    name = "celery"
    programs = frozenset({"celery"})
    every_container = True

    def matches(self, shown: Traits) -> bool:
        """Return whether the command starts a worker; where it is not known, the healthcheck says so."""
        if "celery" in shown.programs:
            return "worker" in subcommands(shown.argv)
        if any(_SCRIPT.search(name) for name in shown.started):
            return True
        return not shown.programs and bool(_PROBE.search(shown.probe))

    def collect(self, context: CheckContext, service: str) -> CeleryFacts:
        """Ask for ping, active queues and statistics."""
        return collect(context, service)

    def checks(self) -> Sequence[Check]:
        """Return: does it answer, does it consume, is its application slow, does its pool fit its limits."""
        return (
            *super().checks(),
            Check("celery.consumes", "services", self.check_queues),
            Check("celery.import", "tuning", self.check_import),
            Check("celery.pool", "tuning", self.check_pool),
        )

    def check_queues(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that the worker consumes its queues."""
        restart = Fix("restart", partial(context.restart, service), "restart", _SETTLE)
        yield evaluate_queues(service, context.facts(self, service), restart)

    def check_import(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check how long the import of its application takes."""
        try:
            yield evaluate_import(context.facts(self, service).imported)
        except StillImporting as error:
            yield replace(evaluate_import(error.seconds, ended=False), late=True)

    def check_pool(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check the pool's size against the container's limits."""
        return evaluate_pool(context.facts(self, service))


def subcommands(argv: Sequence[str]) -> list[str]:
    """Return the subcommands of celery in a command, one for each time that the command starts celery.

    >>> subcommands(["celery", "-A", "worker", "beat"])
    ['beat']
    """
    found = []
    for place, program in enumerate(argv):
        if PurePosixPath(program).name == "celery":
            words = iter(argv[place + 1 :])
            for word in words:
                if word in VALUED:
                    next(words, None)
                elif not word.startswith("-"):
                    found.append(word.rstrip(";"))
                    break
    return found


def evaluate_queues(service: str, facts: CeleryFacts, restart: Fix | None = None) -> Verdict:
    """Return whether the worker takes tasks. After its broker restarted it may answer a ping and take no task.

    https://github.com/celery/celery/issues/8030, 8990 and 9054.
    """
    missing = sorted(facts.wanted - facts.queues)
    evidence = f"active queues: {', '.join(sorted(facts.queues)) or 'none'}; configured: {_list(facts.wanted)}"
    if facts.queues and not missing:
        return ok(f"it consumes {_list(facts.queues)}")
    if facts.queues:
        add = f"if it is to: `celery control --destination {facts.name} add_consumer {missing[0]}`, or restart it"
        return warn(f"it does not consume {', '.join(missing)}", evidence, add)
    if facts.active:
        summary = f"it consumes nothing any more, and still works on {facts.active} tasks"
        return fail(summary, evidence, "it is restarted once those are done: `inv services.fixes`")
    return fail("it answers, and consumes nothing", evidence, f"`docker compose restart {service}`", fix=restart)


def evaluate_import(seconds: float, *, ended: bool = True) -> Verdict:
    """Return the verdict about an application whose import takes so many seconds, or more if it has not `ended`."""
    if ended and seconds < SLOW_IMPORT:
        return ok(f"its application is imported in {seconds:.1f} s")
    took = f"{seconds:.0f} s" if ended else f"more than {seconds:.0f} s"
    return warn(
        f"its application is slow to import: it takes {took}",
        "every start of a worker takes that long, and every `celery inspect`, as in a healthcheck",
        "`python -X importtime` with its module shows what is slow; import that inside of the tasks that use it; a "
        "healthcheck that runs `celery` needs a longer timeout",
    )


def evaluate_pool(facts: CeleryFacts) -> Iterable[Verdict]:
    """Yield whether the pool fits the container's limits of CPU and memory; nothing where it has no processes."""
    if not facts.children or not facts.concurrency:
        return
    problems = []
    fitting = facts.concurrency
    if facts.cpus and facts.concurrency > 2 * facts.cpus:
        fitting = min(fitting, max(1, math.floor(2 * facts.cpus)))
        problems.append(f"{facts.concurrency} processes share {facts.cpus:g} CPUs")
    if facts.memory_limit:
        child = max(facts.children)
        needed = facts.main + facts.concurrency * child
        if facts.memory_used > _FULL * facts.memory_limit or needed > facts.memory_limit:
            room = int((_FULL * facts.memory_limit - facts.main) // child) if child else facts.concurrency - 1
            fitting = max(1, min(fitting, room, facts.concurrency - 1))
            problems.append(
                f"{facts.concurrency} processes of {child // _MEGABYTE} MB and the main one of "
                f"{facts.main // _MEGABYTE} MB; used: {facts.memory_used // _MEGABYTE} MB of "
                f"{facts.memory_limit // _MEGABYTE} MB"
            )
    if not problems:
        yield ok("its pool fits its limits")
        return
    least = facts.autoscale.partition(",")[2] or "0"
    setting = f"--autoscale={fitting},{min(int(least), fitting)}" if facts.autoscale else f"--concurrency={fitting}"
    smaller = f"`{setting}` in its command, or a higher limit"
    remedy = smaller if fitting < facts.concurrency else "a higher memory limit"
    yield warn("its pool is too large for its limits", "; ".join(problems), remedy)


def _list(queues: Iterable[str]) -> str:
    return ", ".join(sorted(queues)) or "nothing"
