"""Volumes are as the compose file defines them: Compose keeps one that was made from another definition."""

from __future__ import annotations

from collections.abc import Iterable

from stackhand.checks.check import Check, Verdict, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.engine.api.resources import VolumeDefinition, volume_definitions
from stackhand.engine.compose.project import Volume


def check_volumes(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that the named volumes that a service mounts were made as they are defined now.

    Of several services that mount a volume, the first answers for all.
    """
    for key, volume in context.project.volumes.items():
        if volume.external or _first_user(context, key) != service:
            continue
        made = context.cached(("volumes", ""), lambda: volume_definitions(context.engine, context.project.name))
        if volume.name in made:
            yield from evaluate_volume(key, volume, made[volume.name])


def evaluate_volume(key: str, volume: Volume, made: VolumeDefinition) -> Iterable[Verdict]:
    """Yield the verdict about a volume; none where neither side says more than the name."""
    wanted = VolumeDefinition(volume.driver, volume.driver_opts)
    if wanted == made:
        if wanted != VolumeDefinition():
            yield ok("the volume is as it is defined", subject=key)
        return
    # Options hold passwords (of a network share, for one), so only their names are told.
    names = {*wanted.options, *made.options}
    changed = sorted(name for name in names if wanted.options.get(name) != made.options.get(name))
    what = [f"driver {made.driver}, now {wanted.driver}"] if wanted.driver != made.driver else []
    what += [f"other driver_opts: {', '.join(changed)}"] if changed else []
    yield warn(
        f"volume {key} is not as it is defined: Compose keeps the one that is there",
        f"{volume.name} was made with {'; '.join(what)}",
        f"to have the new one with the data: give it another `name:` in the compose file, start, copy the data over "
        f"(`docker run --rm -v {volume.name}:/from:ro -v NEW_NAME:/to IMAGE cp -a /from/. /to/`), "
        f"and remove {volume.name} when all is there",
        subject=key,
    )


def _first_user(context: CheckContext, key: str) -> str | None:
    for name, service in context.project.services.items():
        entries = service.raw.get("volumes") or ()
        if any(entry.get("type") == "volume" and entry.get("source") == key for entry in entries):
            return name
    return None


CHECKS = (Check("volumes.definition", "services", check_volumes),)
