"""What the parts of a start share: one project, the ways to engine and Compose, and what this process has begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stackhand.engine.api.client import Engine
from stackhand.engine.api.containers import Container
from stackhand.engine.compose.project import Project, Service
from stackhand.graph.clock import Clock
from stackhand.graph.slots import TimedSemaphore
from stackhand.output.redact import Redactor
from stackhand.services.changes.builds import Builds
from stackhand.services.origin import Takeover
from stackhand.services.start.limits import Turn
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.prepare import Preparation
from stackhand.services.start.progress import RunRecords
from stackhand.services.start.remember import StartHistory
from stackhand.services.start.session import Session
from stackhand.settings import Start
from stackhand.state.folder import StateFolder


class Launches(Protocol):
    """Has containers started, and knows how many starts are under way: `launch.Launcher`."""

    @property
    def load(self) -> int: ...  # noqa: D102
    def start(self, service: Service, containers: Sequence[Container]) -> None: ...  # noqa: D102
    def restart(self, service: Service, containers: Sequence[Container]) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Involved:
    """The services that this process has to do with so far.

    `busy`: it brings them up. `watched`: it waits for them at this moment. `created`: Compose has made their
    containers, or has found them to be as configured. `recreated`: it has replaced some.
    """

    busy: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    recreated: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Shared:
    """What all runs of one process share, also those that go on side by side (`up.<service>`).

    `renewing` is held by the thread that renews networks.
    """

    engine: Engine
    state: StateFolder
    redactor: Redactor
    clock: Clock
    notifier: Notifier
    probes: TimedSemaphore
    session: Session
    builds: Builds
    history: StartHistory
    records: RunRecords
    tell: Callable[[str, str, str], None]
    began: float
    renewing: Turn
    involved: Involved = field(default_factory=Involved)
    takeover: Takeover = field(default_factory=Takeover)

    def now(self) -> float:
        """Return seconds since the process began to start services."""
        return self.clock.monotonic() - self.began


@dataclass(frozen=True)
class RunContext:
    """What one run works with. The project does not change while it goes on; neither do its settings."""

    project: Project
    read_hashes: Callable[[], Mapping[str, str]]
    settings: Start
    rebuild: bool
    launcher: Launches
    preparation: Preparation
    shared: Shared
