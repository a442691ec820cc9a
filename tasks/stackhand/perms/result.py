"""What a check or a fix of permissions came to, and how it is told in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackhand.errors import Interrupted, StackError
from stackhand.model import Finding
from stackhand.perms.policy.rules import Target
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.events import EventSpool


@dataclass
class Result:
    """What a check or a fix found and did.

    `journal` is the id of the run for `perms.undo`, None if nothing was changed. `stopped` is the error that ended it
    early.
    """

    root: Path
    target: Target
    counts: Counts = field(default_factory=Counts)
    events: EventSpool = field(default_factory=EventSpool)
    findings: tuple[Finding, ...] = ()
    journal: str | None = None
    stopped: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether all is right now: nothing was refused, failed, or is left for root to do."""
        counts = self.counts
        left = counts.wrong > counts.changed or counts.failed or counts.needs_root or self.stopped is not None
        return not left and not any(f.status == "fail" for f in self.findings)

    def head(self) -> dict[str, Any]:
        """Return the JSON document without its lists."""
        counts = self.counts
        return {
            "ok": self.ok,
            "root": str(self.root),
            "owner": self.target.user,
            "group": self.target.group,
            "scanned": counts.scanned,
            "wrong": counts.wrong,
            "changed": counts.changed,
            "partial": counts.partial,
            "unchanged": counts.scanned - counts.changed,
            "needs_root": counts.needs_root,
            "journal": self.journal,
            "findings": [each.to_json() for each in self.findings],
            **error_field(self.stopped),
        }

    def lists(self) -> dict[str, Iterator[dict[str, str]]]:
        """Return the lists of the JSON document. They are read when they are printed: they may be long."""
        return {
            "entries": ({"path": each.path, "reason": each.reason} for each in self.events.read("wrong")),
            "refused": ({"path": each.path, "reason": each.reason} for each in self.events.read("refused")),
            "failed": ({"path": each.path, "error": each.reason} for each in self.events.read("failed")),
            "left_alone": ({"path": each.path, "reason": each.reason} for each in self.events.read("left")),
        }


def error_field(stopped: BaseException | None) -> dict[str, Any]:
    """Return the field `error` of the JSON document of a run that ended early; nothing for one that did not."""
    if stopped is None:
        return {}
    error = stopped if isinstance(stopped, StackError) else Interrupted("interrupted")
    return {"error": error.to_json()["error"]}
