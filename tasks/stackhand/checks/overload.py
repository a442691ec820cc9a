"""Whether the machine has too much to do to answer in time: then a missing answer proves nothing. Pure."""

from __future__ import annotations

from stackhand.engine.host.load import CpuLoad

# Seconds. `true` in a container takes 0.1 to 0.2 s, and less than 1 s with two tasks for each core.
_SLOW_EXEC = 2.0
# The percentage of the last ten seconds in which a task waited: a load that has just ended is still in the average.
_PRESSURE = 50.0


def overload(exec_seconds: float | None, cpu: CpuLoad | None, tasks: float = 4.0) -> str:
    """Return what shows that the machine of the engine has too much to do, "" where nothing does.

    `exec_seconds` is how long the least program took in a container just now, None where none could be run. `cpu` is
    how busy the machine is, None where the engine runs on another than this one. `tasks` is how many for each
    core, over a minute, are too many.

    >>> overload(0.2, CpuLoad(2, 3.1, 40.0)), overload(None, None)
    ('', '')
    >>> overload(0.9, CpuLoad(2, 25.0, 97.5))
    'load average 25.0 on 2 cores'
    >>> overload(4.25, None)
    '`true` in a container takes 4.2 s'
    """
    shown = []
    if cpu and cpu.load is not None and cpu.load >= tasks * cpu.cores and (cpu.pressure or 100.0) >= _PRESSURE:
        shown.append(f"load average {cpu.load:.1f} on {cpu.cores} cores")
    if exec_seconds is not None and exec_seconds >= _SLOW_EXEC:
        shown.append(f"`true` in a container takes {exec_seconds:.1f} s")
    return ", ".join(shown)
