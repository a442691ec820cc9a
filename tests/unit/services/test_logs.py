"""Log lines as Compose merges them."""

from __future__ import annotations

import pytest

from stackhand.output.redact import Redactor
from stackhand.services.logs import LineMasker, LogLine, parse


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("api-1  | ready", LogLine("api-1", "ready")),
        ("api-1  | from a terminal\r", LogLine("api-1", "from a terminal")),
        ("api-1  | one\rdb-1  | two", LogLine("api-1", "one\rdb-1  | two")),
        ("\x1b[2Kapi-1  | x", LogLine("api-1", "x")),
        ("no container", LogLine("", "no container")),
    ],
)
def test_a_line(line: str, parsed: LogLine) -> None:
    assert parse(line) == parsed


def test_a_private_key_goes_over_several_lines_of_its_container() -> None:
    masked = LineMasker(Redactor())
    begin, end = "-----BEGIN EC PRIVATE KEY-----", "-----END EC PRIVATE KEY-----"
    lines = [("a", begin), ("a", "MIIabc"), ("b", "MIIabc"), ("a", "def="), ("a", end), ("a", "ready"), ("a", begin),
             ("a", "no key follows"), ("a", "ready")]  # fmt: skip
    shown = [masked(LogLine(*line)) for line in lines]
    assert shown == [begin, "***", "MIIabc", "***", end, "ready", begin, "no key follows", "ready"]
