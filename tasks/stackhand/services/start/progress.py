"""The records of a process: opened, kept up to date, summed up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from stackhand.engine.compose.project import Project
from stackhand.services.start import timeline
from stackhand.services.start.facts import Containers
from stackhand.services.start.plan import StartPlan
from stackhand.services.start.record import READY, Failure, Record, StartReport

Tell = Callable[[str, str, str], None]
"""Takes a service, the kind of step, and a text."""


class RunRecords(Mapping[str, Record]):
    """What is known of each service that this process has to do with, by its name."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._records: dict[str, Record] = {}
        self._required: set[str] = set()

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def proven(self) -> list[str]:
        """The services whose healthcheck this process has seen succeed."""
        return [name for name, record in self.items() if record.state == "healthy" and not record.kept]

    def begin(self, names: Collection[str], plan: StartPlan, containers: Containers) -> None:
        """Open records; a service with nothing to do is ready from the beginning."""
        busy = plan.services()
        for name in names:
            record = self._records[name] = Record(name)
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

    def mark_optional(self, names: Collection[str]) -> None:
        """Record that the run is no failure when these fail: only `required: false` asks for them."""
        for name in names:
            self._records[name].optional = name not in self._required

    def mark_required(self, name: str) -> None:
        """Record that a task can't do without this service after all."""
        self._required.add(name)
        self._records[name].optional = False

    def reopen(self, name: str) -> Record:
        """Return the record of a service that has something to do after all."""
        record = self._records[name]
        record.kept, record.state, record.ready, record.started = False, "waiting", None, None
        record.ready_after = None
        return record

    def fail(self, name: str, failure: Failure) -> Failure:
        """Record that a service failed, and tell. Returns the failure."""
        self._records[name].state, self._records[name].failure = "failed", failure
        self._tell(name, "failed", failure.reason)
        return failure

    def complete(self, name: str) -> None:
        """Record that a service that was ready has ended since, its work done, and tell."""
        self._records[name].state = "completed"
        self._tell(name, "ready", "completed")

    def skip(self, name: str, cause: str) -> None:
        """Record that a service was not started because another one failed, and tell."""
        record = self._records.setdefault(name, Record(name))
        if name == cause or record.state in ("failed", "skipped"):
            return
        record.state = "skipped"
        record.failure = Failure("dependency", "skipped", f"{cause} failed", retry=False, hint=f"repair {cause} first")
        self._tell(name, "skipped", record.failure.reason)

    def report(self, project: Project, elapsed: float, names: Collection[str] = ()) -> StartReport:
        """Return what became of these services, or of all where none is named.

        A service that the run did not come to, or did not finish with, counts as interrupted.
        """
        for name, record in self.items():
            if not record.kept:
                record.waited_for = timeline.waited_for(project, name, self)
            if record.state in ("waiting", "starting"):
                _interrupted(record)
        return StartReport(
            project=project.name,
            elapsed=elapsed,
            services=tuple(self[name] for name in project.services if name in (names or self)),
            critical_path=timeline.critical_path(project, self),
        )

    def where(self) -> str:
        """Return in one line how far the run is: ready, starting, not started, failed."""
        groups = (
            ("ready", READY),
            ("starting", ("starting",)),
            ("not started", ("waiting", "skipped")),
            ("failed", ("failed",)),
        )
        found = ((title, [name for name, record in self.items() if record.state in states]) for title, states in groups)
        return "; ".join(f"{title}: {', '.join(names)}" for title, names in found if names)


def _interrupted(record: Record) -> None:
    begun = record.state == "starting"
    record.failure = record.failure or Failure(
        "ready" if begun else "dependency",
        "interrupted",
        "the run was interrupted",
        retry=False,
        hint="start again: it carries on",
    )
    record.state = "failed" if begun else "skipped"
