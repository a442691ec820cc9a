"""Finds compose files, by the same rules as the docker CLI. Reading them is Compose's business.

`inv -l` needs this module and no other of `engine`, so it imports little.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stackhand.errors import NoComposeFile

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
# https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax
_ENV_FILE_LINE = (
    r"^[ \t]*(?:export[ \t]+)?(?P<name>\w+)[ \t]*=[ \t]*"
    r"(?:(?P<quote>['\"])(?P<quoted>[^\n]*?)(?P=quote)|(?P<value>[^\n]*?)[ \t]*(?:$|[ \t]#[^\n]*$))"
)


def find_directory(start: Path, environ: Mapping[str, str]) -> Path:
    """Return the folder of the Compose project: from COMPOSE_FILE, else the nearest with a compose file, upwards.

    A folder whose `.env` sets COMPOSE_FILE counts, too. Raises NoComposeFile.
    """
    if environ.get("COMPOSE_FILE"):
        first = environ["COMPOSE_FILE"].split(environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep))[0]
        path = (start / first).resolve()
        if not path.is_file():
            raise NoComposeFile(f"COMPOSE_FILE names {first}, which does not exist")
        # For Compose, relative paths in COMPOSE_FILE start from the current folder, and .env lies there.
        return start.resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if any((folder / name).is_file() for name in FILE_NAMES) or files_from_env_file(folder):
            return folder
    raise NoComposeFile(
        f"no compose file in {start} or any folder above",
        "go to the folder of your compose.yaml, or name the file: COMPOSE_FILE=path/to/compose.yaml",
    )


def files_from_env_file(folder: Path) -> tuple[str, ...]:
    """Return the compose files that the folder's `.env` lists in COMPOSE_FILE."""
    pairs = env_file_pairs(folder)
    files = pairs.get("COMPOSE_FILE")
    return tuple(files.split(pairs.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)) if files else ()


def env_file_pairs(folder: Path) -> dict[str, str]:
    """Return the variables of the folder's `.env`. Values of several lines are not supported."""
    path = folder / ".env"
    try:
        # Reading a FIFO would wait for a writer.
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return {}
    lines = re.finditer(_ENV_FILE_LINE, text, re.MULTILINE)
    return {found["name"]: (found["quoted"] if found["quote"] else found["value"]).strip() for found in lines}


def variables(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Compose sees. Those of `.env` whose values need interpretation are left out."""
    plain = {name: value for name, value in env_file_pairs(folder).items() if re.fullmatch(r"[\w./:@%+,=-]*", value)}
    return {**plain, **environ}


def state_directory(folder: Path, environ: Mapping[str, str]) -> Path:
    """Return the folder that has the project's `.stackhand/`: the one of its first compose file.

    As for Compose, a link to a file elsewhere counts where it lies. A file that is not on this machine has no folder.
    """
    first = folder / next(iter(chosen_files(folder, environ)), "")
    return first.parent.resolve() if first.is_file() else folder


def chosen_files(folder: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the compose files in use: from COMPOSE_FILE, from `.env`, else those with the usual names."""
    if environ.get("COMPOSE_FILE"):
        return tuple(environ["COMPOSE_FILE"].split(environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep)))
    from_env = files_from_env_file(folder)
    if from_env:
        return from_env
    main = [name for name in FILE_NAMES if (folder / name).is_file()][:1]
    override = [name for name in OVERRIDE_NAMES if (folder / name).is_file()][:1]
    return tuple(main + override)
