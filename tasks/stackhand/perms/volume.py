"""Gives the files of a volume to an owner: in the volume's folder on this machine, else in a helper container."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stackhand.engine.api.client import Engine
from stackhand.engine.api.volumes import INSIDE, Volume, find_volume, run_in_volume, volume_names
from stackhand.errors import ApprovalNeeded, InvalidComposeFile, UnknownVolume, VolumeUnreachable, did_you_mean
from stackhand.perms.context import PermsContext
from stackhand.perms.journal import Writer
from stackhand.perms.policy.owner import ids
from stackhand.perms.policy.rules import VOLUME, Rules, Target
from stackhand.perms.result import Result
from stackhand.perms.run import run_journaled
from stackhand.perms.tree.counts import Counts
from stackhand.perms.tree.walk import LastCleanRun
from stackhand.perms.tree.workers import Progress, walk
from stackhand.state.folder import StateFolder

_PROTECTED = Path("/proc/sys/fs/protected_hardlinks")
# Sockets, devices and fifos are left alone, as elsewhere.
_WRONG = f"find {INSIDE} -xdev '(' -type f -o -type d -o -type l ')' '(' ! -user {{uid}} -o ! -group {{gid}} ')'"
_SPECIAL = "-type f '(' -perm -4000 -o -perm -2000 ')'"
# A setuid or setgid file of another user than root: it would become the new owner's.
_REFUSED = f"{_SPECIAL} ! -user 0 ! -user {{uid}}"
# Counts entries. `wc -l` of the names would count line feeds in them, and a process for each entry takes too long.
_EACH = "-exec sh -c 'for each; do echo x; done' _ {{}} + | wc -l"
# Prints how many entries there are, how many belong to somebody else, and how many of these are refused.
_COUNT = f"find {INSIDE} -xdev {_EACH}; {_WRONG} {_EACH}; {_WRONG} {_REFUSED} {_EACH}"
# The kernel removes setuid and setgid from a file whose owner changes (chown(2)).
_KEEP = 'for each; do mode=$(stat -c %a "$each") && chown -h {uid}:{gid} "$each" && chmod "$mode" "$each"; done'
_CHANGE = (
    f"{_WRONG} {_SPECIAL} ! '(' {_REFUSED} ')' -exec sh -c '{_KEEP}' _ {{{{}}}} +; "
    f"{_WRONG} ! '(' {_SPECIAL} ')' -exec chown -h {{uid}}:{{gid}} {{{{}}}} +"
)


@dataclass(frozen=True)
class VolumeAccess:
    """How to get at a volume's files: in this folder of this machine, or in a container of this image."""

    volume: Volume
    folder: Path | None = None
    image: str = ""


def fix_volume(
    context: PermsContext, name: str, owner: str | None, agree: Callable[[str], bool]
) -> tuple[VolumeAccess, Result]:
    """Give a volume's files to `--owner UID:GID`, under the project's lock; where `dry`, only look.

    `name` is the project's for it, or the engine's. Where containers use the volume, `agree` is asked whether to go on,
    and told why. Raises BadArgument, UnknownVolume, VolumeUnreachable, ApprovalNeeded, LockHeld, StateFolderUnwritable;
    what ends the run early is in the result.
    """
    uid, gid = ids(owner)
    engine = context.engine()
    try:
        project: str | None = context.project().name
    except InvalidComposeFile:
        project = None
    access = find_access(engine, project, name)
    if context.dry:
        return access, fix(access, engine, uid, gid, None, context.progress)
    if access.volume.running and not agree(
        f"volume {access.volume.name} is in use by {', '.join(access.volume.running)}"
    ):
        raise ApprovalNeeded("not agreed", "nothing was changed")
    with context.lock("perms.fix"):
        return access, fix(access, engine, uid, gid, context.state, context.progress)


def find_access(engine: Engine, project: str | None, name: str) -> VolumeAccess:
    """Find a volume by the project's or the engine's name of it. Raises UnknownVolume, VolumeUnreachable."""
    volume = find_volume(engine, project, name)
    if volume is None:
        raise UnknownVolume(f"unknown volume {name!r}", did_you_mean(name, volume_names(engine, project), "volumes"))
    if os.geteuid() == 0 and volume.mountpoint and _is_here(engine, volume):
        return VolumeAccess(volume, folder=Path(volume.mountpoint))
    for image in volume.images:
        asked = "command -v find && command -v chown"
        if run_in_volume(engine, volume.name, image, asked, writes=False).ok:
            return VolumeAccess(volume, image=image)
    if not volume.is_plain:
        raise VolumeUnreachable(
            f"volume {volume.name} lies elsewhere and is mounted only while a container uses it, and none does",
            "start a service that uses it, or give the folder that it is made of to its owner by hand",
        )
    raise VolumeUnreachable(
        f"volume {volume.name} can't be reached from here, and no container with a shell, find and chown uses it",
        "run it as root on the engine's machine, or start a service that uses the volume and has a shell",
    )


def folder_of_volume(engine: Engine, name: str) -> tuple[Path, bool]:
    """Return the folder of a volume on this machine, by the engine's name, and whether hard links stay inside it.

    Raises UnknownVolume, VolumeUnreachable.
    """
    volume = find_volume(engine, None, name)
    if volume is None:
        raise UnknownVolume(f"there is no volume {name} any more", "what was changed in it is gone with it")
    if not (volume.mountpoint and _is_here(engine, volume)):
        raise VolumeUnreachable(f"volume {name} can't be reached from here", "run it as root on the engine's machine")
    return Path(volume.mountpoint), _links_stay_inside(volume)


def fix(
    access: VolumeAccess,
    engine: Engine,
    uid: int,
    gid: int,
    state: StateFolder | None,
    progress: Progress = lambda _: None,
) -> Result:
    """Give every entry of the volume to this user and group; modes stay. Without a state folder, only look."""
    target = Target(uid, gid, str(uid), str(gid))
    if access.folder is None:
        return _inside(access, engine, target, change=state is not None)
    result, folder = Result(access.folder, target), str(access.folder)
    rules = Rules(
        target, (), (), (), root_zone=VOLUME, spares_data=False, links_stay_inside=_links_stay_inside(access.volume)
    )

    def work(writer: Writer | None) -> Counts:
        return walk(folder, rules, LastCleanRun(), writer, result.events, progress, result.counts)

    if state is None:
        result.counts = work(None)
    else:
        run_journaled(state, result, work, volume=access.volume.name)
    return result


def _inside(access: VolumeAccess, engine: Engine, target: Target, *, change: bool) -> Result:
    result, counts = Result(Path(access.volume.mountpoint or access.volume.name), target), Counts()
    result.counts = counts
    count, give = _COUNT.format(uid=target.uid, gid=target.gid), _CHANGE.format(uid=target.uid, gid=target.gid)
    script = f"{count}; {give}; {count}" if change else count
    ran = run_in_volume(engine, access.volume.name, access.image, script, writes=change)
    # `find` may complain, of a file that has just vanished for one. Only the numbers count.
    numbers = [int(line) for line in ran.stdout.split() if line.isdecimal()]
    if len(numbers) != (6 if change else 3):
        last = (ran.stderr.strip().splitlines() or [f"exit code {ran.exit_code}"])[-1]
        raise VolumeUnreachable(
            f"the helper container failed: {last}", f"its image was {access.image[:19]}", foreign=last
        )
    counts.scanned, counts.wrong, counts.refused = numbers[:3]
    if change:
        left, counts.refused = numbers[4:]
        counts.changed = max(0, counts.wrong - left)
        counts.failed = left - counts.refused
    if counts.refused:
        result.events.add("refused", str(result.root), f"{counts.refused} setuid or setgid files of other users")
    if counts.failed:
        reason = (ran.stderr.strip().splitlines() or ["somebody else changes them"])[-1]
        result.events.add(
            "failed", str(result.root), f"{counts.failed} entries still belong to somebody else: {reason}"
        )
    return result


def _is_here(engine: Engine, volume: Volume) -> bool:
    """Return whether the engine runs on this machine, and the volume's data lie in its folder here."""
    local = str(engine.api.base_url).startswith(("http+docker", "http+unix")) and Path(volume.mountpoint).is_dir()
    return local and (volume.is_plain or volume.is_mounted)


def _links_stay_inside(volume: Volume) -> bool:
    """Return whether all names (hard links) of a file in the volume lie in the volume.

    A container can't link to a file outside of its mounts. On the machine itself, only root can enter the engine's
    folder, and with protected_hardlinks nobody else can link to a file that they may not write
    (https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-hardlinks).
    """
    try:
        protected = _PROTECTED.read_text(encoding="ascii").strip() == "1"
    except OSError:
        protected = False
    return volume.is_plain and protected
