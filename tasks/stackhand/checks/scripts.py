"""Probe scripts: programs for a container's own shell or Python. They are files beside the code that sends them.

What a script prints is divided into sections. Each begins with an ASCII record separator and a title, as
`printf '\\036name about\\n'` prints them: no configuration, certificate or message has that character.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

# What begins a section: the record separator of ASCII.
MARK = "\036"


class Section(NamedTuple):
    """One section of a script's output: the first word of its title, the rest of the title, and the lines below it."""

    name: str
    about: str
    body: str


@cache
def read(package: str, name: str) -> str:
    """Return the text of a script that lies in a package: `read("stackhand.kinds.redis", "probe.sh")`."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def sections(text: str) -> list[Section]:
    """Return the sections of a script's output. What comes before the first is left out.

    >>> sections("noise\\n\\036login 0\\nPONG\\n\\036end\\n")
    [Section(name='login', about='0', body='PONG'), Section(name='end', about='', body='')]
    """
    found = []
    for part in text.replace("\r", "").split(MARK)[1:]:
        title, _, body = part.partition("\n")
        name, _, about = title.partition(" ")
        found.append(Section(name, about.strip(), body.strip("\n")))
    return found
