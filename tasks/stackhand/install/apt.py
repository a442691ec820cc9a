"""Command lines for the packages of Debian and Ubuntu, and package sources of the next release.

Debian 12 has only Compose v1 (https://packages.debian.org/search?keywords=docker-compose). The Compose v2 of Debian 13
runs there unchanged. So we copy the machine's package sources with the next release's name in them, to a folder that
only one apt call reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_LISTCHANGES_FRONTEND": "none",
    # Ubuntu's needrestart asks which services to restart, even if apt runs unattended.
    "NEEDRESTART_MODE": "a",
    "NEEDRESTART_SUSPEND": "1",
    "LC_ALL": "C.UTF-8",
}
# Wait for another apt (unattended upgrades run at boot), and retry broken downloads: apt.conf(5).
_RETRY_OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
# Keep configuration files that were edited, without a question: dpkg(1).
_KEEP_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")

# Releases with Compose v1 only, and the next release, whose v2 runs there.
NEXT_RELEASE = {"bookworm": "trixie"}
_ONE_LINE = re.compile(
    r"^\s*deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(\s+[^\s#]+)+)"
)


def update() -> list[str]:
    """Return the command line that refreshes the package lists."""
    return ["apt-get", "-q", *_RETRY_OPTIONS, "update"]


def install(packages: Iterable[str]) -> list[str]:
    """Return the command line that installs packages without questions and without recommended packages."""
    words = [
        "apt-get",
        "-y",
        "-q",
        *_RETRY_OPTIONS,
        *_KEEP_CONFIGURATION,
        "--no-install-recommends",
        "--fix-broken",
        "install",
    ]
    return [*words, *packages]


def repair() -> list[str]:
    """Return the command line that completes an interrupted installation."""
    return ["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"]


def policy(packages: Iterable[str]) -> list[str]:
    """Return the command line that prints the installed and available versions of packages."""
    return ["apt-cache", "policy", *packages]


def candidates(text: str) -> dict[str, str]:
    """Return the available version of each package from the output of `policy`.

    >>> candidates('docker.io:\\n  Candidate: 20.10.24\\nnone:\\n  Candidate: (none)\\n')
    {'docker.io': '20.10.24'}
    """
    found = re.findall(r"^(\S+):\n(?:\s+.*\n)*?\s+Candidate: (\S+)$", text, re.MULTILINE)
    return {name: version for name, version in found if version != "(none)"}


def upstream(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a package's version, without its epoch.

    >>> upstream('2.26.1-4'), upstream('5:29.1.0-1~debian'), upstream('1.29.2-3')
    ((2, 26), (29, 1), (1, 29))
    """
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(":")[2] or version)[:2])


def next_release_sources(files: Mapping[str, str], codename: str) -> dict[str, str]:
    """Return the machine's package sources with the next release instead of this one: see sources.list(5).

    `files` maps the name of each source file (`.list`, or `.sources` in deb822 format) to its text. Only entries of
    the release itself count, not its updates, its security updates or third-party repositories. The result is empty
    without a next release, or without an entry for this one.
    """
    successor = NEXT_RELEASE.get(codename)
    if not successor:
        return {}
    sources = {}
    for name, text in files.items():
        moved = (_moved_stanzas if name.endswith(".sources") else _moved_lines)(text, codename, successor)
        if moved:
            sources[name] = moved
    return sources


def options_for_folder(folder: Path) -> tuple[str, ...]:
    """Return the apt options that make `folder` the only place for package sources and lists.

    They also switch off the package caches, so that apt does not rebuild the machine's own.
    """
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": folder / "sources",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Get::List-Cleanup": "0",
        # apt's own user may not enter a private folder.
        "APT::Sandbox::User": "root",
    }
    return tuple(word for name, value in options.items() for word in ("-o", f"{name}={value}"))


def download(package: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command line that downloads a package into the current folder."""
    return ["apt-get", "-q", *_RETRY_OPTIONS, *options, "download", package]


def update_from(options: Sequence[str]) -> list[str]:
    """Return the command line that refreshes the package lists that `options` name."""
    return ["apt-get", "-q", *_RETRY_OPTIONS, *options, "update"]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Return the command line that unpacks a package's files without installing it."""
    return ["dpkg", "-x", str(archive), str(folder)]


def _is_release(suite: str, codename: str) -> bool:
    return suite in (codename, "stable", "oldstable")


def _moved_lines(text: str, codename: str, successor: str) -> str:
    """Return the release's entries of a `.list` file, for the next release."""
    moved = []
    for line in text.splitlines():
        found = _ONE_LINE.match(line)
        if not found or found["uri"].startswith("cdrom:"):
            continue
        if _is_release(found["suite"], codename) and "main" in found["components"].split():
            moved.append(f"deb {found['options'] or ''}{found['uri']} {successor} main")
    return "".join(f"{line}\n" for line in moved)


def _moved_stanzas(text: str, codename: str, successor: str) -> str:
    """Return the release's entries of a `.sources` file, for the next release."""
    moved = []
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments.strip()):
        fields = re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        given = {name.lower(): value for name, value in fields}
        suites = given.get("suites", "").split()
        usable = "main" in given.get("components", "").split() and given.get("enabled", "yes").strip() != "no"
        if "deb" in given.get("types", "").split() and usable and any(_is_release(s, codename) for s in suites):
            kept = {**given, "types": "deb", "suites": successor, "components": "main"}
            moved.append("".join(f"{name}: {value}\n" for name, value in kept.items()))
    return "\n".join(moved)
