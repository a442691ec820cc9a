"""Build contexts: the files that a builder gets once `.dockerignore` is applied, and digests of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from stackhand.engine.api import sdk
from stackhand.state.folder import FOLDER

_CHUNK = 1 << 20
# Names of files that usually hold secrets. Not even a digest of their content is kept.
_SECRET_FILES = (
    ".env",
    ".env.*",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "id_rsa*",
    "id_ed25519*",
    ".netrc",
    ".npmrc",
    ".pgpass",
)


@dataclass(frozen=True)
class ContextEntry:
    """One file, folder or link of a build context: its name in the context, its path here, and its `lstat`."""

    name: str
    path: Path
    status: os.stat_result

    @property
    def newest(self) -> float:
        """When its content, place or permissions last changed, in seconds since the epoch."""
        return max(self.status.st_mtime, self.status.st_ctime)


@dataclass(frozen=True)
class BuildContext:
    """All entries of a build's contexts at one moment.

    If `listing` is the same as before, nothing has changed; it needs no reading of files. If it differs, `content`
    tells whether a build would get anything else.
    """

    entries: tuple[ContextEntry, ...]
    private: frozenset[Path] = frozenset()

    @cached_property
    def listing(self) -> str:
        """A digest of names, sizes and times."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.name}\0{_mode(entry)}\0{_signature(entry)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def newest(self) -> ContextEntry | None:
        """The entry that changed last."""
        return max(self.entries, key=lambda entry: entry.newest, default=None)

    @property
    def last_written(self) -> ContextEntry | None:
        """The file that was written last: the one to name to a person."""
        files = [entry for entry in self.entries if stat.S_ISREG(entry.status.st_mode)]
        return max(files, key=lambda entry: entry.status.st_mtime, default=None)

    @cached_property
    def content(self) -> str:
        """A digest of names, permissions and contents, as a builder sees them. Reads every file."""
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(f"{entry.name}\0{_mode(entry)}\0".encode("utf-8", "surrogateescape"))
            for part in self._content(entry):
                digest.update(part)
            digest.update(b"\n")
        return digest.hexdigest()

    def _content(self, entry: ContextEntry) -> Iterator[bytes]:
        """Yield what stands for an entry's content. A secret file is represented by size and times only."""
        mode = entry.status.st_mode
        try:
            if stat.S_ISLNK(mode):
                yield os.fsencode(entry.path.readlink())
            elif not stat.S_ISREG(mode):
                return
            elif entry.path in self.private or any(fnmatch(entry.path.name, pattern) for pattern in _SECRET_FILES):
                # A short secret could be found from its digest by trying.
                yield _signature(entry).encode()
            else:
                with entry.path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        yield hashlib.sha256(chunk).digest()
        except OSError:
            yield b"unreadable"


def read(folders: Iterable[Path], dockerfile: Path | None, private: Iterable[Path] = ()) -> BuildContext:
    """Read the build contexts in `folders`; the first one is the main context.

    The `dockerfile` counts even if it lies outside. The contents of `private` files are never read.
    """
    entries: list[ContextEntry] = []
    for number, folder in enumerate(folders):
        ignored = _ignored(folder, dockerfile if number == 0 else None)
        entries += (ContextEntry(f"{number}/{name}", path, status) for name, path, status in _walk(folder, ignored))
    if dockerfile and not any(entry.path == dockerfile for entry in entries):
        status = _status(dockerfile)
        if status:
            entries.append(ContextEntry("Dockerfile", dockerfile, status))
    return BuildContext(tuple(sorted(entries, key=lambda entry: entry.name)), frozenset(private))


def _ignored(folder: Path, dockerfile: Path | None) -> Callable[[str], bool | None]:
    """Return a function from a name to whether the builder leaves it out.

    It returns None for a folder that is left out, but in which a later `!` pattern may bring back an entry.
    """
    sdk.load()
    from docker.utils.build import PatternMatcher

    lines: list[str] = []
    # `NAME.dockerignore` beside the Dockerfile wins over the context's own:
    # https://docs.docker.com/build/concepts/context/#filename-and-location
    beside = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    for file in (*beside, folder / ".dockerignore"):
        try:
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            break
        except OSError:
            continue
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not patterns:
        return lambda name: False
    exceptions = any(pattern.startswith("!") for pattern in patterns)
    matcher = PatternMatcher(patterns)

    def ignored(name: str) -> bool | None:
        if not matcher.matches(name):  # type: ignore[arg-type]  # it takes strings only
            return False
        return None if exceptions else True

    return ignored


def _walk(folder: Path, ignored: Callable[[str], bool | None]) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Yield each entry that the builder gets, by its name in the context. Unreadable folders are left out."""
    status = _status(folder)
    if status:
        yield "", folder, status
    waiting = [("", folder)]
    while waiting:
        above, current = waiting.pop()
        try:
            found = list(os.scandir(current))
        except OSError:
            continue
        for item in found:
            name = f"{above}{item.name}"
            # stackhand's own state folder changes with every run.
            verdict = True if item.name == FOLDER else ignored(name)
            if verdict is True:
                continue
            path = Path(item.path)
            if item.is_dir(follow_symlinks=False):
                waiting.append((f"{name}/", path))
            status = _status(path)
            if verdict is False and status:
                yield name, path, status


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _mode(entry: ContextEntry) -> str:
    return f"{entry.status.st_mode:o}"


def _signature(entry: ContextEntry) -> str:
    status = entry.status
    if stat.S_ISDIR(status.st_mode):
        return ""  # a folder's size and times do not change what is built
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
