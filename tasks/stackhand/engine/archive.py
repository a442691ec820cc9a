"""Reads folders inside containers, also of containers that have ended, without a program in them."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from stackhand.engine.sdk import errors

# Source files are small; what is larger is no migration, and a folder of gigabytes is not the one that is looked for.
_FILE = 256 * 1024
_FOLDER = 16 * 1024 * 1024


def read_folder(api: Any, container: str, path: str) -> dict[str, str] | None:
    """Return the small text files below a folder by their paths in it, None where there is no such folder.

    A mount is read as the container sees it. Of a folder that is too large nothing is returned.
    """
    from docker.errors import NotFound

    try:
        with errors(keep=NotFound):
            stream, stat = api.get_archive(container, path)
            data = bytearray()
            for chunk in stream:
                data += chunk
                if len(data) > _FOLDER:
                    stream.close()
                    return {}
    except NotFound:
        return None
    if not stat.get("mode", 0) & 1 << 31:  # Go's os.ModeDir
        return None
    return _files(bytes(data))


def _files(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            _, _, name = member.name.partition("/")
            file = archive.extractfile(member) if member.isfile() and member.size <= _FILE else None
            if file and name:
                found[name] = file.read().decode("utf-8", "replace")
    return found
