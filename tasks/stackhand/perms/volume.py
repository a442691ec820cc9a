"""A volume's files get an owner: through this machine's folder of the volume, else through a helper container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stackhand.engine.client import Engine
from stackhand.engine.volumes import INSIDE, Volume, find, names, run_inside
from stackhand.errors import UnknownVolume, VolumeUnreachable, did_you_mean
from stackhand.perms.crew import Progress, walk
from stackhand.perms.journal import Writer
from stackhand.perms.rules import VENDORED, Rules, Target
from stackhand.perms.run import Result, journaled
from stackhand.perms.walk import Known, Tally
from stackhand.state import StateFolder

_WRONG = f"find {INSIDE} -xdev '(' ! -user {{uid}} -o ! -group {{gid}} ')'"
# The first number is how many entries there are, the second how many belong to somebody else.
_COUNT = f"find {INSIDE} -xdev -exec echo x ';' | wc -l; {_WRONG} -exec echo x ';' | wc -l"
_CHANGE = f"{_WRONG} -exec chown -h {{uid}}:{{gid}} '{{{{}}}}' +"


@dataclass(frozen=True)
class Way:
    """How a volume is reached: by its folder here, or with this image inside a container."""

    volume: Volume
    folder: Path | None = None
    image: str = ""


def reach(engine: Engine, project: str | None, name: str) -> Way:
    """Find a volume and the way to it. Raises UnknownVolume, VolumeUnreachable."""
    volume = find(engine, project, name)
    if volume is None:
        raise UnknownVolume(f"unknown volume {name!r}", did_you_mean(name, names(engine, project), "volumes"))
    if os.geteuid() == 0 and volume.mountpoint and _is_here(engine, volume):
        return Way(volume, folder=Path(volume.mountpoint))
    for image in volume.images:
        code, _ = run_inside(engine, volume.name, image, "command -v find && command -v chown")
        if code == 0:
            return Way(volume, image=image)
    raise VolumeUnreachable(
        f"volume {volume.name} can't be reached from here, and no container with a shell, find and chown uses it",
        "run it as root on the engine's machine, or start a service that uses the volume and has a shell",
    )


def folder(engine: Engine, name: str) -> Path:
    """Return this machine's folder of a volume by its exact name. Raises UnknownVolume, VolumeUnreachable."""
    volume = find(engine, None, name)
    if volume is None:
        raise UnknownVolume(f"there is no volume {name} any more", "what was changed in it is gone with it")
    if not (volume.mountpoint and _is_here(engine, volume)):
        raise VolumeUnreachable(f"volume {name} can't be reached from here", "run it as root on the engine's machine")
    return Path(volume.mountpoint)


def fix(
    way: Way, engine: Engine, uid: int, gid: int, state: StateFolder | None, progress: Progress = lambda _: None
) -> Result:
    """Give every entry of the volume to this user and group; modes stay. Without a state folder, look only."""
    target = Target(uid, gid, str(uid), str(gid))
    if way.folder is None:
        return _inside(way, engine, target, change=state is not None)
    result, folder = Result(way.folder, target), str(way.folder)
    rules = Rules(target, (), (), (), root_area=VENDORED, spares_data=False)

    def work(writer: Writer | None) -> Tally:
        return walk(folder, rules, Known(), writer, result.notes, progress, result.tally)

    if state is None:
        result.tally = work(None)
    else:
        journaled(state, result, work, volume=way.volume.name)
    return result


def _inside(way: Way, engine: Engine, target: Target, *, change: bool) -> Result:
    result = Result(Path(way.volume.mountpoint or way.volume.name), target)

    def run(script: str) -> str:
        return _run(engine, way, script.format(uid=target.uid, gid=target.gid))

    entries, wrong = map(int, run(_COUNT).split())
    result.tally.scanned, result.tally.wrong = entries, wrong
    if change and wrong:
        run(_CHANGE)
        left = int(run(_COUNT).split()[1])
        result.tally.changed = wrong - left
        result.tally.failed = left
        if left:
            result.notes.add("failed", str(result.root), f"{left} entries still belong to somebody else")
    return result


def _run(engine: Engine, way: Way, script: str) -> str:
    code, output = run_inside(engine, way.volume.name, way.image, script)
    if code:
        last = (output.strip().splitlines() or [f"exit code {code}"])[-1]
        raise VolumeUnreachable(f"the helper container failed: {last}", f"its image was {way.image[:19]}")
    return output


def _is_here(engine: Engine, volume: Volume) -> bool:
    """Return whether the volume's folder on the engine's machine is this machine's."""
    return str(engine.api.base_url).startswith(("http+docker", "http+unix")) and Path(volume.mountpoint).is_dir()
