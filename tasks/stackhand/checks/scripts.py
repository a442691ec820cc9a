"""Probe scripts: programs for a container's own shell or Python. They are files beside the code that sends them."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def read(package: str, name: str) -> str:
    """Return the text of a script that lies in a package: `read("stackhand.kinds.redis", "probe.sh")`."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
