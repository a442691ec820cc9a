"""Package sources of the next release, and what apt's answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackhand.install import apt

DEB822 = """\
# this release
Types: deb deb-src
# a comment between fields
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""

INLINE_KEY = """\
types: deb
uris: http://mirror.example/debian
suites: stable
components: main
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""


@pytest.mark.parametrize(
    ("name", "text", "moved"),
    [
        (
            "debian.sources",
            DEB822,
            "types: deb\nuris: http://mirror.example/debian\nsuites: trixie\ncomponents: main\n"
            "signed-by: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        ),
        (
            "inline.sources",
            INLINE_KEY,
            "types: deb\nuris: http://mirror.example/debian\nsuites: trixie\ncomponents: main\n"
            "signed-by: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n",
        ),
        ("off.sources", DEB822.replace("Types: deb deb-src", "Enabled: no\nTypes: deb"), None),
        ("src.sources", DEB822.replace("Types: deb deb-src", "Types: deb-src"), None),
        (
            "sources.list",
            "# deb http://commented.example bookworm main\n"
            "deb http://mirror.example/debian bookworm main non-free # mine\n"
            "deb http://mirror.example/debian bookworm-updates main\n"
            "deb-src http://mirror.example/debian bookworm main\n",
            "deb http://mirror.example/debian trixie main\n",
        ),
        (
            "options.list",
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n",
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main\n",
        ),
        ("cd.list", "deb cdrom:[Debian]/ bookworm main\n", None),
        ("others.list", "deb http://other.example/apt cloud-sdk main\n", None),
    ],
)
def test_the_next_release_in_the_words_of_this_machine(name: str, text: str, moved: str | None) -> None:
    assert apt.next_release_sources({name: text}, "bookworm") == ({name: moved} if moved else {})


def test_releases_without_a_next_one_have_no_sources() -> None:
    assert apt.next_release_sources({"debian.sources": DEB822}, "trixie") == {}


def test_what_policy_says() -> None:
    text = """\
docker.io:
  Installed: (none)
  Candidate: 20.10.24+dfsg1-1
  Version table:
     20.10.24+dfsg1-1 500
docker-compose:
  Installed: 1.29.2-3
  Candidate: 1.29.2-3
  Version table:
 *** 1.29.2-3 500
docker-compose-v2:
  Installed: (none)
  Candidate: (none)
"""
    assert apt.candidates(text) == {"docker.io": "20.10.24+dfsg1-1", "docker-compose": "1.29.2-3"}
    assert apt.candidates("") == {}


def test_the_other_sources_are_the_only_ones_apt_sees() -> None:
    options = apt.options_for_folder(Path("/tmp/x"))
    assert options.count("-o") == len(options) / 2
    assert "Dir::Etc::SourceList=/dev/null" in options
    assert "Dir::Etc::SourceParts=/tmp/x/sources" in options


def test_nothing_is_ever_asked() -> None:
    argv = apt.install(["docker.io"])
    assert "-y" in argv
    assert argv[-2:] == ["install", "docker.io"]
    assert apt.ENVIRONMENT["DEBIAN_FRONTEND"] == "noninteractive"
