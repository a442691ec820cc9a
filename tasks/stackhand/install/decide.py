"""Installs engine and Compose plugin: decide on facts, act, look again.

`decide` is pure, and `Installer` carries out its plan. `ensure` repeats both until nothing is left to do: apt only
knows what it offers once it has package lists, so fetching those can be a plan of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stackhand.engine.api.endpoint import DEFAULT_SOCKET
from stackhand.engine.compose.cli import OLDEST, OLDEST_BUILDX
from stackhand.engine.host import sudo
from stackhand.engine.host.programs import Programs
from stackhand.errors import ConfigError, InstallFailed, PrerequisiteMissing, SocketPermission, StackError
from stackhand.install import apt
from stackhand.install.check import Observation
from stackhand.install.installer import Installer
from stackhand.install.machine import Machine, read_machine
from stackhand.model import Action, Plan

# The first round fetches package lists, the second installs, the third adds the buildx that the new Compose wants, the
# fourth finds nothing to do.
_MAX_ROUNDS = 4

_MANUAL = "https://docs.docker.com/engine/install/ has instructions for each system"
_COMMANDS = {
    "fedora": "dnf install moby-engine docker-cli docker-compose && systemctl enable --now docker",
    "arch": "pacman -S docker docker-compose && systemctl enable --now docker",
    "alpine": "apk add docker docker-cli-compose && rc-update add docker && service docker start",
    "opensuse": "zypper install docker docker-compose && systemctl enable --now docker",
    "suse": "zypper install docker docker-compose && systemctl enable --now docker",
}
_BY_SYSTEM = {
    "Darwin": "install Docker Desktop, or `brew install colima docker docker-compose && colima start`",
    "Windows": "install Docker Desktop, or an engine inside WSL",
}


@dataclass(frozen=True)
class Result:
    """The actions that were taken (with `dry`: planned), and the state afterwards."""

    actions: tuple[Action, ...]
    seen: Observation
    dry: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the document of `engine.install`: that of `engine.check`, and the actions."""
        actions = [
            {"part": a.service, "action": a.verb, "cause": a.cause, "arguments": list(a.arguments)}
            for a in self.actions
        ]
        return {
            **self.seen.to_json(),
            "changed": bool(self.actions) and not self.dry,
            "dry": self.dry,
            "actions": actions,
        }


def decide(machine: Machine) -> Plan:
    """Return the plan that leads to a usable engine; it is empty if the engine and all that builds need is there.

    Raises PrerequisiteMissing or ConfigError, with a hint, if stackhand cannot install one here.
    """
    seen = machine.seen
    if seen.error is None:
        return Plan(tuple(_buildx(machine)))
    _refuse_other_engines(seen)
    if not machine.has_apt:
        raise _not_supported(machine)
    actions = [*_engine(machine), *_compose(machine)]
    needs_packages = any(action.verb in ("install", "add") for action in actions)
    if needs_packages and machine.available is None:
        # The next round decides from the lists what to install.
        actions = [Action("packages", "update", "apt has no package lists yet")]
    if machine.broken_packages:
        actions.insert(0, Action("packages", "repair", "an earlier installation was interrupted"))
    return Plan(tuple(actions))


def needs_root(plan: Plan) -> bool:
    """Return whether only root can carry out this plan. Adding a plugin alone needs no root."""
    return any(action.verb != "add" for action in plan.actions)


def ensure(
    commands: Programs,
    environ: Mapping[str, str],
    *,
    dry: bool = False,
    become_root: Callable[[Plan], bool],
    on_action: Callable[[Action], None],
    on_line: Callable[[str], None],
) -> Result:
    """Look, decide and act until the engine is usable. With `dry`, only return the first plan.

    If a plan needs root, `become_root(plan)` is called. It either does the whole work as root and returns True, or
    returns False if that is not allowed. Raises InstallFailed, PrerequisiteMissing.
    """
    done: list[Action] = []
    last = Plan()
    for _ in range(_MAX_ROUNDS):
        machine = read_machine(commands, environ)
        plan = decide(machine)
        if dry or not plan:
            return Result((*done, *plan.actions), machine.seen, dry)
        if plan == last:
            break
        last = plan
        if needs_root(plan) and not machine.root:
            if not (machine.sudo and become_root(plan)):
                raise PrerequisiteMissing("root is needed to install or start the engine", _root_hint(machine))
            done += plan.actions
            continue
        installer = Installer(commands, environ, machine, on_line)
        for action in plan.actions:
            on_action(action)
            installer.carry_out(action)
            done.append(action)
    seen = read_machine(commands, environ).seen
    if seen.error:
        raise InstallFailed(f"everything is installed, but: {seen.error.message}", seen.error.hint)
    return Result(tuple(done), seen)


def _refuse_other_engines(seen: Observation) -> None:
    """Raise if the chosen engine is one that installing packages here would not change."""
    error = seen.engine_error
    if isinstance(error, (ConfigError, SocketPermission)):
        raise error
    if error and seen.endpoint and seen.endpoint.socket != DEFAULT_SOCKET:
        raise error


def _engine(machine: Machine) -> list[Action]:
    """Return the actions that lead to a docker command and an engine that answers."""
    seen = machine.seen
    if seen.engine_error is None:
        if seen.cli:
            return []
        command = "docker-cli" if "docker-cli" in (machine.available or {}) else "docker.io"
        return [Action("engine", "install", "the docker command is missing", (command,))]
    actions = []
    packages = _engine_packages(machine)
    if packages:
        cause = "there is no engine" if not machine.dockerd else "the engine needs them"
        actions.append(Action("engine", "install", cause, packages))
    if machine.daemon:
        cause = f"dockerd runs (process {machine.daemon}) but does not answer yet"
        return [*actions, Action("engine", "wait", cause)]
    if machine.stale_pid:
        actions.append(Action("engine", "unlock", "the pid file names a process that is not an engine"))
    return [*actions, Action("engine", "start", "the engine is not running", (machine.init,))]


def _engine_packages(machine: Machine) -> tuple[str, ...]:
    """Return the packages that the engine lacks. Raises PrerequisiteMissing if apt has no engine."""
    available = machine.available or {}
    packages: list[str] = []
    if not machine.dockerd:
        # Docker's own repository was added to be used, and its packages conflict with Debian's:
        # https://docs.docker.com/engine/install/debian/#uninstall-old-versions
        own = ["docker-ce", "docker-ce-cli", "containerd.io"]
        packages += own if "docker-ce" in available else ["docker.io"]
        # Without certificates no registry is trusted. If some exist, they may be more than the package's own.
        packages += [] if machine.certificates else ["ca-certificates"]
    if not machine.seen.cli and "docker-ce" not in available and "docker-cli" in available:
        packages.append("docker-cli")
    if not machine.iptables:
        packages.append("iptables")
    if packages and machine.apparmor:
        # If AppArmor is on in the kernel, no container starts without its parser.
        packages.append("apparmor")
    if machine.available is not None and "docker.io" in packages and "docker.io" not in available:
        raise PrerequisiteMissing("apt offers no engine (package docker.io)", _MANUAL)
    return tuple(packages)


def _compose(machine: Machine) -> list[Action]:
    """Return the actions that lead to a Compose v2 plugin. Raises PrerequisiteMissing if apt has none."""
    if machine.seen.compose:
        return []
    cause = machine.seen.compose_error.message if machine.seen.compose_error else "Compose v2 is missing"
    if machine.available is None:
        return [Action("compose", "install", cause)]
    for package in ("docker-compose-plugin", "docker-compose-v2", "docker-compose"):
        version = machine.available.get(package)
        if version and apt.upstream(version) >= OLDEST:
            if machine.root or needs_root(Plan(tuple(_engine(machine)))):
                return [Action("compose", "install", cause, (package,))]
            return [Action("compose", "add", cause, (package, machine.codename))]
    successor = apt.NEXT_RELEASE.get(machine.codename)
    if successor and apt.next_release_sources(machine.sources, machine.codename):
        cause = f"{cause}; {machine.codename} has only v1"
        return [Action("compose", "add", cause, ("docker-compose", successor))]
    raise PrerequisiteMissing(
        "apt offers no Compose v2",
        "install the plugin by hand: https://docs.docker.com/compose/install/linux/#install-the-plugin-manually",
    )


def _buildx(machine: Machine) -> list[Action]:
    """Return the action that adds the buildx which Compose wants. Nothing if apt has none: only builds need it."""
    if not machine.seen.lacks_buildx or not machine.has_apt:
        return []
    cause = f"Compose {machine.seen.compose} builds images with it"
    if machine.available is None:
        return [Action("packages", "update", "apt has no package lists yet")] if machine.root else []
    for package in ("docker-buildx-plugin", "docker-buildx"):
        if apt.upstream(machine.available.get(package, "0")) >= OLDEST_BUILDX:
            if machine.root:
                return [Action("buildx", "install", cause, (package,))]
            return [Action("buildx", "add", cause, (package, machine.codename))]
    return []


def _not_supported(machine: Machine) -> StackError:
    """Return the error for a machine without apt. Its hint has the commands for that system."""
    error = machine.seen.error
    assert error is not None
    if machine.system in _BY_SYSTEM:
        return PrerequisiteMissing(error.message, _BY_SYSTEM[machine.system])
    for distribution in (machine.distribution, *machine.like):
        # openSUSE has opensuse-leap, opensuse-tumbleweed and more.
        commands = _COMMANDS.get(distribution.partition("-")[0])
        if commands:
            return PrerequisiteMissing(error.message, f"as root: {commands}")
    where = machine.name or machine.system
    return PrerequisiteMissing(error.message, f"install an engine and Compose v2 for {where}: {_MANUAL}")


def _root_hint(machine: Machine) -> str:
    command = shlex.join(sudo.command_line())
    return f"run: sudo {command}" if machine.sudo else f"run as root: {command}"
