"""Installing the engine as root, for someone who is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

TASK = "engine.install"


def command_line(*words: str) -> list[str]:
    """Return a command line that a person can type after `sudo`, from the same folder; for TASK where no words are."""
    program = Path(sys.argv[0])
    words = words or (TASK,)
    if program.name == "__main__.py":
        return [sys.executable, "-m", "stackhand", *words]
    return [str(program.resolve()), *words]


def rerun_with_sudo(environ: Mapping[str, str], *, may_prompt: bool) -> bool:
    """Run the task through sudo, which asks for a password where it may; return whether it worked."""
    sudo = ["sudo"] if may_prompt else ["sudo", "-n"]
    # sudo starts with a clean environment, and without its folder the package might not be found.
    source = Path(__file__).resolve().parents[3]
    argv = [*sudo, "env", f"PYTHONPATH={source}", *command_line()]
    # Not through Commands: a process group of its own would leave sudo without the terminal to ask on. What it
    # prints is progress here; the result is told by whoever called.
    return subprocess.call(argv, env=dict(environ), stdout=sys.stderr) == 0
