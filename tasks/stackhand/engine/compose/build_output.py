"""What BuildKit's plain output says: whose step a line is about, and what a failed step has printed.

    #8 [api 2/2] RUN make
    #8 1.984 make: no rule
    #8 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2
    ------
     > [api 2/2] RUN make:
    1.984 make: no rule
    ------
    failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2

Where one service is built alone, `bake` leaves its name out: `#8 [2/2] RUN make`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

_HEADER = re.compile(r"^(?P<step>#\d+) \[(?P<target>\S+) [^\]]*\]")
_STEP = re.compile(r"^(?P<step>#\d+) ")
_TIME = re.compile(r"^(#\d+ )?\d+\.\d+( |$)")
_RULE = re.compile(r"^-{6}$")


class BuildLines:
    """Tells the service of each line of one build of several services."""

    def __init__(self, names: Sequence[str]) -> None:
        # `bake` allows no dot in the name of a target.
        self._targets = {target: name for name in names for target in (name, name.replace(".", "_"))}
        self._alone = names[0] if len(names) == 1 else None
        self._steps: dict[str, str | None] = {}

    def service_of(self, line: str) -> str | None:
        """Return which service a line is about, None where it is about none of them."""
        header = _HEADER.match(line)
        if header:
            self._steps[header["step"]] = self._targets.get(header["target"])
        step = _STEP.match(line)
        return self._alone or (self._steps.get(step["step"]) if step else None)


def failed_step(output: str, lines: int) -> tuple[str, ...]:
    """Return the step that failed and the last `lines` of what it has printed; else the last lines of all output.

    >>> failed_step("#1 DONE\\n------\\n > [2/2] RUN make:\\n1.984 no rule\\n\\n------\\nDockerfile:2\\n", 15)
    ('[2/2] RUN make:', 'no rule')
    """
    told = [line.rstrip() for line in output.splitlines() if line.strip()]
    rules = [number for number, line in enumerate(told) if _RULE.match(line)]
    for begin, end in itertools.pairwise(rules):
        section = told[begin + 1 : end]
        if section and section[0].startswith(" > "):
            printed = [_TIME.sub("", line) for line in section[1:]]
            return (section[0][3:], *(line for line in printed[-lines:] if line.strip()))
    return tuple(told[-lines:])
