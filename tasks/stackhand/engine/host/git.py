"""What git records of a working tree. Git is asked in a way that runs nothing which the repository configures."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from pathlib import Path

from stackhand.engine.host.programs import Programs
from stackhand.errors import CommandFailed

_EXECUTABLE = re.compile(rb"(?:^|\0)100755 [^\t\0]*\t([^\0]*)")
_TIMEOUT = 60.0
# A file system monitor is a program. Root may look at another user's repository; that it is not root's is no reason
# not to read it.
_SAFE = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


def executables(commands: Programs, folder: Path) -> list[str] | None:
    """Return the files below a folder that git records as executable; none where there is no repository.

    None where there is one, and git can't be asked. Root asks as the repository's owner: whatever a repository could
    still make git do is then done with the rights of whoever could do it anyway.
    """
    repository = next((each / ".git" for each in (folder, *folder.parents) if os.path.lexists(each / ".git")), None)
    if repository is None:
        return []
    program = shutil.which("git")
    if program is None:
        return None
    owner = _owner(repository) if os.geteuid() == 0 else None
    argv = [program, *_SAFE, "-C", str(folder), "ls-files", "--stage", "-z"]
    try:
        listed, complaints = commands.read(argv, env=_environment(), within=_TIMEOUT, owner=owner)
    except CommandFailed:
        return None
    if complaints:
        return None  # it goes on without a folder that it can't read
    return [os.fsdecode(path) for path in _EXECUTABLE.findall(listed)]


def _environment() -> dict[str, str]:
    """Return an environment in which git reads no settings but the repository's, and fetches nothing."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        # A repository may lack objects on purpose, and say which program gets them.
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _owner(repository: Path) -> tuple[int, int] | None:
    """Return user and group of who could write what git reads first, None where that is root alone."""
    for path in (repository, repository / "config", repository / "index"):
        try:
            uid = path.lstat().st_uid
        except OSError:
            continue
        if uid:
            try:
                return uid, pwd.getpwuid(uid).pw_gid
            except KeyError:
                return uid, uid
    return None
