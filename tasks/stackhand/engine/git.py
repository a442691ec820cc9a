"""What git records of a working tree. Git is asked in a way that runs nothing which the repository configures."""

from __future__ import annotations

import re
from pathlib import Path

from stackhand.engine.command import Commands
from stackhand.errors import CommandFailed

_EXECUTABLE = re.compile(r"(?:^|\0)100755 [^\t]*\t([^\0]*)")


def executables(commands: Commands, folder: Path) -> list[str]:
    """Return the files below a folder that git records as executable; none where there is no git or no repository."""
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return []
    # Root may look at a user's repository, and must not run that user's file system monitor.
    safe = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    try:
        listed = commands.run(["git", *safe, "-C", str(folder), "ls-files", "--stage", "-z"])
    except CommandFailed:
        return []
    return _EXECUTABLE.findall(listed.stdout)
