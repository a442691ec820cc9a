"""`up.<service>`: services that tasks bring up, each when the first task needs it, and once for all that do."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Literal

from stackhand.graph.clock import Clock
from stackhand.services.start import sharing
from stackhand.services.start.facts import Facts
from stackhand.services.start.launch import ServiceStart
from stackhand.services.start.limits import Turn
from stackhand.services.start.observe import containers_of
from stackhand.services.start.record import Failure, Record, ServiceFailed
from stackhand.services.start.run import Starter, StartRun


class _Part:
    """One service, and how far it was brought."""

    def __init__(self, clock: Clock) -> None:
        self.starting = Turn(clock)
        self.becoming_ready = Turn(clock)
        self.run: StartRun | None = None
        self.start: ServiceStart | None = None
        self.facts = Facts({})
        self.failure: Failure | None = None
        # Who shared something with it and ran before.
        self.sharers: list[str] = []


class OnDemand:
    """Remembers the services that this process has brought up. They are not looked at again."""

    def __init__(self, starter: Starter) -> None:
        self._begin = starter.begin
        self._records = starter.records
        self._clock = starter.shared.clock
        self._lock = threading.Lock()
        self._parts: dict[str, _Part] = {}

    def up(self, name: str, *, until: Literal["start", "ready"] = "ready") -> Record:
        """Bring one service up whose dependencies have been seen to. Raises ServiceFailed."""
        with self._lock:
            part = self._parts.setdefault(name, _Part(self._clock))
        # Several tasks can need one service, some only started, some ready: the first brings it there for all.
        with part.starting:
            if part.failure:
                raise ServiceFailed(part.failure)
            if part.start is None:
                part.run = self._begin()
                if part.run.project.sharers(name):
                    there = containers_of(part.run.context.shared.engine, part.run.project, brief=True)
                    part.sharers = sharing.running_sharers(part.run.project, name, there)
                try:
                    part.start, part.facts = part.run.start_alone(name)
                except ServiceFailed as failed:
                    part.failure = failed.failure
                    raise
        record = self._records[name]
        if until == "start":
            if record.state in ("waiting", "starting"):
                record.state = "running"
            return record
        with part.becoming_ready:
            if record.ready is None and part.run:
                run = part.run
                with run.locked():
                    part.start.ready()
                    run.remember(part.facts, containers_of(run.context.shared.engine, run.project))
                self._renew_sharers(run, name, part.sharers)
        return record

    def _renew_sharers(self, run: StartRun, name: str, ran: Collection[str]) -> None:
        """Have what runs, or `ran`, and shares something with a service follow it. Raises ServiceFailed."""
        for sharer in sharing.all_sharers(run.project, name):
            there = containers_of(run.context.shared.engine, run.project)
            if sharer in sharing.left_behind(run.project, name, there, ran):
                self.up(sharer)

    def up_if_possible(self, name: str, *, until: Literal["start", "ready"]) -> Failure | None:
        """Bring a service up that no task requires. Returns why it is not up, None when it is."""
        for entry in self._begin().project.services[name].depends_on:
            record = self._records.get(entry.service)
            if entry.required and record and record.state in ("failed", "skipped"):
                self._records.skip(name, entry.service)
                self._records.mark_optional([name])
                return self._records[name].failure
        try:
            self.up(name, until=until)
        except ServiceFailed as failed:
            self._records.mark_optional([name])
            return failed.failure
        return None
