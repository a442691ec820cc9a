"""Reads files and folders inside containers, also of containers that have ended, without a program in them."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from stackhand.engine.api.sdk import errors

# Source files are small; what is larger is no migration, and a folder of gigabytes is not the one that is looked for.
_FILE = 256 * 1024
_FOLDER = 16 * 1024 * 1024
_IS_FOLDER = 1 << 31  # Go's os.ModeDir
_EMPTY = bytes(2 * tarfile.BLOCKSIZE)


def read_folder(api: Any, container: str, path: str) -> dict[str, str] | None:
    """Return the small text files below a folder by their paths in it, None where there is no such folder.

    A mount is read as the container sees it. Of a folder that is too large nothing is returned.
    """
    found = _archive(api, container, path)
    if found is None or not found[1] & _IS_FOLDER:
        return None
    return _files(found[0])


def read_file(api: Any, container: str, path: str) -> bytes | None:
    """Return what is in a file, None where there is no such file or it is large."""
    found = _archive(api, container, path)
    if found is None or found[1] & _IS_FOLDER:
        return None
    with tarfile.open(fileobj=io.BytesIO(found[0])) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file:
                return file.read()
    return None


def _archive(api: Any, container: str, path: str) -> tuple[bytes, int] | None:
    """Return a path as a tar file, with the mode that Go has for it; an empty one where it is too large."""
    from docker.errors import NotFound

    try:
        with errors(keep=NotFound):
            stream, stat = api.get_archive(container, path)
            data = bytearray()
            for chunk in stream:
                data += chunk
                if len(data) > _FOLDER:
                    stream.close()
                    data.clear()
                    break
    except NotFound:
        return None
    return bytes(data) or _EMPTY, stat.get("mode", 0)


def _files(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            _, _, name = member.name.partition("/")
            file = archive.extractfile(member) if member.isfile() and member.size <= _FILE else None
            if file and name:
                found[name] = file.read().decode("utf-8", "replace")
    return found
