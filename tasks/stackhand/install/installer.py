"""Carries out the actions of an installation plan, without decisions of its own.

It writes files completely or not at all, so that the next run can complete an interrupted one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stackhand.engine.api import endpoint
from stackhand.engine.host.programs import Programs
from stackhand.errors import CommandFailed, EngineUnreachable, InstallFailed
from stackhand.install import apt
from stackhand.install.machine import PID_FILE, Machine, root_path
from stackhand.model import Action

LOG = Path("/var/log/dockerd.log")
_START_SECONDS = 60.0
_SERVICE_SECONDS = 20.0
_POLL_SECONDS = 0.25
_LOG_LINES = 10


class Installer:
    """Carries out actions on one machine; `on_line` gets the output of the package manager."""

    def __init__(
        self,
        commands: Programs,
        environ: Mapping[str, str],
        machine: Machine,
        on_line: Callable[[str], None],
    ) -> None:
        self._commands = commands
        self._environ = {**environ, "PATH": root_path(environ), **apt.ENVIRONMENT}
        self._machine = machine
        self._on_line = on_line

    def carry_out(self, action: Action) -> None:
        """Do one action of a plan. Raises InstallFailed."""
        steps: dict[str, Callable[[Action], None]] = {
            "repair": lambda _: self._run(apt.repair()),
            "update": lambda _: self._run(apt.update()),
            "install": self._install,
            "unlock": lambda _: PID_FILE.unlink(missing_ok=True),
            "start": self._start,
            "wait": lambda _: self._wait(_START_SECONDS),
            "add": self._add_plugin,
        }
        try:
            steps[action.verb](action)
        except CommandFailed as error:
            lines = [line for line in error.stderr.splitlines() if line.startswith(("E:", "dpkg: error"))]
            reason = " ".join(lines) or error.message
            raise InstallFailed(f"could not {action.verb} {_object(action)}: {reason}", error.hint) from error
        except OSError as error:
            raise InstallFailed(f"could not {action.verb} {_object(action)}: {error}") from error

    def _install(self, action: Action) -> None:
        try:
            self._run(apt.install(action.arguments))
        except CommandFailed:
            # Old package lists name files that the mirrors no longer have.
            self._run(apt.update())
            self._run(apt.install(action.arguments))

    def _start(self, action: Action) -> None:
        """Start the engine with the init system, else by itself, and wait until it answers."""
        if action.arguments == ("systemd",):
            self._run(["systemctl", "enable", "--now", "docker"])
            self._wait(_START_SECONDS)
            return
        if action.arguments == ("service",) and self._start_service():
            return
        self._start_detached()

    def _start_service(self) -> bool:
        try:
            self._run(["service", "docker", "start"])
            self._wait(_SERVICE_SECONDS)
        except (CommandFailed, InstallFailed):
            return False
        return True

    def _start_detached(self) -> None:
        """Start dockerd in its own session, so that it outlives this run."""
        # DOCKER_TLS_VERIFY and the like are meant for the CLI, but dockerd reads them, too.
        env = {key: value for key, value in self._environ.items() if not key.startswith("DOCKER_")}
        pid = self._commands.detach(["dockerd"], log=LOG, env=env)
        self._wait(_START_SECONDS, pid)

    def _wait(self, seconds: float, pid: int | None = None) -> None:
        """Wait until the engine answers. `pid` is the dockerd that we started: if it ends, waiting ends."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                endpoint.connect(endpoint.resolve(self._environ), self._environ).close()
            except EngineUnreachable as error:
                ended = pid is not None and os.waitpid(pid, os.WNOHANG)[0] == pid
                if ended:
                    raise InstallFailed(f"dockerd ended at once: {_last_log_line()}", f"its log: {LOG}") from error
                if time.monotonic() > deadline:
                    raise InstallFailed(
                        f"the engine does not answer after {seconds:g} s: {error.message}",
                        _log_hint(pid),
                    ) from error
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _add_plugin(self, action: Action) -> None:
        """Unpack the plugin of a package into the docker command's folder for plugins."""
        package, release = action.arguments
        plugin = f"docker-{action.service}"
        with tempfile.TemporaryDirectory(prefix="stackhand-") as name:
            folder = Path(name)
            options = self._sources_of(release, folder)
            self._run(apt.download(package, options), cwd=folder)
            self._run(apt.unpack(next(folder.glob("*.deb")), folder / "files"))
            found = [path for path in (folder / "files").rglob(f"cli-plugins/{plugin}") if path.is_file()]
            if not found:
                raise InstallFailed(f"the package {package} of {release} contains no {plugin} plugin")
            self._place(found[0])

    def _sources_of(self, release: str, folder: Path) -> tuple[str, ...]:
        """Return the apt options for a release; none for the machine's own."""
        machine = self._machine
        if release == machine.codename:
            return ()
        (folder / "sources").mkdir()
        (folder / "lists/partial").mkdir(parents=True)
        for name, text in apt.next_release_sources(machine.sources, machine.codename).items():
            (folder / "sources" / name).write_text(text, encoding="utf-8")
        options = apt.options_for_folder(folder)
        self._run(apt.update_from(options))
        return options

    def _place(self, plugin: Path) -> None:
        """Try the plugin, then move it to its place in one step."""
        folder = self._machine.plugins
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f".{plugin.name}.new"
        try:
            shutil.copyfile(plugin, new)
            new.chmod(0o755)
            self._commands.run([str(new), "version"], env=self._environ)
            new.replace(folder / plugin.name)
        finally:
            new.unlink(missing_ok=True)

    def _run(self, argv: list[str], cwd: Path | None = None) -> None:
        self._commands.run(argv, cwd=cwd, env=self._environ, on_line=self._on_line, merge=True)


def _object(action: Action) -> str:
    return ", ".join(action.arguments) if action.verb == "install" else action.service


def _last_log_line() -> str:
    try:
        lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return "no log"
    # The last error says more than the shutdown messages around it.
    errors = [line for line in lines if "level=error" in line or "level=fatal" in line or "failed" in line]
    return (errors or lines or ["its log is empty"])[-1]


def _log_hint(pid: int | None) -> str:
    return f"its log: {LOG}" if pid else "its log: `journalctl -u docker`, or /var/log/docker.log"
