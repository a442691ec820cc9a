"""The reference stack, examples/ai-workflow, as a project of a test module's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker import APIClient
from support import CHECKOUT, PATIENCE, Project, Result, clean_environment, one_at_a_time

_EXAMPLE = CHECKOUT / "examples" / "ai-workflow"
_LEFT_OUT = shutil.ignore_patterns("secrets", ".stackhand", "__pycache__", ".*_cache")
_TASKS = "from stackhand import ns\n"
# STACKHAND_REFERENCE=current: built with today's servers, Postgres 18, Redis 8, the newest Celery of Debian.
CURRENT = os.environ.get("STACKHAND_REFERENCE") == "current"
_FILES = ("compose.yaml", "compose.current.yaml") if CURRENT else ("compose.yaml",)
IMAGES = "ai-workflow-current" if CURRENT else "ai-workflow"
# Packages of a mirror that stands still are out of date for apt, and the newest there are.
_BASE = "ai-workflow-current-base"
_BASE_DOCKERFILE = """FROM debian:sid-slim
RUN echo 'Acquire::Check-Valid-Until "false";' > /etc/apt/apt.conf.d/99-frozen-mirror
"""


class Reference(Project):
    """The reference stack under a name and a port of its own; without the development override.

    A test breaks it, lets `fixes` repair it and may go on breaking it: every test of a module works on the same stack
    and leaves it whole.
    """

    @classmethod
    def prepare(cls, folder: Path, name: str, client: APIClient, *, own_images: bool = False) -> Reference:
        """Copy the example, make its secrets and its images. Nothing is started yet.

        A test that changes what images are built from has `own_images`: the usual ones belong to all.
        """
        shutil.copytree(_EXAMPLE, folder, ignore=_LEFT_OUT)
        if own_images:
            for file in _FILES:
                compose = folder / file
                compose.write_text(compose.read_text().replace("image: ai-workflow-", f"image: {name}-"))
        (folder / "tasks.py").write_text(_TASKS)
        shutil.copy(CHECKOUT / "invoke.yaml", folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        made = cls(
            folder,
            clean_environment(
                COMPOSE_PROJECT_NAME=name,
                COMPOSE_FILE=":".join(_FILES),
                AI_WORKFLOW_BASE=_BASE,
                AI_WORKFLOW_PORT=port,
                # On a busy machine a worker or a database takes its time after a restart.
                INVOKE_STACKHAND_FIXES_PATIENCE="120",
            ),
            name=name,
            client=client,
        )
        with one_at_a_time("reference-images"):
            for step in (["make-base-image", *(["sid"] if CURRENT else [])], ["setup"]):
                subprocess.run([folder / step[0], *step[1:]], cwd=folder, env=made.env, check=True, capture_output=True)
            if CURRENT:
                build = ["docker", "build", "--quiet", "--tag", _BASE, "-"]
                subprocess.run(build, env=made.env, input=_BASE_DOCKERFILE, text=True, check=True, capture_output=True)
            made.compose("build", "--quiet")
        return made

    def up(self) -> dict[str, Any]:
        """Start all of it, with the post-startup fixes; return the start's document."""
        result = self.inv("up", "--json", timeout=480)
        document: dict[str, Any] = result.json()
        assert {each["state"] for each in document["services"]} <= {"healthy", "running", "completed"}, result
        if result.code:
            # On a busy machine an answer to one of the fixes' questions may have been late.
            self.is_whole()
        return document

    def fixes(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run the post-startup fixes; return their document."""
        result = self.inv("services.fixes", "--json", *words, timeout=480)
        assert result.code == code, result
        self.keeps_secrets(result)
        document: dict[str, Any] = result.json()
        return document

    def is_whole(self) -> None:
        """Assert that the fixes find nothing to do, and that all is well; on a busy machine an answer may be late."""
        deadline = time.monotonic() + PATIENCE
        while True:
            result = self.inv("services.fixes", "--json", timeout=480)
            document = result.json()
            assert document["fixes"] == [], result
            if document["ok"]:
                break
            assert time.monotonic() < deadline, result
        assert result.code == 0, result
        self.keeps_secrets(result)

    def fixed(self, document: dict[str, Any]) -> list[str]:
        """Return the ids of the findings that a run of the fixes repaired, all of them with success."""
        assert all(each["ok"] for each in document["fixes"]), document["fixes"]
        return sorted({str(each["finding"]) for each in document["fixes"]})

    def sql(self, statement: str, *, database: str = "app") -> str:
        """Run SQL as the database's superuser; return the rows, columns separated by |."""
        words = ["exec", "-T", "postgres", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        return self.compose(*words, "-d", database, "-c", statement).strip()

    def redis(self, *words: str) -> str:
        """Run a Redis command as the administrator."""
        password = (self.directory / "secrets/redis_admin_password.txt").read_text()
        return self.compose(
            "exec", "-T", "-e", f"REDISCLI_AUTH={password}", "redis", "redis-cli", "--user", "admin", *words
        ).strip()

    def identities(self) -> dict[str, tuple[str, str]]:
        """Return for each service its container's id and moment of start."""
        return {
            str(each["Config"]["Labels"]["com.docker.compose.service"]): (each["Id"], each["State"]["StartedAt"])
            for each in self.containers()
        }

    def keeps_secrets(self, result: Result) -> None:
        """Assert that no secret's value is in what a run printed, nor in what it remembers."""
        remembered = "".join(
            file.read_text(encoding="utf-8", errors="replace")
            for file in (self.directory / ".stackhand").rglob("*")
            if file.is_file()
        )
        for file in (self.directory / "secrets").glob("*.txt"):
            assert file.read_text() not in result.stdout + result.stderr + remembered, f"{file.name} was told"


def eventually(what: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Poll until `what` is true; a failed assertion when it never is."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, f"it never came true within {timeout:g} s"
        time.sleep(0.1)
