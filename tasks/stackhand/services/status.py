"""The state of every service at this moment; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError
from stackhand.graph import schedule
from stackhand.kinds.first_start import STILL_INITIALISES, initialises
from stackhand.output.redact import message_of
from stackhand.services.start.facts import HOOKS_INTERRUPTED, NOT_PROVIDED, by_service, done, provided
from stackhand.services.start.jobs import completed_runs
from stackhand.services.start.record import READY
from stackhand.services.start.remember import PROVIDED, unhooked_services
from stackhand.state.folder import StateFolder


@dataclass(frozen=True)
class ServiceStatus:
    """One service. If it is ready, `state` is healthy, running or completed; otherwise missing, exited, unhealthy…"""

    name: str
    state: str
    detail: str
    containers: tuple[Container, ...]

    @property
    def ready(self) -> bool:
        """Whether all of its containers are healthy, running or completed."""
        return self.state in READY

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `services` in the JSON of `services.status`."""
        return {
            "name": self.name,
            "state": self.state,
            "ready": self.ready,
            "detail": self.detail,
            "containers": [
                {
                    "name": each.name,
                    "status": each.status,
                    "health": each.health,
                    "exit_code": each.exit_code if each.stopped else None,
                    "restart_count": each.restart_count,
                    "started_at": each.started_at.isoformat().replace("+00:00", "Z") if each.started_at else None,
                }
                for each in self.containers
            ],
        }


def status(
    engine: Engine,
    project: Project,
    names: Sequence[str],
    state: StateFolder,
    mask: Callable[[str], str],
    *,
    containers: Sequence[Container] | None = None,
    proven: Collection[str] = (),
    doubting: bool = False,
) -> list[ServiceStatus]:
    """Return the state of these services. A healthcheck that the engine has not run yet is run once, now.

    With `doubting`, one that the engine has seen fail is run again, too: the cause may be gone since.

    `state` has what earlier runs have seen. `mask` takes the secrets out of the output of probes and of the engine.
    `containers` saves reading them. `proven` are services whose healthcheck this process has seen succeed.
    """
    if containers is None:
        containers = engine.containers(project.name)
    completed = completed_runs(engine, state, project, containers, names)
    hooking = unhooked_services(state, project, by_service(containers))

    def one(name: str) -> ServiceStatus:
        mine = tuple(each for each in containers if each.service == name)
        if project.services[name].provider:
            ready = provided(project, name, by_service(containers), PROVIDED.read(state))
            return ServiceStatus(name, "running" if ready else "missing", "" if ready else NOT_PROVIDED, ())
        states = [_container_state(engine, project, each, mask, proven, completed, doubting) for each in mine]
        for number, each in enumerate(mine):
            ready = states[number][0] in READY and name not in proven
            if ready and name in hooking:
                states[number] = ("starting", HOOKS_INTERRUPTED)
            elif ready and initialises(engine, project.services[name], each):
                states[number] = ("starting", STILL_INITIALISES)
        return summarise(project, name, mine, states)

    states = schedule.gather({name: partial(one, name) for name in names})
    return [states[name] for name in names]


def summarise(
    project: Project, name: str, containers: tuple[Container, ...], states: Sequence[tuple[str, str]]
) -> ServiceStatus:
    """Return a service's status from the states of its containers: that of the worst."""
    wanted = project.services[name].replicas
    if not containers:
        state = "completed" if wanted == 0 else "missing"
        return ServiceStatus(name, state, "it has no container" if wanted else "0 replicas are wanted", ())
    worst = next((each for each in states if each[0] not in READY), states[0])
    if worst[0] in READY and len(containers) < wanted:
        return ServiceStatus(name, "missing", f"{len(containers)} of {wanted} containers", containers)
    return ServiceStatus(name, *worst, containers)


def _container_state(
    engine: Engine,
    project: Project,
    container: Container,
    mask: Callable[[str], str],
    proven: Collection[str],
    completed: Collection[str],
    doubting: bool,
) -> tuple[str, str]:
    """Return a container's state, and a detail for people."""
    if container.running:
        if project.is_one_shot(container.service):
            return "starting", "it has not completed yet"
        return _running_state(engine, container, mask, proven, doubting)
    if container.stopped:
        if done(project, container, completed):
            return "completed", ""
        killed = ", out of memory" if container.oom_killed else ""
        return "exited", mask(container.error) or f"exit code {container.exit_code}{killed}"
    return container.status, f"restarted {container.restart_count} times" if container.restart_count else ""


def _running_state(
    engine: Engine, container: Container, mask: Callable[[str], str], proven: Collection[str], doubting: bool
) -> tuple[str, str]:
    if container.health == "starting":
        return ("healthy", "") if container.service in proven else _probed(engine, container, mask)
    if container.health == "unhealthy":
        return _probed(engine, container, mask) if doubting else ("unhealthy", mask(container.probe_output))
    return ("running" if container.health == "none" else container.health), ""


def _probed(engine: Engine, container: Container, mask: Callable[[str], str]) -> tuple[str, str]:
    # The brief list of containers lacks the healthcheck.
    check = container.healthcheck or engine.inspect(container.id).healthcheck
    if check is None:
        return "running", ""
    try:
        probe = engine.probe(container.id, check.argv, check.timeout)
    except StackError as error:
        return container.health, message_of(error, mask)
    return ("healthy", "") if probe.ok else (container.health, mask(probe.output))
