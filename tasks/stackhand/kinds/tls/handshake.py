"""What a TLS service serves, and the certificate files that it sees: asked from inside its container, with one script.

What the container lacks for a handshake a neighbour on its network may have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from stackhand.checks.context import CheckContext
from stackhand.kinds.tls.certificates import Certificate, CertificateFile, public_key, read

# A neighbour that lacks the means, too, is followed by another; not by all of a large stack.
_NEIGHBOURS = 4
_PATIENCE = 15.0

# Before a path: it is no certificate, but may name some.
CONFIG = "config:"
# `$1` host, `$2` ports, `$3` names to ask for; further words are folders and files to look for certificates in.
# Keys stay in the container where its own openssl can tell their public half. Bundles of many authorities are
# larger than 64 KiB.
_SCRIPT = r"""
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
limit=; has timeout && timeout 3 true 2>/dev/null && limit='timeout 3'
tool=; for each in openssl python3 curl; do [ "$tool" ] || ! has $each || tool=$each; done
hello() {
  case $tool in
  openssl) $limit openssl s_client -connect "$1:$2" ${3:+-servername "$3"} -showcerts </dev/null 2>&1 ;;
  python3) python3 -c 'import socket, ssl, sys
host, port, name = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    with socket.create_connection((host, int(port)), 3) as plain:
        with context.wrap_socket(plain, server_hostname=name or None) as secured:
            print(ssl.DER_cert_to_PEM_cert(secured.getpeercert(True)))
except OSError as error:
    print(error)' "$1" "$2" "$3" ;;
  curl) curl -ksS -m 3 -o /dev/null -w '%{certs}' --connect-to "::$1:$2" "https://${3:-$1}:$2/" 2>&1 ;;
  esac
}
host=$1 ports=$2 names=$3; shift 3
printf '\n== tool %s\n' "$tool"
[ -z "$tool" ] || for port in $ports; do
  for name in $names; do
    printf '\n== served %s %s\n' "$port" "$name"
    case $name in *:*|*[0-9].*[0-9]) hello "$host" "$port" '' ;; *) hello "$host" "$port" "$name" ;; esac
  done
done
for place; do
  case $place in config:*) continue ;; esac
  [ -e "$place" ] || continue
  find -L "$place" -maxdepth 4 -type f -size -64k \( -name '*.crt' -o -name '*.pem' -o -name '*.cer' \
    -o -name '*.cert' -o -name '*.key' -o -path "$place" \) 2>/dev/null | head -n 40
done | while IFS= read -r file; do
  printf '\n== file %s %s\n' "$(stat -Lc '%a %u:%g %Z' "$file" 2>/dev/null || echo - - -)" "$file"
  [ -r "$file" ] || { echo '== unreadable'; continue; }
  sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' "$file"
  grep -q 'PRIVATE KEY-----' "$file" || continue
  echo '== key'
  if has openssl; then openssl pkey -in "$file" -passin pass: -pubout </dev/null 2>/dev/null
  else sed -n '/PRIVATE KEY-----/,/PRIVATE KEY-----/p' "$file"; fi
done
set -- "$@" /etc/nginx/nginx.conf /etc/nginx/conf.d/* /etc/nginx/sites-enabled/* /etc/caddy/Caddyfile \
  /usr/local/etc/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg /usr/local/apache2/conf/httpd.conf /etc/traefik/*.y*ml
words=$(tr '\0' '\n' </proc/1/cmdline 2>/dev/null)
set -f
{
  echo "$words"
  for config in $words "$@"; do
    config=${config#config:}
    case $config in /*.crt|/*.pem|/*.cer|/*.cert|/*.key) ;; /*)
      [ ! -f "$config" ] || [ ! "$(find -L "$config" -maxdepth 0 -size -64k)" ] || grep -hsv '^[[:space:]]*#' "$config"
    esac
  done
} 2>/dev/null | grep -oE '/[^ ;,"'"'"'()]+\.(crt|pem|cer|cert|key)' | sort -u | sed 's/^/== named /'
"""
_SECTION = re.compile(r"^== (?P<what>\w+) ?(?P<rest>.*)$", re.MULTILINE)
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Served:
    """What a service showed on a port when it was asked for a name; an empty chain with what it said instead."""

    port: int
    name: str
    chain: tuple[Certificate, ...] = ()
    said: str = ""


@dataclass(frozen=True)
class Shown:
    """What was seen of one service: what it serves, its certificate files, the paths that its configuration names.

    `tool` is what the handshake was made with, "" where there was nothing to make it with; `asker` whose it was.
    """

    served: tuple[Served, ...] = ()
    files: tuple[CertificateFile, ...] = ()
    named: frozenset[str] = frozenset()
    tool: str = ""
    asker: str = ""

    def on(self, port: int) -> tuple[Served, ...]:
        """Return what was shown on one port, for the names that it was asked for."""
        return tuple(each for each in self.served if each.port == port and each.chain)


def ask(
    context: CheckContext, service: str, host: str, ports: Sequence[int], names: Sequence[str], places: Sequence[str]
) -> Shown:
    """Return what a service serves on these ports when asked for these names, and the certificate files in `places`."""
    words = [" ".join(str(port) for port in ports), " ".join(names)]
    answer = context.shell(service, _SCRIPT, host, *words, *places, timeout=_PATIENCE)
    shown = parse(answer.stdout, context.register_secret)
    if shown.tool:
        return replace(shown, asker=service)
    for other in context.neighbours(service)[1 : 1 + _NEIGHBOURS]:
        seen = parse(context.shell(other, _SCRIPT, service, *words, timeout=_PATIENCE).stdout, context.register_secret)
        if seen.tool:
            return replace(shown, served=seen.served, tool=seen.tool, asker=other)
    return shown


def parse(text: str, learn: Callable[[str], None] = lambda secret: None) -> Shown:
    """Return what the script printed. `learn` is told of private keys that had to leave the container."""
    served: list[Served] = []
    files: list[CertificateFile] = []
    named: set[str] = set()
    tool = ""
    marks = list(_SECTION.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        what, rest = mark["what"], mark["rest"].strip()
        if what == "tool":
            tool = rest
        elif what == "served":
            port, _, name = rest.partition(" ")
            chain = read(body)
            served.append(Served(int(port), name, chain, "" if chain else _complaint(body)))
        elif what == "file":
            files.append(_file(rest, body))
        elif what == "unreadable" and files:
            files[-1] = replace(files[-1], key=b"" if files[-1].path.endswith(".key") else None)
        elif what == "key" and files:
            for secret in _PRIVATE.findall(body):
                # Also line by line, as a program that complains might show it.
                for part in (
                    secret,
                    *(line for line in secret.splitlines() if len(line) >= 16 and "-----" not in line),
                ):
                    learn(part)
            files[-1] = replace(files[-1], key=public_key(body) or b"")
        elif what == "named":
            named.add(rest)
    unique = {file.path: file for file in files}
    kept = tuple(file for file in unique.values() if file.certificates or file.key is not None)
    return Shown(tuple(served), kept, frozenset(named), tool)


def _file(rest: str, body: str) -> CertificateFile:
    mode, owner, changed, path = rest.split(" ", 3)
    return CertificateFile(
        path=path,
        certificates=read(body),
        mode=int(mode, 8) if mode.isdigit() else None,
        owner=owner,
        changed=datetime.fromtimestamp(int(changed), timezone.utc) if changed.isdigit() else None,
    )


def _complaint(body: str) -> str:
    """Return what a program said that got no certificate: the line that tells of the error."""
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"errno|error|refused|timed? ?out", line, re.IGNORECASE)]
    found = (telling or lines or ["it said nothing"])[0]
    # openssl: 40E7…:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl/…:354:
    return ": ".join(found.split(":")[3:6:2]) if found.count(":error:") else found
