"""Checks whether the docker command, the engine and Compose are installed and usable.

`observe` reads the facts, `evaluate` turns them into findings, and `Observation.error` is the first missing
prerequisite.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackhand.engine.api import endpoint as endpoints
from stackhand.engine.api.endpoint import Endpoint
from stackhand.engine.compose.cli import NEEDS_BUILDX, OLDEST_BUILDX, PREFERS_BUILDX, Compose, numbers
from stackhand.engine.host.programs import Programs
from stackhand.errors import DockerMissing, StackError
from stackhand.model import Finding

PHASE = "engine"
# Engine 19.03: the first whose healthchecks, exec and BuildKit all behave as stackhand expects.
OLDEST_API = (1, 40)
# Free space below which an image or a database may not fit: bytes, and share of the disk.
_LOW_SPACE = 2 * 1024**3
_LOW_SHARE = 0.05


@dataclass(frozen=True)
class Disk:
    """The file system that holds the engine's images, volumes and containers; sizes in bytes."""

    path: str
    used: int
    free: int
    total: int

    @property
    def is_low(self) -> bool:
        """Whether little space is free."""
        return self.free < _LOW_SPACE or self.free < self.total * _LOW_SHARE


@dataclass(frozen=True)
class Observation:
    """What a look at this machine found. The errors say why the engine or Compose could not be read.

    `buildx` is its version, if Compose would build with it.
    """

    cli: str | None = None
    endpoint: Endpoint | None = None
    version: str | None = None
    api: str | None = None
    engine_error: StackError | None = None
    compose: str | None = None
    compose_error: StackError | None = None
    buildx: str | None = None
    disk: Disk | None = None
    warnings: tuple[str, ...] = ()

    @property
    def error(self) -> StackError | None:
        """The first missing prerequisite, or None."""
        if self.cli is None:
            return DockerMissing("the docker command is not installed", "run `inv engine.install`")
        return self.engine_error or self.compose_error

    @property
    def lacks_buildx(self) -> bool:
        """Whether Compose would build with buildx, and there is none that it takes."""
        prefers = self.compose is not None and numbers(self.compose) >= PREFERS_BUILDX
        return prefers and (self.buildx is None or numbers(self.buildx) < OLDEST_BUILDX)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `engine.check`."""
        disk = self.disk
        return {
            "ok": self.error is None,
            "engine": {
                "version": self.version,
                "api": self.api,
                "endpoint": self.endpoint.url if self.endpoint else None,
                "source": self.endpoint.source if self.endpoint else None,
            },
            "compose": {"version": self.compose},
            "disk": {"path": disk.path, "used": disk.used, "free": disk.free} if disk else None,
            "findings": [finding.to_json() for finding in evaluate(self)],
        }


def observe(commands: Programs, environ: Mapping[str, str]) -> Observation:
    """Look at the CLI, the engine, Compose and the engine's disk. Missing prerequisites do not raise."""
    seen: dict[str, Any] = {"cli": shutil.which("docker", path=environ.get("PATH"))}
    try:
        seen["endpoint"] = endpoints.resolve(environ)
        seen |= _ask_engine(seen["endpoint"], environ)
    except StackError as error:
        seen["engine_error"] = error
    if seen["cli"]:
        try:
            compose = Compose(commands, Path.cwd(), environ)
            seen["compose"] = compose.version()
            if numbers(seen["compose"]) >= PREFERS_BUILDX:
                seen["buildx"] = compose.buildx()
        except StackError as error:
            seen["compose_error"] = error
    return Observation(**seen)


def evaluate(seen: Observation) -> tuple[Finding, ...]:
    """Return a finding for each part.

    >>> [finding.status for finding in evaluate(Observation())][:3]
    ['fail', 'skip', 'skip']
    """
    return (_cli(seen), *_engine(seen), _compose(seen), *_buildx(seen), *_disk(seen), *_warnings(seen))


def size(count: int) -> str:
    """Return a number of bytes in the largest fitting unit.

    >>> size(123), size(5 * 1024**2), size(79 * 1024**3)
    ('123 B', '5.0 MiB', '79.0 GiB')
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _ask_engine(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, Any]:
    client = endpoints.connect(endpoint, environ)
    try:
        version, info = client.version(), client.info()
    finally:
        client.close()
    return {
        "version": version.get("Version"),
        "api": version.get("ApiVersion"),
        "disk": _disk_of(info.get("DockerRootDir")) if endpoint.is_local else None,
        "warnings": tuple(info.get("Warnings") or ()),
    }


def _disk_of(root: str | None) -> Disk | None:
    try:
        usage = shutil.disk_usage(root or "")
    except OSError:
        return None  # the engine runs in a virtual machine (Docker Desktop), or we may not enter its folder
    return Disk(str(root), usage.used, usage.free, usage.total)


def _cli(seen: Observation) -> Finding:
    if seen.cli:
        return _finding("cli", "ok", "the docker command is installed", seen.cli)
    return _failed("cli", DockerMissing("the docker command is not installed", "run `inv engine.install`"))


def _engine(seen: Observation) -> tuple[Finding, ...]:
    if seen.engine_error:
        return (_failed("answers", seen.engine_error),)
    if not (seen.endpoint and seen.api):
        return (_finding("answers", "skip", "the engine was not looked for"),)
    where = f"{seen.endpoint.url} (from {seen.endpoint.source})"
    found = _finding("answers", "ok", f"engine {seen.version} answers, API {seen.api}", where)
    if tuple(int(part) for part in seen.api.split(".")) >= OLDEST_API:
        return (found,)
    old = f"the engine is old: API {seen.api}, and {OLDEST_API[0]}.{OLDEST_API[1]} or newer is expected"
    return (found, _finding("version", "warn", old, seen.version or "", "update the engine"))


def _compose(seen: Observation) -> Finding:
    if seen.compose_error:
        return _failed("compose", seen.compose_error)
    if not seen.compose:
        return _finding("compose", "skip", "Compose was not looked for: it is a plugin of the docker command")
    return _finding("compose", "ok", f"Compose {seen.compose}")


def _buildx(seen: Observation) -> tuple[Finding, ...]:
    """Return what buildx means for builds, if this Compose uses it. Without builds it is not needed: a warning."""
    if not seen.lacks_buildx:
        return (_finding("buildx", "ok", f"buildx {seen.buildx}"),) if seen.buildx else ()
    if seen.buildx:
        oldest = ".".join(map(str, OLDEST_BUILDX))
        summary = f"buildx {seen.buildx} is too old: Compose builds no image with it, {oldest} or newer is needed"
    elif numbers(seen.compose or "") >= NEEDS_BUILDX:
        summary = f"buildx is missing: without it, Compose {seen.compose} builds no image"
    else:
        summary = f"buildx is missing: Compose {seen.compose} builds images with its old builder, and warns each time"
    remedy = "run `inv engine.install`, or install the docker-buildx plugin"
    return (replace(_finding("buildx", "warn", summary, remedy=remedy), fixable=True),)


def _disk(seen: Observation) -> tuple[Finding, ...]:
    if not seen.disk:
        return ()
    summary = f"{size(seen.disk.free)} of {size(seen.disk.total)} free for images and volumes"
    remedy = "`docker system df` shows what uses it" if seen.disk.is_low else ""
    return (_finding("disk", "warn" if seen.disk.is_low else "ok", summary, seen.disk.path, remedy),)


def _warnings(seen: Observation) -> tuple[Finding, ...]:
    return tuple(
        _finding("warning", "warn", f"the engine warns: {text.removeprefix('WARNING: ')}") for text in seen.warnings
    )


def _finding(name: str, status: Any, summary: str, evidence: str = "", remedy: str = "") -> Finding:
    return Finding(f"engine.{name}", None, PHASE, status, summary, evidence, remedy)


def _failed(name: str, error: StackError) -> Finding:
    installable = error.hint is not None and "engine.install" in error.hint
    return Finding(f"engine.{name}", None, PHASE, "fail", error.message, remedy=error.hint or "", fixable=installable)
