"""Every error that a user can cause: one class each, with a message, a hint and an exit code.

People and CI rely on the exit codes: 1 something is wrong or failed, 2 bad configuration or arguments, 3 a prerequisite
is missing, 4 approval is needed and nobody can be asked, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class StackError(Exception):
    """A failure with a message of one line and, if it helps, a hint that says what to do.

    `foreign` is the part of the message that came from elsewhere, in which there may be secrets.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, *, foreign: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.foreign = foreign

    def to_json(self, message: str | None = None) -> dict[str, object]:
        """Return the document of a task that could not begin; `message` replaces the error's own."""
        return {
            "ok": False,
            "error": {"message": message or self.message, "hint": self.hint, "exit_code": self.exit_code},
        }


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None if no name is similar."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None


def nearest_task(name: str, known: Iterable[str]) -> str | None:
    """Return the task that `name` was most probably meant to be, or None.

    A name without its namespace is compared with the last part of each task.

    >>> nearest_task("services.strat", ["services.start", "services.status", "up"])
    'services.start'
    >>> nearest_task("statsu", ["services.start", "services.status", "up"])
    'services.status'
    """
    tasks = {each: each for each in known}
    if "." not in name:
        tasks = {**{each.rpartition(".")[2]: each for each in tasks}, **tasks}
    match = nearest(name, tasks)
    return tasks[match] if match else None


def did_you_mean(name: str, known: Sequence[str], what: str) -> str:
    """Return a hint that suggests the nearest known name, or lists them all."""
    match = nearest(name, known)
    if match:
        return f"did you mean {match!r}?"
    return f"{what}: {', '.join(known)}" if known else f"there are no {what}"


# 1: the task ran, and something is wrong or failed


class StartFailed(StackError):
    """One or more services did not become ready."""


class StopFailed(StackError):
    """A service still runs after it was stopped."""


class VolumeInUse(StackError):
    """A container outside the project mounts a volume that a reset would remove."""


class NetworkInUse(StackError):
    """A network has to be replaced, and a container that does not belong to its services is on it."""


class NetworkOutdated(StackError):
    """A network's definition changed, and what was asked for would replace it under the other services on it."""


class ResetFailed(StackError):
    """Something is left after a reset removed it."""


class NotReady(StackError):
    """`services.status` found a service that is not ready."""


class FixFailed(StackError):
    """A fix did not solve what its finding says."""


class PermissionsWrong(StackError):
    """`perms.check` found a wrong owner or mode, or a fix or an undo could not change all entries."""


class JournalFailed(StackError):
    """A change could not be written to the journal, so it was not made."""


class LockHeld(StackError):
    """Another run is changing this stack."""


class CommandFailed(StackError):
    """A command of the Docker CLI or of the system failed.

    `argv`, `returncode` and `stderr` allow callers to explain the failure better.
    """

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str, hint: str | None = None) -> None:
        last = [line for line in stderr.strip().splitlines() if line.strip()]
        detail = last[-1].strip() if last else f"exit code {returncode}"
        super().__init__(f"`{' '.join(argv[:4])}` failed: {detail}", hint, foreign=detail)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


class InstallFailed(StackError):
    """A step of `engine.install` failed."""


class ForeignContainers(StackError):
    """A reset would remove containers that were made from another folder."""


# 2: bad configuration or arguments


class ConfigError(StackError):
    """The user's configuration or arguments are wrong."""

    exit_code = 2


class BadArgument(ConfigError):
    """A flag does not accept the given value."""


class UnknownTask(ConfigError):
    """The command line names a task that there is not."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        match = nearest_task(name, known)
        super().__init__(f"unknown task {name!r}", f"did you mean {match!r}?" if match else "`inv -l` lists the tasks")


class UnknownFlag(ConfigError):
    """The command line has a flag that its task does not take."""

    def __init__(self, flag: str, known: Sequence[str], task: str | None) -> None:
        where = f" of {task}" if task else ""
        match = nearest(flag.lstrip("-"), [each.lstrip("-") for each in known])
        all_of_them = f"flags: {', '.join(sorted(known))}" if task else "`inv --help` lists Invoke's own flags"
        super().__init__(f"unknown flag {flag}{where}", f"did you mean '--{match}'?" if match else all_of_them)


class UnknownSetting(ConfigError):
    """A key below `stackhand:` or a variable `INVOKE_STACKHAND_…` does not exist."""


class InvalidSetting(ConfigError):
    """A setting has the wrong type or an impossible value."""


class NoComposeFile(ConfigError):
    """There is no compose file in this folder or in one above."""


class InvalidComposeFile(ConfigError):
    """Compose rejects the compose file, or a file that it names is missing."""


class MissingFile(ConfigError):
    """The file of a secret or config does not exist."""


class UnknownKind(ConfigError):
    """The label `stackhand.kind` of a service names an unknown kind."""


class BrokenKind(ConfigError):
    """A kind from another package cannot be loaded."""


class UnknownStep(ConfigError):
    """`fixes.steps` names a task that the project does not have."""


class UnknownUser(ConfigError):
    """`--owner` names a user or group that this machine does not have."""


class UnknownRun(ConfigError):
    """`perms.undo` names a run that has no journal."""


class UnknownVolume(ConfigError):
    """The engine has no volume of this name."""


class DependencyCycle(ConfigError):
    """Services depend on each other in a circle."""

    def __init__(self, cycle: Sequence[str]) -> None:
        super().__init__(
            f"services depend on each other in a circle: {' → '.join(cycle)}",
            "remove one of these depends_on entries",
        )
        self.cycle = tuple(cycle)


class UnknownService(ConfigError):
    """The Compose project has no service of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown service {name!r}", did_you_mean(name, sorted(known), "services"))


# 3: a prerequisite is missing


class PrerequisiteMissing(StackError):
    """Something outside the project is missing."""

    exit_code = 3


class DockerMissing(PrerequisiteMissing):
    """The docker command is not installed."""


class EngineUnreachable(PrerequisiteMissing):
    """No engine answers at the endpoint in use."""


class SocketPermission(PrerequisiteMissing):
    """The engine's socket exists, but this user may not use it."""


class ComposeMissing(PrerequisiteMissing):
    """The docker CLI has no Compose v2 plugin, or one that is too old."""


class JournalRefused(PrerequisiteMissing):
    """Another user owns a journal or could have written to it, so its content is not trusted."""


class VolumeUnreachable(PrerequisiteMissing):
    """Neither this machine nor a helper container can reach a volume."""


class StateFolderUnwritable(PrerequisiteMissing):
    """`.stackhand/` or the user's own folder for a project is not writable."""


# 4: approval


class ApprovalNeeded(StackError):
    """A step needs approval, and there is no terminal to ask on."""

    exit_code = 4


class OtherFolder(ApprovalNeeded):
    """A run would change containers that were made from another folder with the same project name."""


# 130: interrupted


class Interrupted(StackError):
    """The run was ended by Ctrl-C, SIGTERM or SIGHUP."""

    exit_code = 130
