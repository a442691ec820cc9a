"""The reference stack, examples/ai-workflow, copied, built and filled, for one comparison."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common import CHECKOUT, TASKS, InvalidRunError, Options, Project, cleaned_up, folder, say, unique

_EXAMPLE = CHECKOUT / "examples" / "ai-workflow"


@contextmanager
def reference(options: Options, prepare: Callable[[Project], None] = lambda stack: None) -> Iterator[Project]:
    """Yield the reference stack, running and ready; removed at the end. `prepare` may change its copy before."""
    with folder() as path:
        place = path / "ai-workflow"
        shutil.copytree(_EXAMPLE, place, ignore=shutil.ignore_patterns(".stackhand", "__pycache__", "secrets"))
        (place / "tasks.py").write_text(TASKS)
        # Without compose.override.yaml, which is for development; on a port that nobody has.
        stack = Project(
            place,
            unique("reference"),
            options,
            COMPOSE_FILE="compose.yaml",
            AI_WORKFLOW_PORT=str(_free_port()),
        )
        for step in ("make-base-image", "setup"):
            _run(stack, step)
        prepare(stack)
        say("  building the images")
        stack.compose("build", "--quiet", *_one_for_each_image(stack))
        with cleaned_up(stack):
            say("  filling the databases")
            stack.compose("up", "-d", "--wait")
            yield stack


def _one_for_each_image(stack: Project) -> list[str]:
    """Return services that build all images. Compose 2.40 fails now and then where several build the same one."""
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    return list({entry["image"]: name for name, entry in services.items() if "build" in entry}.values())


def _run(stack: Project, script: str) -> None:
    done = subprocess.run(
        [stack.folder / script], cwd=stack.folder, env=stack.env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InvalidRunError(f"{script} failed: {done.stderr.strip()[-500:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
