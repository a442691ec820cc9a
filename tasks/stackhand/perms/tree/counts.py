"""What a walk counts."""

from __future__ import annotations

from dataclasses import dataclass, field

COUNTED = ("scanned", "wrong", "changed", "partial", "refused", "failed", "needs_root", "left")


@dataclass
class Counts:
    """Numbers of entries.

    `changed` are right now; `partial` were changed as far as this user may, and are still wrong. `by_top_folder` has
    three numbers for each top folder of the project: scanned, wrong and changed.
    """

    scanned: int = 0
    wrong: int = 0
    changed: int = 0
    partial: int = 0
    refused: int = 0
    failed: int = 0
    needs_root: int = 0
    left: int = 0
    by_top_folder: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Add the counts of another process."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for top, numbers in other.by_top_folder.items():
            mine = self.by_top_folder.setdefault(top, [0, 0, 0])
            mine[:] = [one + two for one, two in zip(mine, numbers, strict=True)]
