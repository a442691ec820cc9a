"""A check context whose containers are this machine's `sh`, with a PATH of their own: what kinds ask is really run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders import container

from stackhand.checks.context import CheckContext, ServiceActions, ServiceKinds
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.compose.project import Project
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

_USUAL = ("sh", "cat", "cut", "echo", "env", "find", "grep", "head", "printf", "readlink", "sed", "sha256sum", "tr")


class Shell:
    """Stands in for the engine: runs what is asked with `sh`, where only these programs are to be found.

    `programs` are real ones by name, or scripts by their text. What was run is kept in `asked`.
    """

    def __init__(self, folder: Path, programs: Mapping[str, str | None], containers: Sequence[Container]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.asked: list[tuple[list[str], dict[str, str]]] = []
        self.restarted: list[str] = []
        self._containers = list(containers)
        for name, text in {**dict.fromkeys(_USUAL), **programs}.items():
            file = folder / name
            if text is None:
                file.symlink_to(_real(name))
            else:
                file.write_text(text)
                file.chmod(0o755)

    def containers(self, project: str, service: str | None = None) -> list[Container]:
        return self._containers

    def memory(self, container: str) -> int:
        return 0

    def restart(self, container: str) -> None:
        self.restarted.append(container)

    def ask(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> ExecResult:
        given = dict(environment or {})
        self.asked.append((list(argv), given))
        try:
            done = subprocess.run(
                list(argv),
                env={"PATH": str(self.folder), **given},
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ExecResult(None, "", seconds=timeout)
        return ExecResult(done.returncode, done.stdout, done.stderr)


def _real(name: str) -> str | Path:
    """Return a program of this machine that works without the usual PATH, as a version manager's shim does not."""
    if name == "python3":
        return Path(sys.executable).resolve()
    return shutil.which(name) or "/missing"


def context(project: Project, shell: Any, folder: Path, *, celery: Sequence[str] = ()) -> CheckContext:
    """Return the check context of this project on this shell; restarts of services are kept in `shell.restarted`."""
    from stackhand.kinds.celery.kind import Celery

    actions = ServiceActions(
        start=lambda name: None,
        restart=shell.restarted.append,
        recreate=lambda name: None,
        run=lambda name, command: None,
    )
    kinds = ServiceKinds(dict.fromkeys(celery, (Celery(),)))
    return CheckContext(project, shell, kinds, Fixes(), StateFolder(folder), actions)


def running(*names: str, **more: Any) -> list[Container]:
    """Return a running container of each service, all on one network."""
    return [container(name, networks=frozenset({"back"}), **more) for name in names]
