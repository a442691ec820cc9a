"""The outcome of a run by service: records, failures, steps of progress, the final report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from stackhand.errors import StartFailed

State = Literal["waiting", "starting", "healthy", "running", "completed", "failed", "skipped"]
_CAUSE = "`inv services.fixes` looks for the cause"
_EACH = f"each is explained above, with what to do next; {_CAUSE}"
READY: frozenset[str] = frozenset({"healthy", "running", "completed"})


@dataclass(frozen=True)
class Failure:
    """Why a service did not become ready.

    `step` is where: image, create, start, ready, dependency. `retry`: another attempt can help. `tried` lists what
    stackhand did about it, `hint` says what the person can do, `waited` is in seconds.
    """

    step: str
    kind: str
    reason: str
    retry: bool = True
    exit_code: int | None = None
    probe_output: str | None = None
    log_tail: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    waited: float = 0.0
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return `error` of a service in the contract's JSON."""
        return {
            "reason": self.reason,
            "kind": self.kind,
            "step": self.step,
            "exit_code": self.exit_code,
            "probe_output": self.probe_output,
            "log_tail": list(self.log_tail),
            "waited": round(self.waited, 3),
            "tried": list(self.tried),
            "hint": self.hint,
        }


class ServiceFailed(Exception):
    """Carries the failure of a service to the code that decides about another attempt."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class Record:
    """What is known of one service in this run.

    Seconds since the run began: `began` when its start was asked for, `started` when its containers ran, `ready` when
    it was seen to be ready. `ready_after` counts seconds from the start of its containers. `kept`: it was ready before
    the run. `optional`: only `required: false` asks for it. `crashes` is how many runs of its containers had ended by
    themselves when it was ready (`Notifier.crashes`).
    """

    name: str
    state: State = "waiting"
    attempts: int = 0
    kept: bool = False
    optional: bool = False
    started_at: datetime | None = None
    began: float | None = None
    started: float | None = None
    ready: float | None = None
    ready_after: float | None = None
    crashes: int = 0
    waited_for: tuple[str, ...] = ()
    failure: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as an entry of `services` in the contract's JSON."""
        return {
            "name": self.name,
            "state": self.state,
            "attempts": self.attempts,
            "started_at": self.started_at.isoformat().replace("+00:00", "Z") if self.started_at else None,
            "ready_after": None if self.ready_after is None else round(self.ready_after, 3),
            "waited_for": list(self.waited_for),
            "error": self.failure.to_json() if self.failure else None,
        }


@dataclass(frozen=True)
class StartReport:
    """The outcome of a start. Times are seconds since the run began."""

    project: str
    elapsed: float
    services: tuple[Record, ...]
    critical_path: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every service is ready that is not optional."""
        return all(record.state in READY or record.optional for record in self.services)

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return any(record.attempts or record.failure for record in self.services)

    def raise_unless_ok(self) -> None:
        """Raise StartFailed where a service is not ready that is insisted on."""
        if self.ok:
            return
        failed = [record for record in self.services if record.state == "failed" and not record.optional]
        skipped = [record.name for record in self.services if record.state == "skipped" and not record.optional]
        one = failed[0].failure if len(failed) == 1 else None
        why = f": {one.reason}" if one else ""
        also = f"; skipped: {', '.join(skipped)}" if skipped else ""
        hint = one.hint if one else _EACH
        if one and one.hint and one.step == "ready":
            hint = f"{one.hint}; {_CAUSE}"
        names = ", ".join(record.name for record in failed)
        raise StartFailed(f"{len(failed)} of {len(self.services)} services failed: {names}{why}{also}", hint)

    def to_json(self) -> dict[str, Any]:
        """Return the contract's JSON of `services.start`, without the fixes that follow a start."""
        return {
            "project": self.project,
            "ok": self.ok,
            "elapsed": round(self.elapsed, 3),
            "critical_path": list(self.critical_path),
            "services": [record.to_json() for record in self.services],
        }


@dataclass(frozen=True)
class Step:
    """One line of progress, for displays. `at` is seconds since the run began."""

    service: str
    kind: Literal["image", "create", "start", "wait", "ready", "kept", "retry", "failed", "skipped", "note"]
    text: str
    at: float


Emit = Callable[[Step], None]
