"""The records of a run: made, kept, summed up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.model import Plan
from stackhand.services.start import timeline
from stackhand.services.start.record import READY, Failure, Record, StartReport

Tell = Callable[[str, str, str], None]
"""Takes a service, the kind of step, and a text."""


class RunRecords:
    """What is known of each service that this run has to do with."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.records: dict[str, Record] = {}
        self._insisted: set[str] = set()

    @property
    def proven(self) -> list[str]:
        """The services whose healthcheck this run has seen succeed."""
        return [name for name, record in self.records.items() if record.state == "healthy" and not record.kept]

    def begin(self, names: Collection[str], plan: Plan, containers: Mapping[str, Sequence[Container]]) -> None:
        """Make the records; a service with nothing to do is ready from the beginning."""
        busy = {action.service for action in plan.actions}
        for name in names:
            record = self.records[name] = Record(name)
            if name in busy:
                continue
            mine = containers.get(name, ())
            record.kept, record.started, record.ready, record.ready_after = True, 0.0, 0.0, 0.0
            record.started_at = max((each.started_at for each in mine if each.started_at), default=None)
            record.state = "running"
            if mine and all(each.health == "healthy" for each in mine):
                record.state = "healthy"
            elif mine and all(each.stopped for each in mine):
                record.state = "completed"
            self._tell(name, "kept", record.state)

    def excuse(self, names: Collection[str]) -> None:
        """Record that the run is no failure when these fail: only `required: false` asks for them."""
        for name in names:
            self.records[name].optional = name not in self._insisted

    def insist(self, name: str) -> None:
        """Record that somebody can't do without this service after all."""
        self._insisted.add(name)
        self.records[name].optional = False

    def reopen(self, name: str) -> Record:
        """Return the record of a service that has something to do after all."""
        record = self.records[name]
        record.kept, record.state, record.ready, record.started = False, "waiting", None, None
        return record

    def fail(self, name: str, failure: Failure) -> None:
        """Record that a service failed, and tell."""
        self.records[name].state, self.records[name].failure = "failed", failure
        self._tell(name, "failed", failure.reason)

    def skip(self, name: str, cause: str) -> None:
        """Record that a service was not started because another one failed, and tell."""
        record = self.records[name]
        if name == cause or record.state in ("failed", "skipped"):
            return
        record.state = "skipped"
        record.failure = Failure("dependency", "skipped", f"{cause} failed", retry=False, hint=f"repair {cause} first")
        self._tell(name, "skipped", record.failure.reason)

    def report(self, project: Project, elapsed: float, names: Collection[str]) -> StartReport:
        """Return what became of these services, or of all where none is named."""
        for name, record in self.records.items():
            if not record.kept:
                record.waited_for = timeline.waited_for(project, name, self.records)
            if record.state in ("waiting", "starting"):
                _interrupted(record)
        return StartReport(
            project=project.name,
            elapsed=elapsed,
            services=tuple(self.records[name] for name in project.services if name in (names or self.records)),
            critical_path=timeline.critical_path(project, self.records),
        )

    def where(self) -> str:
        """Return in one line how far the run is: what is ready, what was about to be, what was not begun."""
        groups = (
            ("ready", READY),
            ("starting", ("starting",)),
            ("not started", ("waiting", "skipped")),
            ("failed", ("failed",)),
        )
        found = (
            (title, [name for name, record in self.records.items() if record.state in states])
            for title, states in groups
        )
        return "; ".join(f"{title}: {', '.join(names)}" for title, names in found if names)


def _interrupted(record: Record) -> None:
    """Close the record of a service that the run did not come to, or did not finish with."""
    begun = record.state == "starting"
    record.failure = record.failure or Failure(
        "ready" if begun else "dependency",
        "interrupted",
        "the run was interrupted",
        retry=False,
        hint="start again: it carries on",
    )
    record.state = "failed" if begun else "skipped"
