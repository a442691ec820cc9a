"""What a start writes down for later runs, because the engine does not know it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project
from stackhand.errors import StateFolderUnwritable
from stackhand.services.changes import mounted_files as mounted
from stackhand.services.start.facts import Containers, Facts, fingerprint, unhooked
from stackhand.services.start.record import Record
from stackhand.state.document import Document
from stackhand.state.folder import StateFolder


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()}


def _moments(value: Any) -> dict[str, datetime]:
    return {str(key): datetime.fromisoformat(text) for key, text in value.items()}


def _iso(moments: Mapping[str, datetime]) -> dict[str, str]:
    return {key: moment.isoformat() for key, moment in moments.items()}


def _runs(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise TypeError(value)
    return frozenset(map(str, value))


COMPLETED: Document[frozenset[str]] = Document("completed", _runs, frozenset, sorted)
"""The runs of containers (`Container.run_key`) that were seen to end by themselves, their work done."""
MADE: Document[dict[str, str]] = Document("made", _texts, dict)
"""By a container's id, the fingerprint of what it was made from, where Compose's own hash does not tell."""
FILES: Document[dict[str, dict[str, str]]] = Document(
    "files", lambda value: {str(run): _texts(files) for run, files in value.items()}, dict
)
"""By a container's run, the metadata of the files that it began with; nothing of their content."""


PROVIDED: Document[dict[str, str]] = Document("provided", _texts, dict)
"""By a service that has a provider, the configuration hash with which that said that it is ready."""


HOOKS: Document[dict[str, datetime]] = Document("hooks", _moments, dict, _iso)
"""By service, when the engine was asked for a start whose `post_start` hooks have not all succeeded yet."""


def unhooked_services(state: StateFolder, project: Project, containers: Containers) -> frozenset[str]:
    """Return the services that run although not all of their `post_start` hooks have succeeded, as `unhooked` tells."""
    hooked = any(service.raw.get("post_start") for service in project.services.values())
    return unhooked(project, containers, HOOKS.read(state)) if hooked else frozenset()


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
        """Write down the outcome of a start, from its first facts, its records, and the containers at its end.

        `created` are the services whose containers Compose was asked to make. It keeps a container that is up to date:
        so one that is still there, with another hash, was made from this configuration.
        """
        containers = [each for some in now.values() for each in some]
        with self._lock:
            known, done = MADE.read(self._state), COMPLETED.read(self._state)
            made = {each.id: known[each.id] for each in containers if each.id in known}
            for each in containers:
                wanted = facts.hashes.get(each.service)
                seen_to = each.service in created and records[each.service].failure is None
                if seen_to and wanted and each.config_hash != wanted:
                    made[each.id] = fingerprint(project.services[each.service], wanted)
            ended = {name for name, record in records.items() if record.state == "completed"}
            runs = [
                each.run_key for each in containers if each.stopped and (each.service in ended or each.run_key in done)
            ]
            if made != known:
                MADE.write(self._state, made)
            self._keep_provided(project, facts, records, created)
            if set(runs) != done:
                COMPLETED.write(self._state, frozenset(runs))

    def _keep_provided(
        self, project: Project, facts: Facts, records: Mapping[str, Record], created: Collection[str]
    ) -> None:
        known = PROVIDED.read(self._state)
        provided = {name: known[name] for name in known if name in project.services}
        for name in created:
            if project.services[name].provider and records[name].failure is None:
                provided[name] = facts.hashes.get(name, "")
        if provided != known:
            PROVIDED.write(self._state, provided)

    def hooks_begin(self, name: str, moment: datetime) -> None:
        """Write down that a service is about to be started with its `post_start` hooks; `moment` by the engine's clock.

        If that can't be written, an interrupt of this start goes unnoticed.
        """
        with contextlib.suppress(StateFolderUnwritable):
            HOOKS.update(self._state, lambda known: {**known, name: moment})

    def hooks_end(self, name: str) -> None:
        """Write down that all hooks of a service have succeeded."""
        with contextlib.suppress(StateFolderUnwritable):
            HOOKS.update(self._state, lambda known: {key: known[key] for key in known if key != name})

    def keep_completed(self, containers: Collection[Container], records: Mapping[str, Record]) -> None:
        """Write down which of these runs a start has seen to be completed, where it had nothing to do."""
        ended = {name for name, record in records.items() if record.state == "completed"}
        with self._lock:
            known = COMPLETED.read(self._state)
            runs = known | {each.run_key for each in containers if each.stopped and each.service in ended}
            if runs != known:
                COMPLETED.write(self._state, runs)

    def keep_files(self, project: Project, facts: Facts, containers: Collection[Container]) -> None:
        """Write down the files that these runs of containers began with. `containers` are all of the project's."""
        with self._lock:
            seen = FILES.read(self._state)
            runs = mounted.runs_to_remember(project, containers, facts.file_stats, seen, facts.clock_offset)
            if runs != seen:
                FILES.write(self._state, runs)
