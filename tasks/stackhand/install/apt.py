"""Debian's and Ubuntu's packages: command lines, and a package taken from the next release.

Debian 12 has only Compose v1. Compose v2 of the release after it runs there as it is, so the machine's own
list of package sources is copied with the next release's name in it, into a folder that only one apt call
looks at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_LISTCHANGES_FRONTEND": "none",
    # Ubuntu's needrestart asks which services to restart, even of an unattended apt.
    "NEEDRESTART_MODE": "a",
    "NEEDRESTART_SUSPEND": "1",
    "LC_ALL": "C.UTF-8",
}
# Waits for another apt (unattended upgrades run at boot) and tries a broken download again.
_RETRY_OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
# An edited configuration file is kept, without a question.
_KEEP_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")

# The releases whose Compose is v1, and the one after them whose v2 runs there.
NEXT_RELEASE = {"bookworm": "trixie"}
_ONE_LINE = re.compile(
    r"^\s*deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(\s+[^\s#]+)+)"
)


def update() -> list[str]:
    """Return the command line that refreshes the package lists."""
    return ["apt-get", "-q", *_RETRY_OPTIONS, "update"]


def install(packages: Iterable[str]) -> list[str]:
    """Return the command line that installs packages, asking nothing, recommending nothing."""
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
    """Return the command line that tells which versions of packages are installed and available."""
    return ["apt-cache", "policy", *packages]


def candidates(text: str) -> dict[str, str]:
    """Return the available version of each package, from the output of `policy`.

    >>> candidates('docker.io:\\n  Candidate: 20.10.24\\nnone:\\n  Candidate: (none)\\n')
    {'docker.io': '20.10.24'}
    """
    found = re.findall(r"^(\S+):\n(?:\s+.*\n)*?\s+Candidate: (\S+)$", text, re.MULTILINE)
    return {name: version for name, version in found if version != "(none)"}


def upstream(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a package's version, its epoch left out.

    >>> upstream('2.26.1-4'), upstream('5:29.1.0-1~debian'), upstream('1.29.2-3')
    ((2, 26), (29, 1), (1, 29))
    """
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(":")[2] or version)[:2])


def next_release_sources(files: Mapping[str, str], codename: str) -> dict[str, str]:
    """Return the machine's sources with the next release instead of this one.

    `files` maps the name of each source file (`.list`, or `.sources` in deb822 format) to its text. Only the
    entries of the release itself are taken, not its updates, security updates or other people's repositories.
    Empty where there is no next release, or no entry for this one.
    """
    successor = NEXT_RELEASE.get(codename)
    if not successor:
        return {}
    made = {}
    for name, text in files.items():
        moved = (_moved_stanzas if name.endswith(".sources") else _moved_lines)(text, codename, successor)
        if moved:
            made[name] = moved
    return made


def options_for_folder(folder: Path) -> tuple[str, ...]:
    """Return the apt options that make `folder` the only place for sources and lists.

    The caches are kept away from the machine's own, which would be built anew otherwise.
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
    """Return the command line that refreshes the lists of other sources than the machine's own."""
    return ["apt-get", "-q", *_RETRY_OPTIONS, *options, "update"]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Return the command line that unpacks a package's files without installing it."""
    return ["dpkg", "-x", str(archive), str(folder)]


def _is_release(suite: str, codename: str) -> bool:
    return suite in (codename, "stable", "oldstable")


def _moved_lines(text: str, codename: str, successor: str) -> str:
    moved = []
    for line in text.splitlines():
        found = _ONE_LINE.match(line)
        if not found or found["uri"].startswith("cdrom:"):
            continue
        if _is_release(found["suite"], codename) and "main" in found["components"].split():
            moved.append(f"deb {found['options'] or ''}{found['uri']} {successor} main")
    return "".join(f"{line}\n" for line in moved)


def _moved_stanzas(text: str, codename: str, successor: str) -> str:
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
