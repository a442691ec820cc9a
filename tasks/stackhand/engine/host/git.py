"""Reads what git records of a working tree, without running any program that the repository configures."""

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
# A file system monitor is a program, and so are hooks: https://git-scm.com/docs/git-config. Git refuses a repository of
# another user unless it is declared safe.
_SAFE = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


def executables(programs: Programs, folder: Path) -> list[str] | None:
    """Return the files below a folder that git records as executable; [] if there is no repository.

    Return None if there is one and git cannot read it. Root runs git as the repository's owner, so that a repository
    which still makes git run something gains no rights.
    """
    repository = next((above / ".git" for above in (folder, *folder.parents) if os.path.lexists(above / ".git")), None)
    if repository is None:
        return []
    program = shutil.which("git")
    if program is None:
        return None
    owner = _owner(repository) if os.geteuid() == 0 else None
    argv = [program, *_SAFE, "-C", str(folder), "ls-files", "--stage", "-z"]
    try:
        listed, warnings = programs.read(argv, env=_environment(), within=_TIMEOUT, owner=owner)
    except CommandFailed:
        return None
    if warnings:
        return None  # git leaves out a folder that it can't read, and goes on
    return [os.fsdecode(path) for path in _EXECUTABLE.findall(listed)]


def _environment() -> dict[str, str]:
    """Return an environment in which git reads only the repository's settings, and fetches nothing."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        # A partial clone may name a program that fetches missing objects.
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _owner(repository: Path) -> tuple[int, int] | None:
    """Return user and group of the first owner other than root of what git reads; None if all of it is root's."""
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
