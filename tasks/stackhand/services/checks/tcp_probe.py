"""Which hosts and ports a container reaches, and which of its connections wait for an answer.

One program a container asks for all of it, side by side, with what is there: bash, netcat or Python.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stackhand.checks import scripts
from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext

Result = Literal["reached", "refused", "unresolved", "silent"]
# Seconds.
_CONNECT_TIMEOUT, _TIMEOUT = 2.0, 12.0
# States of /proc/net/tcp (Linux, include/net/tcp_states.h).
_SYN_SENT = "02"


@dataclass(frozen=True)
class Reply:
    """What came of connecting to a host's port. `said` is the program's error, `address` what the name resolves to."""

    result: Result
    said: str = ""
    address: str = ""


@dataclass(frozen=True)
class PendingConnection:
    """A connection that a process tries to make, and that nobody has answered yet.

    `age` is how many seconds ago it began, at most.
    """

    address: str
    port: int
    age: float


@dataclass(frozen=True)
class ConnectionReport:
    """What one container reports: replies by host and port, pending connections, and the tool that it was asked with.

    `problem` says why there are no replies. `now` is the container's clock, in seconds since 1970: this machine's may
    differ.
    """

    replies: dict[tuple[str, int], Reply]
    pending: tuple[PendingConnection, ...] = ()
    tool: str = ""
    problem: str = ""
    now: float = 0.0


def probe(context: CheckContext, service: str, targets: Sequence[tuple[str, int]]) -> ConnectionReport:
    """Ask a container of a service about these hosts and ports. Raises NoAnswer."""
    words = [word for host, port in targets for word in (host, str(port))]
    script = scripts.read(__package__, "tcp_probe.sh")
    limit = {"WITHIN": f"{context.within(_CONNECT_TIMEOUT):.0f}"}
    answer = context.shell(service, script, *words, environment=limit, timeout=_TIMEOUT)
    if answer.not_found:
        return ConnectionReport({}, problem="there is no shell in its container")
    if answer.exit_code is None:
        raise NoAnswer(f"no answer from inside {service} within {context.within(_TIMEOUT):.0f} s")
    return parse(answer.stdout)


def parse(text: str) -> ConnectionReport:
    """Return what the script printed.

    >>> text = "\\036tool bash\\n\\036reply db 5432 1 - bash: db: Name or service not known"
    >>> parse(text).replies["db", 5432].result
    'unresolved'
    """
    replies: dict[tuple[str, int], Reply] = {}
    pending: list[PendingConnection] = []
    tool, now = "", 0.0
    for section in scripts.sections(text):
        if section.name == "tool":
            tool = section.about
        elif section.name == "now":
            now = float(section.about) if section.about.isdigit() else 0.0
            pending = list(_pending(section.body))
        elif section.name == "reply":
            host, port, code, address, *said = section.about.split()
            replies[host, int(port)] = _reply(code == "0", address, " ".join(said))
    problem = "" if tool else "its container has neither bash, nc nor python3"
    return ConnectionReport(replies, tuple(pending), tool, problem, now)


def _reply(reached: bool, address: str, said: str) -> Reply:
    known = address if address not in ("-", "?") else ""
    if reached:
        return Reply("reached")
    if "refused" in said.lower():
        return Reply("refused", said, known)
    nameless = ("not known", "resolution", "bad address", "getaddrinfo", "no address", "unknown host")
    if not known and any(word in said.lower() for word in nameless):
        return Reply("unresolved", said)
    # Without getent nobody knows, and an error that is not about names is about the way.
    return Reply("silent", said or "no answer", known)


def _pending(table: str) -> Iterable[PendingConnection]:
    """Yield the pending connections of the kernel's table."""
    for line in table.splitlines():
        columns = line.split()
        if len(columns) > 6 and columns[3] == _SYN_SENT:
            address, _, port = columns[2].partition(":")
            # The kernel repeats a request after 1 s, then after twice as long each time, or sooner (Linux,
            # tcp_syn_retries in Documentation/networking/ip-sysctl.rst).
            yield PendingConnection(_address(address), int(port, 16), 2.0 ** (int(columns[6], 16) + 1) - 1)


def _address(digits: str) -> str:
    """Return an address from the kernel's notation: words of four bytes, each in the machine's order.

    >>> _address("0200A8C0"), _address("0000000000000000FFFF00000200A8C0")
    ('192.168.0.2', '192.168.0.2')
    """
    raw = b"".join(struct.pack("<I", int(digits[at : at + 8], 16)) for at in range(0, len(digits), 8))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def merged(reports: Iterable[ConnectionReport]) -> ConnectionReport:
    """Return the reports of several containers of a service as one; what one of them does not reach is not reached."""
    every = list(reports)
    replies: dict[tuple[str, int], Reply] = {}
    for report in every:
        for target, reply in report.replies.items():
            if target not in replies or replies[target].result == "reached":
                replies[target] = reply
    problem = next((each.problem for each in every if each.problem), "")
    tool = next((each.tool for each in every if each.tool), "")
    now = min((each.now for each in every), default=0.0)
    return ConnectionReport(replies, tuple(one for each in every for one in each.pending), tool, problem, now)
