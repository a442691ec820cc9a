"""Decides from a snapshot whether a container is ready, may become ready, or has failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import Probe
from stackhand.services.start.record import Failure, State

# A shell's own codes for a command that can't be run; a retry does not help. POSIX, Shell Command Language, 2.8.2.
_CANNOT_RUN = {126: "can't be executed", 127: "was not found"}
# Fewer deaths than this under a restart policy are no restart loop.
_LOOP_DEATHS = 3

# Seconds. What has crashed before has to run as long, however short `start.settle` is.
_LEAST_AFTER_A_CRASH = 1.0

# Seconds. What crashed later after its start has to do with more than its start.
_CRASH_AT_START = 30.0

ALWAYS = ("always", "unless-stopped")
"""The restart policies that start a container again also where it has exited with 0."""
_POLICY_HINT = 'a service that does its work and ends needs `restart: "no"` or `restart: on-failure`'

_FIRST = 1.0
_FIRST_PER_START = 0.1
_SHORT = 2.0
_FEW = 4
_FASTEST = 0.05
# Seconds between two probes, at most.
SLOWEST = 2.0


@dataclass(frozen=True)
class Verdict:
    """`ready` with the state to report, `wait`, or `dead` with the reason."""

    kind: Literal["ready", "wait", "dead"]
    state: State = "starting"
    failure: Failure | None = None


WAIT = Verdict("wait")


@dataclass(frozen=True)
class Expectation:
    """What is expected of a service's containers.

    `one_shot`: another service waits for it to complete. `may_end`: without a healthcheck it counts as completed when
    it exits with 0; not where we have not seen it start, because a server that was stopped looks the same. `settle`:
    seconds it must stay up where it has no healthcheck. `max_restart_loop`: seconds that a restart loop may go on,
    which is as long as our own attempts would take. `retries`: attempts. `restart`: its restart policy.
    """

    one_shot: bool = False
    may_end: bool = True
    settle: float = 1.0
    max_restart_loop: float = 15.0
    retries: int = 3
    restart: str = "no"


def evaluate(
    container: Container,
    expected: Expectation,
    *,
    up: float,
    looping: float | None,
    crashed_after: float | None = None,
    oom: bool = False,
) -> Verdict:
    """Return the verdict about a container.

    `up` is how many seconds its main process has been running, `looping` how many seconds ago it first died
    under its restart policy (None when it has not), `crashed_after` how many seconds its longest run took that ended
    in a crash, `oom` whether the engine reported that it ran out of memory.
    """
    if container.running:
        if up < must_run(container, expected, looping=looping is not None, crashed_after=crashed_after):
            return WAIT
        return _running(container, expected)
    if container.status == "restarting":
        return _loop(container, expected, looping, oom)
    if container.status == "paused":
        return _dead("paused", "it is paused", hint="`docker compose unpause` lets it go on", retry=False)
    if container.stopped:
        return _stopped(container, expected, oom)
    return WAIT  # created, not started yet


def after_probe(container: Container, probe: Probe) -> Verdict:
    """Return the verdict after its healthcheck was run once more."""
    return Verdict("ready", "healthy") if probe.ok and container.running else WAIT


def must_run(container: Container, expected: Expectation, *, looping: bool, crashed_after: float | None) -> float:
    """Return how many seconds a container has to run before it may count as ready.

    One that was seen to crash `crashed_after` so many seconds has to run longer than that, with a healthcheck, too.
    `looping` as in `evaluate`.

    >>> web = Container("1", "web", "web")
    >>> must_run(web, Expectation(), looping=False, crashed_after=None)
    1.0
    >>> must_run(web, Expectation(settle=0), looping=False, crashed_after=2.5)
    3.5
    """
    if crashed_after is not None:
        return crashed_after + max(expected.settle, _LEAST_AFTER_A_CRASH)
    if container.healthcheck is not None:
        return 0.0
    return max(expected.settle, _LEAST_AFTER_A_CRASH) if looping else expected.settle


def crashed_at_start(container: Container) -> float | None:
    """Return how many seconds the last run of a container took that has failed soon after its start, else None.

    It does not say whether somebody has ended that run; only of SIGTERM and SIGKILL that is sure.
    """
    began, ended = container.started_at, container.finished_at
    signalled = container.exit_code in (128 + 15, 128 + 9) and not container.oom_killed
    if not container.stopped or container.exit_code == 0 or signalled or began is None or ended is None:
        return None
    seconds = (ended - began).total_seconds()
    return seconds if 0 <= seconds <= _CRASH_AT_START else None


def worth_probing(interval: float, crowd: int) -> bool:
    """Return whether to run a healthcheck ourselves, in a run that brings up a `crowd` of so many services.

    Where the engine probes every second or two anyway, its own probes of many services use up the machine, and ours
    would only delay them; its health events are enough.

    >>> worth_probing(10, 40), worth_probing(1, 3), worth_probing(1, 40)
    (True, True, False)
    """
    return interval > _SHORT or crowd <= _FEW


def first_probe(starting: int) -> float:
    """Return how many seconds after a container's start to probe it first.

    A probe that comes too early costs the engine a quarter of a start, and so delays the `starting` services whose
    start is under way; where there are none, it costs nobody anything.

    >>> [first_probe(n) for n in (0, 2, 20)]
    [0.0, 0.2, 1.0]
    """
    return min(_FIRST, starting * _FIRST_PER_START)


def pause(elapsed: float, probe_seconds: float, interval: float, *, starting: int = 0, crowd: int = 1) -> float:
    """Return how many seconds to wait before the next probe.

    Often at first, when most services become ready; more slowly the longer it takes and the more a probe costs; while
    others start, and while a `crowd` is being waited for, all the more; and never more slowly than the engine itself
    would probe.

    >>> [round(pause(t, 0.05, 10), 3) for t in (0, 2, 10, 100)]
    [0.05, 0.1, 0.5, 2.0]
    >>> pause(0, 0.125, 10, starting=3), pause(0, 0.125, 10, crowd=12)
    (0.375, 0.75)
    """
    factor = max(3 if starting else 1, crowd / 2 if crowd > _FEW else 1)
    return min(interval, SLOWEST, max(_FASTEST, probe_seconds * factor, 0.05 * elapsed))


def exit_reason(code: int, oom: bool) -> str:
    """Return in words how a container ended."""
    if oom:
        return f"it ran out of memory and was killed (exit code {code})"
    if code in _CANNOT_RUN:
        return f"its command {_CANNOT_RUN[code]} (exit code {code})"
    if code > 128:
        return f"it was ended by signal {code - 128} (exit code {code})"
    return f"it exited with code {code}"


def _running(container: Container, expected: Expectation) -> Verdict:
    if expected.one_shot:
        return WAIT  # ready is when it has completed
    if container.healthcheck is not None:
        # `unhealthy` is no end: many services get there late, and the time limit is ours to keep.
        return Verdict("ready", "healthy") if container.health == "healthy" else WAIT
    return Verdict("ready", "running")


def _stopped(container: Container, expected: Expectation, oom: bool) -> Verdict:
    code = container.exit_code
    if code == 0 and not container.error and (expected.one_shot or (expected.may_end and not container.healthcheck)):
        return Verdict("ready", "completed")
    killed = oom or container.oom_killed
    if code == 0 and not container.error:
        reason = "it exited with code 0 before it was ready"
    else:
        reason = container.error or exit_reason(code, killed)
    return _dead(
        "out_of_memory" if killed else "exited",
        reason,
        code=code,
        retry=code not in _CANNOT_RUN,
        hint=exit_hint(code, killed),
    )


def _loop(container: Container, expected: Expectation, looping: float | None, oom: bool) -> Verdict:
    starts_for_ever = container.exit_code == 0 and expected.restart in ALWAYS
    if starts_for_ever and expected.one_shot:
        return _dead(
            "restart_loop",
            f"it exited with code 0, and its restart policy `{expected.restart}` starts it again: it never completes",
            code=0,
            retry=False,
            hint=_POLICY_HINT,
        )
    if container.restart_count < max(_LOOP_DEATHS, expected.retries) or (looping or 0.0) < expected.max_restart_loop:
        return WAIT
    killed = oom or container.oom_killed
    reason = f"restart loop: {container.restart_count} restarts, last {exit_reason(container.exit_code, killed)}"
    return _dead(
        "restart_loop",
        reason.replace("last it", "it last"),
        code=container.exit_code,
        retry=False,
        hint=_POLICY_HINT if starts_for_ever else exit_hint(container.exit_code, killed),
    )


def exit_hint(code: int, oom: bool) -> str:
    """Return what to do about a container that ended so."""
    if oom:
        return "raise its memory limit (`mem_limit`, `deploy.resources.limits.memory`), or make it need less"
    if code in _CANNOT_RUN:
        return "correct the service's command or entrypoint, or its image"
    return "its last log lines should say why it ended"


def _dead(kind: str, reason: str, *, code: int | None = None, retry: bool = True, hint: str = "") -> Verdict:
    return Verdict("dead", "failed", Failure("ready", kind, reason, retry=retry, exit_code=code, hint=hint))
