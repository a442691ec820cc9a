"""Services respond, seen from outside: their containers run, and their healthchecks are content."""

from __future__ import annotations

from collections.abc import Iterable

from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.model import Finding, Status
from stackhand.services.start.remember import COMPLETED
from stackhand.services.status import ServiceStatus, status
from stackhand.services.stop import stopped_on_purpose


def check_ready(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that a service is ready still."""
    states = status(
        context.engine,
        context.project,
        [service],
        context.redact,
        containers=context.containers(),
        proven=context.verified_healthy,
        completed=COMPLETED.read(context.state),
        doubting=True,
    )
    return [_intended(context, each) or judge_service(each) for each in states]


def _intended(context: CheckContext, state: ServiceStatus) -> Finding | None:
    """Return the finding about a service that may well be meant not to run, None where nothing speaks for that.

    Nobody has to have started all of a project; what was stopped with `services.stop` was meant so; and whether one
    that ended with 0 has done its work or was stopped by hand is not to be seen.
    """
    name = state.name
    stopped = stopped_on_purpose(context.state)
    ended_well = state.state == "exited" and all(each.exit_code == 0 and not each.error for each in state.containers)
    if name in context.named or context.has_pending_restart(state.containers):
        return None
    if state.containers and all(each.run_key in stopped for each in state.containers):
        return _left_alone(name, "skip", "`inv services.stop` stopped it")
    if state.state == "missing" and not state.containers and not _is_needed(context, name):
        return _left_alone(name, "skip", "it was never started")
    # With a restart policy like `always`, it is meant to run for ever.
    may_end = context.project.services[name].restart in ("", "no", "on-failure")
    if ended_well and may_end and not _is_needed(context, name):
        return _left_alone(name, "warn", "it has ended by itself, or was stopped: exit code 0")
    return None


def _is_needed(context: CheckContext, name: str) -> bool:
    """Return whether something that runs depends on a service."""
    return any(entry.required and context.running(service.name) for service, entry in context.project.dependants(name))


def _left_alone(name: str, status: Status, summary: str) -> Finding:
    return Finding("services.ready", name, "services", status, summary, remedy=f"`inv up.{name}` starts it")


def judge_service(state: ServiceStatus) -> Finding:
    """Return the finding about one service's state."""
    if state.ready:
        return Finding("services.ready", state.name, "services", "ok", f"it is {state.state}")
    startable = state.state in ("exited", "missing", "created", "dead")
    remedy = f"`inv services.logs -s {state.name}` says more"
    if startable:
        remedy = f"`inv up.{state.name}` starts it"
    elif state.state == "paused":
        remedy = f"somebody paused it: `docker compose unpause {state.name}`"
    return Finding(
        "services.ready",
        state.name,
        "services",
        "fail",
        f"it is {state.state}",
        evidence=state.detail,
        remedy=remedy,
        fixable=startable,
    )


def _start(context: CheckContext, finding: Finding) -> None:
    context.actions.start(finding.service or "")


CHECKS = (Check("services.ready", "services", check_ready),)
FIXES = {"services.ready": Fix("start", _start)}
