"""Reads the facts about this machine that matter for installing an engine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stackhand.engine.compose.plugin import SYSTEM_FOLDERS, config_folder
from stackhand.engine.host.programs import Programs
from stackhand.install import apt, check

Init = Literal["systemd", "service", "none"]

PID_FILE = Path("/var/run/docker.pid")
SYSTEM_PLUGINS = Path(SYSTEM_FOLDERS[0])
# All packages that a plan may need. apt says which of them this machine can install.
PACKAGES = (
    "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin",
    "docker.io", "docker-cli", "docker-compose-v2", "docker-compose",
    "docker-buildx-plugin", "docker-buildx",
    "iptables", "ca-certificates", "apparmor",
)  # fmt: skip
# Folders of programs for root, which a user's PATH often lacks.
_ROOT_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Machine:
    """The facts about one machine.

    `available` has the versions of those PACKAGES that apt can install; it is None if apt has no package lists yet.
    `daemon` is the process id of a running dockerd. `stale_pid` says that the pid file names another process. `plugins`
    is the folder for plugins of the docker command.
    """

    seen: check.Observation
    system: str = "Linux"
    distribution: str = ""
    like: tuple[str, ...] = ()
    codename: str = ""
    name: str = ""
    root: bool = False
    sudo: bool = False
    init: Init = "none"
    dockerd: str | None = None
    iptables: bool = True
    certificates: bool = True
    daemon: int | None = None
    stale_pid: bool = False
    broken_packages: bool = False
    apparmor: bool = False
    available: Mapping[str, str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    plugins: Path = SYSTEM_PLUGINS

    @property
    def has_apt(self) -> bool:
        """Whether this is Debian, Ubuntu or derived from them."""
        return self.system == "Linux" and bool({"debian", "ubuntu"} & {self.distribution, *self.like})


def read_machine(commands: Programs, environ: Mapping[str, str]) -> Machine:
    """Read the facts. Change nothing. If all is usable, leave out what only an installation needs."""
    seen = check.observe(commands, environ)
    root = os.geteuid() == 0
    facts: dict[str, Any] = {"seen": seen, "system": platform.system(), "root": root}
    facts["plugins"] = SYSTEM_PLUGINS if root else config_folder(environ) / "cli-plugins"
    if (seen.error is None and not seen.lacks_buildx) or facts["system"] != "Linux":
        return Machine(**facts)
    path = root_path(environ)
    release = _release()
    daemon, stale = _daemon()
    facts |= {
        "distribution": release.get("ID", ""),
        "like": tuple(release.get("ID_LIKE", "").split()),
        "codename": release.get("VERSION_CODENAME", ""),
        "name": release.get("PRETTY_NAME", ""),
        "sudo": shutil.which("sudo", path=path) is not None,
        "init": _init(),
        "dockerd": shutil.which("dockerd", path=path),
        "certificates": Path("/etc/ssl/certs/ca-certificates.crt").exists(),
        "iptables": shutil.which("iptables", path=path) is not None,
        "daemon": daemon,
        "stale_pid": stale,
        "apparmor": _read("/sys/module/apparmor/parameters/enabled") == "Y",
    }
    if Machine(**facts).has_apt and shutil.which("apt-get", path=path):
        env = {**environ, "PATH": path, **apt.ENVIRONMENT}
        facts |= {
            "broken_packages": bool(commands.run(["dpkg", "--audit"], env=env, check=False).stdout.strip()),
            "available": _available(commands, env),
            "sources": _sources(Path("/etc/apt")),
        }
    return Machine(**facts)


def root_path(environ: Mapping[str, str]) -> str:
    """Return PATH with the folders of programs for root appended."""
    return ":".join(filter(None, (environ.get("PATH"), _ROOT_FOLDERS)))


def _release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _init() -> Init:
    # The test that sd_booted(3) documents.
    if Path("/run/systemd/system").is_dir():
        return "systemd"
    # In a container, process 1 is its main program, and `service` starts nothing.
    return "service" if _read("/proc/1/comm") == "init" else "none"


def _daemon() -> tuple[int | None, bool]:
    """Return the process id of a running dockerd or None, and whether the pid file is stale."""
    text = _read(PID_FILE)
    if not text.isdecimal():
        return None, bool(text)
    alive = _read(f"/proc/{text}/comm") == "dockerd"
    return (int(text), False) if alive else (None, True)


def _available(commands: Programs, env: Mapping[str, str]) -> dict[str, str] | None:
    # Without package lists, apt knows only installed packages.
    if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        return None
    return apt.candidates(commands.run(apt.policy(PACKAGES), env=env, check=False).stdout)


def _sources(folder: Path) -> dict[str, str]:
    parts = sorted((folder / "sources.list.d").glob("*"))
    files: Sequence[Path] = [folder / "sources.list", *parts]
    return {file.name: _read(file) for file in files if file.suffix in (".list", ".sources") and file.is_file()}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
