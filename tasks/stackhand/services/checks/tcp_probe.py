"""What a container says of its connections: whether it reaches what it should, and what it tries in vain.

One exec a container asks for all of it, side by side, with whatever program is there.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext

Verdict = Literal["reached", "refused", "unresolved", "silent"]
_PATIENCE = 12.0
# States of /proc/net/tcp (Linux, include/net/tcp_states.h).
_SYN_SENT = "02"

# `$1 $2 $3 $4 …`: host, port, host, port. What is tried in vain is read first, before this tries something itself.
# Small netcats know no -z: those get an empty input, and one that stays connected until the end has reached it.
_SCRIPT = r"""
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
echo "== now $(date +%s)"
for table in /proc/net/tcp /proc/net/tcp6; do
  [ -r $table ] || continue
  if has grep; then grep ' 02 ' $table; else cat $table; fi
done
limit=; has timeout && timeout 2 true 2>/dev/null && limit='timeout 2'
tool=
if [ "$limit" ] && has bash; then tool=bash
elif has nc; then
  tool=nc; case $(nc --help 2>&1; nc -h 2>&1) in *-z*) tool=ncz ;; esac
  [ $tool = ncz ] || [ "$limit" ] || tool=
fi
[ "$tool" ] || ! has python3 || tool=python3
reach() {
  case $tool in
  bash) said=$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) ;;
  ncz) said=$(nc -v -z -w 2 "$1" "$2" 2>&1 </dev/null) ;;
  nc) said=$(timeout 2 nc -w 1 "$1" "$2" 2>&1 >/dev/null </dev/null) ;;
  python3) said=$(python3 -c 'import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
except OSError as error:
    sys.exit(str(error))' "$1" "$2" 2>&1) ;;
  esac
  code=$?
  [ $tool = nc ] && [ -z "$said" ] && case $code in 124|143) code=0 ;; esac
  address=
  [ $code = 0 ] || { has getent && address=$(getent hosts "$1") && address=${address%% *} || address=-; }
  set -f; set -- "$1" "$2" "$code" "${address:-?}" $said
  echo "== $*"
}
echo "== tool $tool"
[ "$tool" ] && while [ $# -gt 0 ]; do reach "$1" "$2" & shift 2; done
wait
"""


@dataclass(frozen=True)
class Reply:
    """What came of connecting to a host's port. `said` is the program's complaint, `address` what the name led to."""

    verdict: Verdict
    said: str = ""
    address: str = ""


@dataclass(frozen=True)
class Attempt:
    """A connection that a process tries to make, and that nobody has answered yet.

    `age` is the seconds ago that it began, at most.
    """

    address: str
    port: int
    age: float


@dataclass(frozen=True)
class Seen:
    """What one container says: replies by host and port, attempts without an answer, and what it was asked with.

    `now` is the container's clock, in seconds since 1970: this machine's may be another.
    """

    replies: dict[tuple[str, int], Reply]
    attempts: tuple[Attempt, ...] = ()
    tool: str = ""
    problem: str = ""
    now: float = 0.0


def look(context: CheckContext, service: str, targets: Sequence[tuple[str, int]]) -> Seen:
    """Return what the asked container of a service says of these hosts and ports. Raises NoAnswer."""
    words = [word for host, port in targets for word in (host, str(port))]
    answer = context.shell(service, _SCRIPT, *words, timeout=_PATIENCE)
    if answer.not_found:
        return Seen({}, problem="there is no shell in its container")
    if answer.exit_code is None:
        raise NoAnswer(f"no answer from inside {service} within {_PATIENCE:.0f} s")
    return parse(answer.stdout)


def parse(text: str) -> Seen:
    """Return what the script printed.

    >>> parse("== tool bash\\n== db 5432 1 - bash: db: Name or service not known").replies["db", 5432].verdict
    'unresolved'
    """
    replies: dict[tuple[str, int], Reply] = {}
    attempts: list[Attempt] = []
    tool, now = "", 0.0
    for line in text.splitlines():
        words = line.split()
        if line.startswith("== tool"):
            tool = " ".join(words[2:])
        elif line.startswith("== now"):
            now = float(words[2]) if words[2:] and words[2].isdigit() else 0.0
        elif line.startswith("== ") and len(words) >= 5:
            _, host, port, code, address, *said = words
            replies[host, int(port)] = _reply(code == "0", address, " ".join(said))
        elif len(words) > 6 and words[3] == _SYN_SENT:
            attempts.append(_attempt(words[2], int(words[6], 16)))
    problem = "" if tool else "its container has neither bash, nc nor python3"
    return Seen(replies, tuple(attempts), tool, problem, now)


def _reply(reached: bool, address: str, said: str) -> Reply:
    known = address if address not in ("-", "?") else ""
    if reached:
        return Reply("reached")
    if "refused" in said.lower():
        return Reply("refused", said, known)
    nameless = ("not known", "resolution", "bad address", "getaddrinfo", "no address", "unknown host")
    if not known and any(word in said.lower() for word in nameless):
        return Reply("unresolved", said)
    # Without getent nobody knows, and a complaint that is not about names is about the way.
    return Reply("silent", said or "no answer within 2 s", known)


def _attempt(remote: str, repeated: int) -> Attempt:
    address, _, port = remote.partition(":")
    # The kernel repeats a request after 1 s, then after twice as long each time, or sooner (Linux, tcp_syn_retries).
    return Attempt(_address(address), int(port, 16), 2.0 ** (repeated + 1) - 1)


def _address(digits: str) -> str:
    """Return an address from the kernel's notation: words of four bytes, each in the machine's order.

    >>> _address("0200A8C0"), _address("0000000000000000FFFF00000200A8C0")
    ('192.168.0.2', '192.168.0.2')
    """
    raw = b"".join(struct.pack("<I", int(digits[at : at + 8], 16)) for at in range(0, len(digits), 8))
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def merged(seen: Iterable[Seen]) -> Seen:
    """Return what several containers of one service say as one; what only one of them does not reach is not reached."""
    every = list(seen)
    replies: dict[tuple[str, int], Reply] = {}
    for each in every:
        for target, reply in each.replies.items():
            if target not in replies or replies[target].verdict == "reached":
                replies[target] = reply
    problem = next((each.problem for each in every if each.problem), "")
    tool = next((each.tool for each in every if each.tool), "")
    now = min((each.now for each in every), default=0.0)
    return Seen(replies, tuple(attempt for each in every for attempt in each.attempts), tool, problem, now)
