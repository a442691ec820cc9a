"""What a walk counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

COUNTED = ("scanned", "wrong", "changed", "partial", "refused", "failed", "needs_root", "left")


@dataclass
class Counts:
    """What was counted; `tops` has for each part of the project how many entries were wrong, and how many changed.

    `changed` are right now; `partial` were changed as far as this user may, and are wrong still.
    """

    scanned: int = 0
    wrong: int = 0
    changed: int = 0
    partial: int = 0
    refused: int = 0
    failed: int = 0
    needs_root: int = 0
    left: int = 0
    tops: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Add what another walker counted."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for top, counts in other.tops.items():
            mine = self.tops.setdefault(top, [0, 0, 0])
            mine[:] = [one + two for one, two in zip(mine, counts, strict=True)]


Note = Callable[[str, str, str], None]
"""Takes a kind (wrong, refused, failed, left, opened), a path below the root, and why."""
