"""Runs a task of ours as root, through sudo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

TASK = "engine.install"


def command_line(*words: str) -> list[str]:
    """Return the command line that runs a task as this one was run, to type after `sudo`; without words, TASK."""
    program = Path(sys.argv[0])
    words = words or (TASK,)
    if program.name == "__main__.py":
        return [sys.executable, "-m", "stackhand", *words]
    return [str(program.resolve()), *words]


def rerun_with_sudo(environ: Mapping[str, str], *, may_prompt: bool) -> bool:
    """Run TASK through sudo; return whether it worked. sudo asks for a password only if it `may_prompt`."""
    sudo = ["sudo"] if may_prompt else ["sudo", "-n"]
    # sudo clears the environment. PYTHONPATH lets the package be found again.
    source = Path(__file__).resolve().parents[3]
    argv = [*sudo, "env", f"PYTHONPATH={source}", *command_line()]
    # Not through Programs: in a process group of its own, sudo could not ask on the terminal. The caller prints the
    # result, so what the task prints is progress and goes to stderr.
    return subprocess.call(argv, env=dict(environ), stdout=sys.stderr) == 0
