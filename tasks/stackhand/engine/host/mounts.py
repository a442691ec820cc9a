"""The mount points of this machine: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""

from __future__ import annotations

import re
from pathlib import Path


def below(folder: Path) -> list[str]:
    """Return the paths of the mount points below a folder, relative to it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    # The kernel writes blanks and the like as octal numbers, a blank as \040.
    points = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines)
    start = f"{str(folder).rstrip('/')}/"
    return [point.removeprefix(start) for point in points if point.startswith(start)]
