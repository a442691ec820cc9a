"""What a start remembers for the runs after it: nothing that the engine holds tells these things later."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.start.facts import Containers, Facts, fingerprint
from stackhand.services.start.record import Record
from stackhand.state.folder import StateFolder


class StartHistory:
    """Which containers ended by themselves, what they were made from, and the files they started with."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._lock = threading.Lock()

    def keep(
        self,
        project: Project,
        facts: Facts,
        now: Containers,
        records: Mapping[str, Record],
        created: Collection[str],
    ) -> None:
        """Remember what a start has seen: the facts it began with, its records, and the containers at its end.

        `created` are the services that Compose was asked to make containers for: it has kept those that are as they
        should be.
        """
        containers = [each for some in now.values() for each in some]
        with self._lock:
            known, done = self._state.made, self._state.completed
            made = {each.id: known[each.id] for each in containers if each.id in known}
            for each in containers:
                wanted = facts.hashes.get(each.service)
                seen_to = each.service in created and records[each.service].failure is None
                if seen_to and wanted and each.config_hash != wanted:
                    made[each.id] = fingerprint(project.services[each.service], wanted)
            ended = {name for name, record in records.items() if record.state == "completed"}
            runs = [each.run for each in containers if each.stopped and (each.service in ended or each.run in done)]
            if made != known:
                self._state.remember("made", made)
            if set(runs) != done:
                self._state.remember("completed", sorted(runs))

    def keep_files(self, project: Project, facts: Facts, containers: Collection[Container]) -> None:
        """Remember with which files these runs of containers began. They are all containers that there are."""
        with self._lock:
            seen = self._state.files
            runs = mounted.runs_to_remember(project, containers, facts.stamps, seen)
            if runs != seen:
                self._state.remember("files", runs)
