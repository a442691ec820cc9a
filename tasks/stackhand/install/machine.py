"""This machine, as far as installing an engine is concerned: a snapshot of facts."""

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
# Whatever may be wanted; what a machine really offers is asked.
PACKAGES = (
    "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin",
    "docker.io", "docker-cli", "docker-compose-v2", "docker-compose",
    "iptables", "ca-certificates", "apparmor",
)  # fmt: skip
# Where programs for root lie; a user's PATH often leaves them out.
_ROOT_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Machine:
    """What is there.

    `available` has the version of each of PACKAGES that apt can install, and is None where apt has no lists
    yet. `daemon` is the process id of a dockerd that runs already; `stale_pid` says that the pid file names a
    process which is something else. `plugins` is the folder that a Compose plugin goes to.
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
        """Whether this is Debian, Ubuntu or one of their kin."""
        return self.system == "Linux" and bool({"debian", "ubuntu"} & {self.distribution, *self.like})


def read_machine(commands: Programs, environ: Mapping[str, str]) -> Machine:
    """Read the facts. Nothing is changed, and only what is missing makes it look further."""
    seen = check.observe(commands, environ)
    root = os.geteuid() == 0
    facts: dict[str, Any] = {"seen": seen, "system": platform.system(), "root": root}
    facts["plugins"] = SYSTEM_PLUGINS if root else config_folder(environ) / "cli-plugins"
    if seen.error is None or facts["system"] != "Linux":
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
    """Return PATH with root's folders after what it has."""
    return ":".join(filter(None, (environ.get("PATH"), _ROOT_FOLDERS)))


def _release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _init() -> Init:
    # The test that systemd itself documents: sd_booted(3).
    if Path("/run/systemd/system").is_dir():
        return "systemd"
    # A container's process 1 is the program it was made for, and `service` would be of no use.
    return "service" if _read("/proc/1/comm") == "init" else "none"


def _daemon() -> tuple[int | None, bool]:
    """Return the process id of a running dockerd, and whether the pid file is a dead one's."""
    text = _read(PID_FILE)
    if not text.isdecimal():
        return None, bool(text)
    alive = _read(f"/proc/{text}/comm") == "dockerd"
    return (int(text), False) if alive else (None, True)


def _available(commands: Programs, env: Mapping[str, str]) -> dict[str, str] | None:
    # Without lists, apt knows at most what is installed already.
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
