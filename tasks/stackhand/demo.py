"""The reference stack as a demonstration: prepare it, give it work, break it, remove it."""

from __future__ import annotations

import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.cli import Selection
from stackhand.engine.compose.labels import FOLDER_LABEL, PROJECT_LABEL
from stackhand.engine.compose.project import Project
from stackhand.engine.host.programs import Programs
from stackhand.errors import CommandFailed, ConfigError, StackError
from stackhand.model import Action, Plan

TEXT = "Stacks start in order, and what is wrong is put right."
# The development override is for those who change the code.
SELECTION = Selection(files=("compose.yaml",))
_FOLDER_FORMAT = f'{{{{.Label "{FOLDER_LABEL}"}}}}'
_FRONT, _WORKER = "caddy", "worker"
_TASK_SECONDS = 30.0


class DemoFailed(StackError):
    """The reference stack runs, and did not do what it was asked."""


@dataclass(frozen=True)
class Work:
    """A Celery task that went through the whole stack (TLS, api, queue, worker, database) and back, in `seconds`."""

    id: str
    state: str
    result: Mapping[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the task for the document of `demo`."""
        return {"id": self.id, "state": self.state, "result": dict(self.result), "seconds": round(self.seconds, 3)}


def find() -> Path:
    """Return the folder of the reference stack. Raises ConfigError where stackhand is an installed package."""
    folder = Path(__file__).resolve().parents[2] / "examples" / "ai-workflow"
    if not (folder / "compose.yaml").is_file():
        raise ConfigError(
            "the reference stack is part of stackhand's repository, and this is an installed package",
            "run `./inv demo` in a checkout",
        )
    return folder


@dataclass(frozen=True)
class Demo:
    """The reference stack in one folder."""

    folder: Path
    commands: Programs
    environ: Mapping[str, str]

    def refuse_others(self, project: str) -> None:
        """Raise ConfigError when the engine has a project of this name from another folder: it is not ours to touch.

        Volumes don't say which folder they come from. Without secrets in this folder nothing here can have made them,
        so they count as another's.
        """
        listed = self._run(
            ["docker", "ps", "--all", "--filter", f"label={PROJECT_LABEL}={project}", "--format", _FOLDER_FORMAT]
        )
        others = sorted(set(listed.split("\n")) - {"", str(self.folder)})
        if not others and not self._has_secrets() and not listed.strip():
            volumes = self._run(["docker", "volume", "ls", "--quiet", "--filter", f"label={PROJECT_LABEL}={project}"])
            others = [f"volumes such as {volumes.split()[0]}"] if volumes.split() else []
        if others:
            raise ConfigError(
                f"the engine has a project {project!r} that is not this one: {others[0]}",
                "give this one another name and port: COMPOSE_PROJECT_NAME=demo AI_WORKFLOW_PORT=8444 ./inv demo",
            )

    def secrets(self) -> Plan:
        """Return the plan that makes the secrets, which the project cannot be read without; empty if they exist."""
        if self._has_secrets():
            return Plan()
        return Plan((Action("secrets", "make", "there are none yet", ("setup",)),))

    def images(self, engine: Engine, project: Project) -> Plan:
        """Return the plan that makes the base image, which all others are built on; empty if nothing must be built."""
        missing = [each.name for each in project.services.values() if each.builds and not engine.image_id(each.image)]
        if not missing:
            return Plan()
        cause = f"images have to be built for {', '.join(missing)}"
        return Plan((Action("base image", "make", cause, ("make-base-image",)),))

    def carry_out(self, action: Action, on_line: Callable[[str], None]) -> None:
        """Run the script of one action; it does nothing where there is nothing to do. Raises DemoFailed."""
        (script,) = action.arguments
        try:
            self._run([str(self.folder / script)], on_line)
        except CommandFailed as error:
            lines = [line for line in error.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
            told = dict(line.split(": ", 1) for line in lines)
            raise DemoFailed(told.get("error", error.message), told.get("hint")) from error

    def submit(self, project: Project, text: str = TEXT) -> Work:
        """Hand a text in at the front door and wait for its result. Raises DemoFailed."""
        ports = project.services[_FRONT].ports
        base = f"https://localhost:{ports[0].published}"
        authority = self._run(SELECTION.argv("exec", "-T", _FRONT, "cat", "/tls/ca.crt"))
        opener = urllib.request.build_opener(
            # What goes to this machine goes through no proxy.
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)),
        )
        began = time.monotonic()
        try:
            number = _ask(opener, f"{base}/tasks", {"text": text})["id"]
            while True:
                task = _ask(opener, f"{base}/tasks/{number}")
                # The row is written before Celery says that its task is over.
                if task["state"] == "done" and task["celery"] != "PENDING":
                    return Work(number, task["celery"], task["result"], time.monotonic() - began)
                if time.monotonic() - began > _TASK_SECONDS:
                    raise DemoFailed(
                        f"the task {number} is still {task['state']} after {_TASK_SECONDS:g} s",
                        "`inv services.logs -s worker` in the reference stack's folder shows why",
                    )
                time.sleep(0.05)
        except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
            raise DemoFailed(f"{base} does not take tasks: {error}", "see `inv services.logs -s api`") from error

    def break_it(self) -> None:
        """Kill the worker, as a crash would, and drop the database role that PgBouncer looks up passwords with.

        The worker's restart policy leaves alone what was killed by hand.
        """
        self._run(SELECTION.argv("kill", _WORKER))
        psql = ("exec", "-T", "postgres", "psql", "-q", "-U", "postgres", "-d", "app")
        self._run(SELECTION.argv(*psql, "-c", "DROP OWNED BY pgbouncer", "-c", "DROP ROLE pgbouncer"))

    def remove(self, on_line: Callable[[str], None]) -> None:
        """Remove containers, networks, volumes, and the secrets that belong to them. Images stay."""
        self._run(SELECTION.argv("down", "--volumes", "--remove-orphans"), on_line)
        shutil.rmtree(self.folder / "secrets", ignore_errors=True)

    def _has_secrets(self) -> bool:
        return any(self.folder.glob("secrets/*.txt"))

    def _run(self, argv: list[str], on_line: Callable[[str], None] | None = None) -> str:
        return self.commands.run(argv, cwd=self.folder, env=self.environ, on_line=on_line).stdout


def _ask(opener: urllib.request.OpenerDirector, url: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)
