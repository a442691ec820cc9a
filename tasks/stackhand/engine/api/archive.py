"""Reads files and folders of containers, running or not, through the engine: no program inside is needed."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from stackhand.engine.api.sdk import errors

# Bytes. The files that are read here (migrations, settings) are small: a larger file or folder is another one.
_MAX_FILE = 256 * 1024
_MAX_FOLDER = 16 * 1024 * 1024
_IS_FOLDER = 1 << 31  # Go's os.ModeDir: https://pkg.go.dev/io/fs#FileMode
_EMPTY = bytes(2 * tarfile.BLOCKSIZE)


def read_folder(api: Any, container: str, path: str) -> dict[str, str] | None:
    """Return the text of each small file below a folder, by its path in there; None if there is no such folder.

    Mounts are read as the container sees them. A folder that is too large counts as empty.
    """
    found = _archive(api, container, path)
    if found is None or not found[1] & _IS_FOLDER:
        return None
    return _files(found[0])


def read_file(api: Any, container: str, path: str) -> bytes | None:
    """Return the content of a file; None if there is no such file, or if it is too large."""
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
    """Return a path as a tar file (an empty one if it is too large), and its mode in Go's notation."""
    from docker.errors import NotFound

    try:
        with errors(keep=NotFound):
            stream, stat = api.get_archive(container, path)
            data = bytearray()
            for chunk in stream:
                data += chunk
                if len(data) > _MAX_FOLDER:
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
            file = archive.extractfile(member) if member.isfile() and member.size <= _MAX_FILE else None
            if file and name:
                found[name] = file.read().decode("utf-8", "replace")
    return found
