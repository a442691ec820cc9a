"""A folder of the user's own, outside of every project, for what has to be believed later.

A project can be written to by its containers, and whoever is root in one of those writes files of root's. So what lies
in a project proves nothing, whoever owns it.
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

# Names another place, with a folder for each user in it.
VARIABLE = "STACKHAND_STATE"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_ROOT = Path("/var/lib/stackhand")


class PrivateFolder:
    """What stackhand keeps of one project for one user, where nobody else can write: `<home>/perms/<project>/`.

    The home is `/var/lib/stackhand` for root, else `stackhand` in XDG_STATE_HOME (`~/.local/state`).
    """

    def __init__(self, project: Path, environ: Mapping[str, str] | None = None, uid: int | None = None) -> None:
        self._uid = os.geteuid() if uid is None else uid
        self._parts = (_home(self._uid, os.environ if environ is None else environ), "perms", _key(project))

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(*self._parts)

    def exists(self) -> bool:
        """Return whether it is there, as far as this user may see."""
        return os.path.lexists(self.path)

    def make(self) -> int:
        """Make the folder where it is missing; return a descriptor. Raises StateFolderUnwritable."""
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
        """Return a descriptor of the folder. Raises FileNotFoundError, PermissionError where others could write."""
        return self._open(make=False)

    def _open(self, *, make: bool) -> int:
        folder = os.open("/", _FOLDER)
        for part in self._parts:
            folder = self._enter(part, folder, make=make)
        return folder

    def _enter(self, part: str, above: int, *, make: bool) -> int:
        """Go down into one folder; the descriptor of the one above is closed."""
        try:
            if make:
                # Others may look up whether root has runs of their project, not what there is.
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
    # What is not absolute does not count (XDG Base Directory Specification).
    return str((base if base.is_absolute() else Path(environ.get("HOME") or "/") / ".local/state") / "stackhand")


def _key(project: Path) -> str:
    """Return a folder's name for a project: one that people can read, and no two projects share.

    >>> _key(Path("/srv/my shop"))
    'my-shop-ec3c9a43f1b3e506'
    """
    path = os.path.realpath(project)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(path))[:40]  # noqa: PTH119
    return f"{name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
