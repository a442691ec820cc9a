"""`inv -l` in a project with 30 services against `inv -l` of a tasks.py with one task.

The project has a compose file with 30 services and a tasks.py of one line, `from stackhand import ns`.
The two sides take turns. The first run in a new folder is told apart, and so is a first run without any
bytecode, which is what a fresh checkout pays once.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from common import TASKS, Bound, InvalidRunError, Options, Report, folder, main, measure
from common import environment as clean_environment
from graphs import compose_file, thirty

EMPTY_TASKS = '''\
from invoke import task


@task
def nothing(c):
    """Do nothing."""
'''
EMPTY, STACKHAND = "inv -l, one task", "inv -l, stackhand and 30 services"


def compare(options: Options) -> Report:
    """List tasks with both sides in turns."""
    report = Report("inv -l in a project with 30 services")
    with folder() as path:
        sides = {EMPTY: _empty(path / "first-empty"), STACKHAND: _project(path / "first-stackhand")}
        for name, place in sides.items():
            cold = {"PYTHONPYCACHEPREFIX": str(path / "bytecode")}
            report.add(f"{name}: first, no bytecode", _list_tasks(place, cold))
        sides = {EMPTY: _empty(path / "empty"), STACKHAND: _project(path / "stackhand")}
        for name, place in sides.items():
            _list_tasks(path / f"first-{place.name}")  # bytecode of the packages is written where it belongs
            report.add(f"{name}: first in this folder", _list_tasks(place))
        for _ in range(options.runs):
            for name, place in sides.items():
                report.add(name, _list_tasks(place))
    first = {name: report.median(f"{name}: first in this folder") for name in sides}
    report.bounds = [
        Bound("time / time with one task", report.median(STACKHAND) / report.median(EMPTY), 1.5),
        Bound("the same, first in this folder", first[STACKHAND] / first[EMPTY]),
    ]
    return report


def _empty(place: Path) -> Path:
    place.mkdir()
    (place / "tasks.py").write_text(EMPTY_TASKS)
    return place


def _project(place: Path) -> Path:
    place.mkdir()
    (place / "tasks.py").write_text(TASKS)
    (place / "compose.yaml").write_text(json.dumps(compose_file("listed", thirty(), "busybox"), indent=1))
    return place


def _list_tasks(place: Path, extra: dict[str, str] | None = None) -> float:
    done = measure([sys.executable, "-m", "invoke", "-l"], place, clean_environment(**extra or {}), quiet=False)
    services = re.findall(r"^\s+\S*\bl\d-\d\d", done.stdout, re.MULTILINE)
    if done.code or ("stackhand" in place.name and len(services) < len(thirty())):
        raise InvalidRunError(f"`inv -l` in {place.name}: exit code {done.code}\n{done.stdout}\n{done.stderr}")
    return done.seconds


if __name__ == "__main__":
    main(compare, runs=21)
