"""The certificates that a service presents, and the certificate files that it sees: asked with one script.

It runs inside the service's container; where that has nothing to shake hands with, a neighbour on its networks is
asked for the handshake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.exec import first_able
from stackhand.kinds.tls.certificates import Certificate, CertificateFile, public_key, read

# How many neighbours are tried: not all of a large stack.
_NEIGHBOURS = 4
# Seconds.
_HANDSHAKE_TIMEOUT, _TIMEOUT = 3.0, 15.0

# Before a path: it is no certificate, but may name some.
CONFIG = "config:"
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Presented:
    """What a service presented on a port when it was asked for a name; an empty chain with what it said instead."""

    port: int
    name: str
    chain: tuple[Certificate, ...] = ()
    said: str = ""


@dataclass(frozen=True)
class TlsObservation:
    """What was seen of one service: what it presents, its certificate files, the paths that its configuration names.

    `tool` is what the handshake was made with, "" where there was nothing to make it with; `asker` the service in whose
    container that was.
    """

    presented: tuple[Presented, ...] = ()
    files: tuple[CertificateFile, ...] = ()
    named: frozenset[str] = frozenset()
    tool: str = ""
    asker: str = ""

    def on(self, port: int | None) -> tuple[Presented, ...]:
        """Return what was presented on one port, for the names that it was asked for."""
        return tuple(each for each in self.presented if each.port == port and each.chain)


def observe(
    context: CheckContext, service: str, ports: Sequence[int], names: Sequence[str], places: Sequence[str]
) -> TlsObservation:
    """Return what a service presents on these ports for these names, and the certificate files in `places`."""
    script = scripts.read(__package__, "probe.sh")
    words = [" ".join(str(port) for port in ports), " ".join(names)]
    limit = {"WITHIN": f"{context.within(_HANDSHAKE_TIMEOUT):.0f}"}
    own = context.shell(service, script, "localhost", *words, *places, environment=limit, timeout=_TIMEOUT)
    observed = parse(own.stdout, context.register_secret)
    if observed.tool:
        return replace(observed, asker=service)
    from_neighbour = first_able(
        context.neighbours(service)[1 : 1 + _NEIGHBOURS],
        lambda neighbour: context.shell(neighbour, script, service, *words, environment=limit, timeout=_TIMEOUT),
        able=lambda result: bool(parse(result.stdout).tool),
    )
    if from_neighbour is None:
        return observed
    seen = parse(from_neighbour.result.stdout, context.register_secret)
    return replace(observed, presented=seen.presented, tool=seen.tool, asker=from_neighbour.place)


def parse(text: str, register_secret: Callable[[str], None] = lambda secret: None) -> TlsObservation:
    """Return what the script printed. Private keys that had to leave the container are registered as secrets."""
    presented: list[Presented] = []
    files: list[CertificateFile] = []
    named: set[str] = set()
    tool = ""
    for name, about, body in scripts.sections(text):
        if name == "tool":
            tool = about
        elif name == "served":
            port, _, host = about.partition(" ")
            chain = read(body)
            presented.append(Presented(int(port), host, chain, "" if chain else _error(body)))
        elif name == "file":
            files.append(_file(about, body))
        elif name == "unreadable" and files:
            files[-1] = replace(files[-1], key=b"" if files[-1].path.endswith(".key") else None)
        elif name == "key" and files:
            for secret in _secrets(body):
                register_secret(secret)
            files[-1] = replace(files[-1], key=public_key(body) or b"")
        elif name == "named":
            named.add(about)
    unique = {file.path: file for file in files}
    kept = tuple(file for file in unique.values() if file.certificates or file.key is not None)
    return TlsObservation(tuple(presented), kept, frozenset(named), tool)


def _secrets(text: str) -> Iterator[str]:
    """Yield the private keys in a text, and each of their lines, as a program's error might show it."""
    for key in _PRIVATE.findall(text):
        yield key
        yield from (line for line in key.splitlines() if len(line) >= 16 and "-----" not in line)


def _file(about: str, body: str) -> CertificateFile:
    mode, owner, changed, path = about.split(" ", 3)
    return CertificateFile(
        path=path,
        certificates=read(body),
        mode=int(mode, 8) if mode.isdigit() else None,
        owner=owner,
        changed=datetime.fromtimestamp(int(changed), timezone.utc) if changed.isdigit() else None,
    )


def _error(body: str) -> str:
    """Return what a program said that got no certificate: the line that tells of the error."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"errno|error|refused|timed? ?out", line, re.IGNORECASE)]
    found = (telling or lines or ["it said nothing"])[0]
    # openssl: 40E7…:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl/…:354:
    return ": ".join(found.split(":")[3:6:2]) if found.count(":error:") else found
