"""The critical path of a run, and what each service waited for: pure functions on records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stackhand.engine.compose.project import Dependency, Project
from stackhand.services.start.record import Record


def gate_time(record: Record, dependency: Dependency) -> float | None:
    """Return when a dependency was fulfilled, in seconds since the run began; None if it was before, or never."""
    if record.kept:
        return None
    return record.started if dependency.condition == "service_started" else record.ready


def waited_for(project: Project, name: str, records: Mapping[str, Record]) -> tuple[str, ...]:
    """Return the dependencies that `name` had to wait for, the one that held it up longest first."""
    gates = _gates(project, name, records)
    return tuple(service for service, _ in sorted(gates, key=lambda gate: -gate[1]))


def critical_path(project: Project, records: Mapping[str, Record]) -> tuple[str, ...]:
    """Return the chain of services that decided how long the start took, first to last.

    It ends with the service that was ready last, and before each stands the dependency it waited for longest.
    """
    timed = [record for record in records.values() if record.ready is not None and not record.kept]
    if not timed:
        return ()
    path = [max(timed, key=lambda record: record.ready or 0.0).name]
    while True:
        waited = waited_for(project, path[0], records)
        if not waited or waited[0] in path:
            return tuple(path)
        path.insert(0, waited[0])


def _gates(project: Project, name: str, records: Mapping[str, Record]) -> Iterable[tuple[str, float]]:
    for dependency in project.services[name].depends_on:
        record = records.get(dependency.service)
        at = gate_time(record, dependency) if record else None
        if at is not None:
            yield dependency.service, at
