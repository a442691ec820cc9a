"""A folder of this user, outside of every project, for files that must be believed later.

Containers can write to their project, and a process that is root in its container writes files that belong to root. So
a file in the project proves nothing, whoever owns it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from stackhand.errors import StateFolderUnwritable

# The environment variable that names another place for it; that place then has a folder for each user.
VARIABLE = "STACKHAND_STATE"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_ROOT = Path("/var/lib/stackhand")


class PrivateFolder:
    """The folder of one project and one user, where nobody else can write: `<home>/perms/<project>/`.

    The home is `/var/lib/stackhand` for root, else `stackhand` in XDG_STATE_HOME (`~/.local/state`,
    https://specifications.freedesktop.org/basedir-spec/latest/).
    """

    def __init__(self, project: Path, environ: Mapping[str, str] | None = None, uid: int | None = None) -> None:
        self._uid = os.geteuid() if uid is None else uid
        self._parts = (_home(self._uid, os.environ if environ is None else environ), "perms", _key(project))

    @property
    def path(self) -> Path:
        """Where it is, whether it exists or not."""
        return Path(*self._parts)

    def exists(self) -> bool:
        """Return whether it exists, as far as this user may see."""
        return os.path.lexists(self.path)

    def make(self) -> int:
        """Make the folder if it is missing; return a descriptor of it. Raises StateFolderUnwritable."""
        home = Path(self._parts[0])
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            return self._open(make=True)
        except OSError as error:
            raise StateFolderUnwritable(
                f"cannot write to {self.path}: {error.strerror}",
                f"make {home} a folder of yours that nobody else can write to, or name another place in {VARIABLE}",
            ) from error

    def open(self) -> int:
        """Return a descriptor of the folder. Raises FileNotFoundError, PermissionError if others could write to it."""
        return self._open(make=False)

    def _open(self, *, make: bool) -> int:
        folder = os.open("/", _FOLDER)
        for part in self._parts:
            folder = self._enter(part, folder, make=make)
        return folder

    def _enter(self, part: str, above: int, *, make: bool) -> int:
        """Return a descriptor of the folder `part`; close the one of the folder above it."""
        try:
            if make:
                # Other users may find out whether root has a folder for their project, but not what is in it.
                mode = 0o711 if self._uid == 0 and part != self._parts[-1] else 0o700
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=above)
            folder = os.open(part, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
        seen = os.fstat(folder)
        if seen.st_uid != self._uid or seen.st_mode & 0o022:
            os.close(folder)
            raise PermissionError(errno.EPERM, "another user made it, or could write to it")
        return folder


def _home(uid: int, environ: Mapping[str, str]) -> str:
    given = environ.get(VARIABLE)
    if given:
        return str(Path(given).absolute() / str(uid))
    if uid == 0:
        return str(_OF_ROOT)
    base = Path(environ.get("XDG_STATE_HOME") or "")
    # The specification ignores a path that is not absolute.
    return str((base if base.is_absolute() else Path(environ.get("HOME") or "/") / ".local/state") / "stackhand")


def _key(project: Path) -> str:
    """Return the folder name of a project: people can read it, and no two projects share it.

    >>> _key(Path("/srv/my shop"))
    'my-shop-ec3c9a43f1b3e506'
    """
    path = os.path.realpath(project)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(path))[:40]  # noqa: PTH119
    return f"{name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
