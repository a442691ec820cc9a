"""What a build is made from: the files of its context, as `.dockerignore` leaves them, and digests of them."""

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
# Files that hold secrets by custom. Of these not even a digest of the content is kept.
_PRIVATE = (
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
    """One file, folder or link of a context: its path in there, where it is, and what the file system says of it."""

    name: str
    path: Path
    status: os.stat_result

    @property
    def newest(self) -> float:
        """When it last changed, its place and permissions included."""
        return max(self.status.st_mtime, self.status.st_ctime)


@dataclass(frozen=True)
class BuildContext:
    """The entries of a build's contexts at one moment.

    `listing` tells whether anything may have changed, and costs no reading; `content` tells whether anything has.
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
        """The file whose content was written last: the one that a person would name."""
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
        mode = entry.status.st_mode
        try:
            if stat.S_ISLNK(mode):
                yield os.fsencode(entry.path.readlink())
            elif not stat.S_ISREG(mode):
                return
            elif entry.path in self.private or any(fnmatch(entry.path.name, each) for each in _PRIVATE):
                # A digest of a short secret could be turned back into it by trying.
                yield _signature(entry).encode()
            else:
                with entry.path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        yield hashlib.sha256(chunk).digest()
        except OSError:
            yield b"unreadable"


def read(folders: Iterable[Path], dockerfile: Path | None, private: Iterable[Path] = ()) -> BuildContext:
    """Return what a build with these contexts is made from; the first one is the main one.

    `dockerfile` is looked at wherever it is. The contents of `private` files are never read.
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
    """Return a function that says of a path whether the builder leaves it out; None for a folder to look into still."""
    sdk.load()
    from docker.utils.build import PatternMatcher

    lines: list[str] = []
    # A file beside the Dockerfile and named after it goes before the context's own.
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
            # What stackhand itself remembers changes with every run.
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
    # A folder's size and times say nothing about what a builder makes of it.
    return f"{entry.status.st_mode:o}"


def _signature(entry: ContextEntry) -> str:
    status = entry.status
    if stat.S_ISDIR(status.st_mode):
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
