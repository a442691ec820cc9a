"""Finds the program of the Compose plugin, to run it without the docker command.

The docker command starts a plugin twice: once for its metadata, once to run it. So `docker compose config` takes more
than twice as long as the plugin itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

PLUGIN = "docker-compose"
# The docker command looks here after the user's own folder, in this order (`defaultSystemPluginDirs` in
# https://github.com/docker/cli/blob/master/cli-plugins/manager/manager_unix.go).
SYSTEM_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the docker CLI's folder: DOCKER_CONFIG, else `~/.docker`."""
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"])
    return Path(environ.get("HOME") or Path.home()) / ".docker"


def compose_plugin(environ: Mapping[str, str]) -> str | None:
    """Return the program that `docker compose` runs, or None if only the docker command itself knows.

    It is None without a plugin, if `docker` is a script (which may do anything), and if the user's settings name
    further plugin folders.
    """
    docker = shutil.which("docker", path=environ.get("PATH"))
    user = config_folder(environ)
    if docker is None or _begins(Path(docker), b"#!") or _names_folders(user / "config.json"):
        return None
    for folder in (user / "cli-plugins", *map(Path, SYSTEM_FOLDERS)):
        plugin = folder / PLUGIN
        if os.path.lexists(plugin):
            return str(plugin) if plugin.is_file() and os.access(plugin, os.X_OK) else None
    return None


def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return True  # not readable: it may be a script


def _names_folders(settings: Path) -> bool:
    try:
        return b"cliPluginsExtraDirs" in settings.read_bytes()
    except OSError:
        return False
