"""How busy this machine is, as its kernel says."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class CpuLoad:
    """How busy a machine is.

    `load` is how many tasks ran or waited for a core or a disk, as an average of the last minute. `pressure` is the
    share of the last ten seconds in which some task waited for a core, from 0 to 100. None: the kernel does not say.
    """

    cores: int
    load: float | None = None
    pressure: float | None = None


def read(proc: Path = _PROC) -> CpuLoad:
    """Return how busy this machine is.

    https://www.kernel.org/doc/html/latest/accounting/psi.html, proc_loadavg(5).
    """
    load = pressure = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        load = float((proc / "loadavg").read_text().split()[0])
    with contextlib.suppress(OSError, ValueError, IndexError):
        pressure = float((proc / "pressure" / "cpu").read_text().split("avg10=")[1].split()[0])
    return CpuLoad(os.cpu_count() or 1, load, pressure)
