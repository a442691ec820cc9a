"""Installing the engine as root, for someone who is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import stackhand


def argv() -> list[str]:
    """Return the command line that installs the engine as root, wherever this package was found."""
    source = Path(stackhand.__file__).resolve().parent.parent
    # sudo starts with a clean environment, and without it the package might not be found.
    return ["sudo", "env", f"PYTHONPATH={source}", sys.executable, "-m", "stackhand", "engine.install"]


def again_as_root(environ: Mapping[str, str], *, may_prompt: bool) -> bool:
    """Run `engine.install` through sudo, which may ask for a password; return whether it worked."""
    words = argv() if may_prompt else ["sudo", "-n", *argv()[1:]]
    """Run `engine.install` through sudo, with a password if need be; return whether it worked."""
    # prints is progress here; the result is told by whoever called.
    return subprocess.call(words, env=dict(environ), stdout=sys.stderr) == 0
