"""The post-startup fixes: check, fix what a finding calls for, look again.

A check returns findings and changes nothing. A fix takes one finding and puts it right. What it did counts only
when the same check, asked again, is content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from stackhand.engine.client import Engine
from stackhand.engine.facts import Container
from stackhand.engine.project import Project
from stackhand.errors import StackError
from stackhand.model import Action, Finding, Outcome, Plan, Report, count_by_status
from stackhand.services.status import ServiceStatus, status


@dataclass(frozen=True)
class Tools:
    """What checks read and fixes act with.

    `start` has a service started and returns whether it got ready; `mask` takes secrets out of other programs' words;
    `locked` holds the project's lock, which `start` does by itself;
    `proven` names services whose healthcheck this run has seen succeed, `completed` runs of containers that ended by
    themselves. `seen` holds the containers, where somebody has just looked.
    """

    project: Project
    engine: Engine
    start: Callable[[str], bool]
    mask: Callable[[str], str]
    locked: Callable[[], AbstractContextManager[None]]
    proven: Collection[str] = ()
    completed: Collection[str] = ()
    seen: list[Sequence[Container]] = field(default_factory=list)

    def containers(self) -> Sequence[Container]:
        """Return the project's containers, read once until `forget`."""
        if not self.seen:
            self.seen.append(self.engine.containers(self.project.name))
        return self.seen[0]

    def forget(self) -> None:
        """Have the containers read anew: something was done to them."""
        self.seen.clear()


@dataclass(frozen=True)
class Step:
    """One of the post-startup fixes: `check` looks, `plan` decides from a finding, `act` does it."""

    check: Callable[[Tools, Sequence[str]], list[Finding]]
    plan: Callable[[Tools, Finding], Action]
    act: Callable[[Tools, Action], None]


def run(tools: Tools, names: Sequence[str]) -> Report:
    """Carry out all steps in order. Returns what was found at the end, and what was done."""
    before: list[Finding] = []
    after: list[Finding] = []
    outcomes: list[Outcome] = []
    for step in STEPS:
        found = step.check(tools, names)
        before += found
        broken = [finding for finding in found if finding.status == "fail" and finding.fixable]
        if not broken:
            after += found
            continue
        done = [(finding, step.plan(tools, finding)) for finding in broken]
        errors = {action: _try(step, tools, action) for _, action in done}
        again = step.check(tools, names)
        after += again
        still = {(finding.id, finding.service, finding.evidence) for finding in again if finding.status == "fail"}
        for finding, action in done:
            left = (finding.id, finding.service, finding.evidence) in still
            error = errors[action] or ("it is still so after the fix" if left else None)
            outcomes.append(Outcome(action, finding.id, error is None, error))
    return Report(tuple(after), tuple(outcomes), count_by_status(tuple(before)))


def plan(tools: Tools, names: Sequence[str]) -> Plan:
    """Return what a run would do now."""
    return Plan(
        tuple(
            step.plan(tools, finding)
            for step in STEPS
            for finding in step.check(tools, names)
            if finding.status == "fail" and finding.fixable
        )
    )


def _try(step: Step, tools: Tools, action: Action) -> str | None:
    tools.forget()
    try:
        step.act(tools, action)
    except StackError as error:
        return tools.mask(error.message)
    return None


# services respond


def check_services(tools: Tools, names: Sequence[str]) -> list[Finding]:
    """Check that every service is ready still."""
    states = status(
        tools.engine,
        tools.project,
        names,
        tools.mask,
        containers=tools.containers(),
        proven=tools.proven,
        completed=tools.completed,
    )
    return [judge_service(each) for each in states]


def judge_service(state: ServiceStatus) -> Finding:
    """Return the finding about one service's state."""
    if state.ready:
        return Finding("services.ready", state.name, "services", "ok", f"it is {state.state}")
    startable = state.state in ("exited", "missing", "created", "dead")
    return Finding(
        "services.ready",
        state.name,
        "services",
        "fail",
        f"it is {state.state}",
        evidence=state.detail,
        remedy=f"`inv up.{state.name}` starts it" if startable else f"`inv services.logs -s {state.name}` says more",
        fixable=startable,
    )


def _plan_start(tools: Tools, finding: Finding) -> Action:
    return Action(finding.service or "", "start", finding.summary)


def _start(tools: Tools, action: Action) -> None:
    if not tools.start(action.service):
        raise StackError(f"{action.service} did not become ready")


# network


def check_network(tools: Tools, names: Sequence[str]) -> list[Finding]:
    """Check that every running container is on all networks that its service is configured for."""
    chosen = [each for each in tools.containers() if each.service in names]
    return [judge_network(tools.project, each) for each in chosen if each.running]


def judge_network(project: Project, container: Container) -> Finding:
    """Return the finding about the networks of one container."""
    wanted = {project.networks[key] for key in project.services[container.service].networks if key in project.networks}
    missing = sorted(wanted - container.networks)
    if not missing:
        return Finding("network.attached", container.service, "network", "ok", "it is on its networks")
    return Finding(
        "network.attached",
        container.service,
        "network",
        "fail",
        f"{container.name} is off its network {missing[0]}",
        evidence=f"{container.name} is attached to {', '.join(sorted(container.networks)) or 'no network'}",
        remedy=f"docker network connect --alias {container.service} {missing[0]} {container.name}",
        fixable=True,
    )


def _plan_connect(tools: Tools, finding: Finding) -> Action:
    name = finding.service or ""
    return Action(name, "connect", finding.summary)


def _connect(tools: Tools, action: Action) -> None:
    with tools.locked():
        _connect_locked(tools, action)


def _connect_locked(tools: Tools, action: Action) -> None:
    service = tools.project.services[action.service]
    for container in tools.engine.containers(tools.project.name, action.service):
        for key in service.networks:
            network = tools.project.networks.get(key)
            if network and network not in container.networks:
                options = (service.raw.get("networks") or {}).get(key) or {}
                tools.engine.connect(container.id, network, options, (service.name, *(options.get("aliases") or ())))


STEPS = (
    Step(check_services, _plan_start, _start),
    Step(check_network, _plan_connect, _connect),
)
