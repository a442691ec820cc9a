"""The kind celery: workers. Beat and Flower are none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.checks.traits import Traits
from stackhand.kinds.celery.facts import VALUED, CeleryFacts, look
from stackhand.model import Finding

_MEGABYTE = 1024 * 1024
_FULL = 0.9
_PROBE = re.compile(r"celery\b.*\b(inspect|status)\b")
# Projects made of a well-known template start theirs with `/start-celeryworker`.
_SCRIPT = re.compile(r"(^|[-_.])celery[-_]?worker([-_.]|$)")
# A warm shutdown lets tasks end; a start imports the application.
_RESTART = 30.0


class Celery(Kind[CeleryFacts]):
    """A worker answers by remote control, and consumes its queues."""

    name = "celery"
    programs = frozenset({"celery"})
    every_container = True

    def matches(self, shown: Traits) -> bool:
        """Return whether the command starts a worker; an unseen one is known by a healthcheck that inspects."""
        if "celery" in shown.programs:
            return "worker" in subcommands(shown.argv)
        if any(_SCRIPT.search(name) for name in shown.started):
            return True
        return not shown.programs and bool(_PROBE.search(shown.probe))

    def collect(self, context: CheckContext, service: str) -> CeleryFacts:
        """Ask for ping, active queues and statistics."""
        return look(context, service)

    def checks(self) -> Sequence[Check]:
        """Return: does it answer, does it consume, does its pool fit its limits."""
        return (
            *super().checks(),
            Check("celery.consumes", "services", lambda context, one: judge_queues(one, context.facts(self, one))),
            Check("celery.pool", "tuning", lambda context, one: judge_pool(one, context.facts(self, one))),
        )

    def fixes(self) -> Mapping[str, Fix]:
        """Return how a worker that has stopped listening comes back: by a restart."""
        return {"celery.consumes": Fix("restart", self._restart, patience=_RESTART)}

    def _restart(self, context: CheckContext, finding: Finding) -> None:
        service = finding.service or ""
        running = [each for each in context.containers() if each.service == service and each.running]
        if len(running) > 1:
            # The others are busy, and well.
            for container in running:
                if container.name == finding.subject:
                    with context.restarting(service):
                        context.engine.restart(container.id)
        else:
            context.restart(service)


def subcommands(argv: Sequence[str]) -> list[str]:
    """Return what a command has celery do; for each time that it starts it, where it does so more than once.

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


def judge_queues(service: str, facts: CeleryFacts) -> Iterable[Finding]:
    """Judge whether the worker takes tasks: after its broker restarted it may answer pings and take none."""
    missing = sorted(facts.wanted - facts.queues)
    evidence = f"active queues: {', '.join(sorted(facts.queues)) or 'none'}; configured: {_list(facts.wanted)}"
    if facts.queues and not missing:
        yield Finding("celery.consumes", service, "services", "ok", f"it consumes {_list(facts.queues)}")
    elif facts.queues:
        yield Finding(
            "celery.consumes",
            service,
            "services",
            "warn",
            f"it does not consume {', '.join(missing)}",
            evidence,
            f"if it is to: `celery control --destination {facts.name} add_consumer {missing[0]}`, or restart it",
        )
    elif facts.active:
        yield Finding(
            "celery.consumes",
            service,
            "services",
            "fail",
            f"it consumes nothing any more, and still works on {facts.active} tasks",
            evidence,
            "it is restarted once those are done: `inv services.fixes`",
        )
    else:
        yield Finding(
            "celery.consumes",
            service,
            "services",
            "fail",
            "it answers, and consumes nothing",
            evidence,
            f"`docker compose restart {service}`",
            fixable=True,
        )


def judge_pool(service: str, facts: CeleryFacts) -> Iterable[Finding]:
    """Judge the pool's size against the container's limits of CPU and memory."""
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
        yield Finding("celery.pool", service, "tuning", "ok", "its pool fits its limits")
        return
    least = facts.autoscale.partition(",")[2] or "0"
    setting = f"--autoscale={fitting},{min(int(least), fitting)}" if facts.autoscale else f"--concurrency={fitting}"
    remedy = (
        f"`{setting}` in its command, or a higher limit" if fitting < facts.concurrency else "a higher memory limit"
    )
    yield Finding(
        "celery.pool", service, "tuning", "warn", "its pool is too large for its limits", "; ".join(problems), remedy
    )


def _list(queues: Iterable[str]) -> str:
    return ", ".join(sorted(queues)) or "nothing"
