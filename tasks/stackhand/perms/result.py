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
from stackhand.perms.tree.workers import Notes


@dataclass
class Result:
    """What a check or a fix found and did. `stopped` is what ended it early."""

    root: Path
    target: Target
    tally: Counts = field(default_factory=Counts)
    notes: Notes = field(default_factory=Notes)
    findings: tuple[Finding, ...] = ()
    journal: str | None = None
    stopped: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more: nothing refused, failed, or left for root to do."""
        tally = self.tally
        left = tally.wrong > tally.changed or tally.failed or tally.needs_root or self.stopped is not None
        return not left and not any(f.status == "fail" for f in self.findings)

    def head(self) -> dict[str, Any]:
        """Return the contract's JSON, but for the lists."""
        tally = self.tally
        return {
            "ok": self.ok,
            "root": str(self.root),
            "owner": self.target.user,
            "group": self.target.group,
            "scanned": tally.scanned,
            "wrong": tally.wrong,
            "changed": tally.changed,
            "partial": tally.partial,
            "unchanged": tally.scanned - tally.changed,
            "needs_root": tally.needs_root,
            "journal": self.journal,
            "findings": [each.to_json() for each in self.findings],
            **early_end(self.stopped),
        }

    def lists(self) -> dict[str, Iterator[dict[str, str]]]:
        """Return the contract's lists, each as long as there is something to tell."""
        return {
            "entries": ({"path": each.path, "reason": each.reason} for each in self.notes.read("wrong")),
            "refused": ({"path": each.path, "reason": each.reason} for each in self.notes.read("refused")),
            "failed": ({"path": each.path, "error": each.reason} for each in self.notes.read("failed")),
            "left_alone": ({"path": each.path, "reason": each.reason} for each in self.notes.read("left")),
        }


def early_end(stopped: BaseException | None) -> dict[str, Any]:
    """Return what the JSON document says of a run that ended early: the field `error`."""
    if stopped is None:
        return {}
    error = stopped if isinstance(stopped, StackError) else Interrupted("interrupted")
    return {"error": error.to_json()["error"]}
