"""Services are ready, seen from outside: their containers run, and their healthchecks pass."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Check, Fix, Verdict, fail, ok, skip, warn
from stackhand.checks.context import CheckContext
from stackhand.checks.restarts import has_pending_restart
from stackhand.services.status import ServiceStatus, status
from stackhand.services.stop import stopped_on_purpose
from stackhand.state.journal import Journal


def check_ready(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a service is still ready."""
    states = status(
        context.engine,
        context.project,
        [service],
        context.state,
        context.redact,
        containers=context.containers(),
        proven=context.verified_healthy,
        doubting=True,
    )
    for state in states:
        start = Fix("start", partial(context.actions.start, state.name), "restart")
        meant = None if state.ready else _stopped_on_purpose(context, state)
        yield meant or evaluate_ready(state, start)


def _stopped_on_purpose(context: CheckContext, state: ServiceStatus) -> Verdict | None:
    """Return the verdict about a service that is perhaps not meant to run, None where nothing suggests that.

    A project need not be started as a whole; `services.stop` stops on purpose; and of a container that ended with 0
    nobody can tell whether its work was done or somebody stopped it.
    """
    name = state.name
    remedy = f"`inv up.{name}` starts it"
    if name in context.named:
        return None
    runs = context.cached(("journal", ""), Journal(context.state).runs)
    if has_pending_restart(runs, state.containers):
        return None
    stopped = stopped_on_purpose(runs, state.containers)
    if state.containers and all(each.run_key in stopped for each in state.containers):
        return skip("`inv services.stop` stopped it", remedy=remedy)
    if state.state == "missing" and not state.containers and not _is_needed(context, name):
        return skip("it was never started", remedy=remedy)
    ended_well = state.state == "exited" and all(each.exit_code == 0 and not each.error for each in state.containers)
    # With a restart policy like `always`, it is meant to run for ever.
    may_end = context.project.services[name].restart in ("", "no", "on-failure")
    if ended_well and may_end and not _is_needed(context, name):
        return warn("it has ended by itself, or was stopped: exit code 0", remedy=remedy)
    return None


def _is_needed(context: CheckContext, name: str) -> bool:
    """Return whether a running service depends on this one."""
    return any(entry.required and context.running(service.name) for service, entry in context.project.dependants(name))


def evaluate_ready(state: ServiceStatus, start: Fix | None = None) -> Verdict:
    """Return the verdict about one service's state; `start` is the fix of one that does not run."""
    if state.ready:
        return ok(f"it is {state.state}")
    startable = state.state in ("exited", "missing", "created", "dead")
    remedy = f"`inv services.logs -s {state.name}` says more"
    if startable:
        remedy = f"`inv up.{state.name}` starts it"
    elif state.state == "paused":
        remedy = f"somebody paused it: `docker compose unpause {state.name}`"
    return fail(f"it is {state.state}", state.detail, remedy, fix=start if startable else None)


CHECKS = (Check("services.ready", "services", check_ready),)
