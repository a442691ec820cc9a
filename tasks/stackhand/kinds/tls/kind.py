"""The kind tls: what serves certificates. It is asked by a handshake, beside the files that it has them from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from urllib.parse import urlsplit

from stackhand.checks.check import CannotAsk, NoAnswer, Verdict, skip
from stackhand.checks.connections import SECRETS, Client
from stackhand.checks.context import CheckContext
from stackhand.checks.http import SERVERS
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.checks.traits import Traits, traits
from stackhand.engine.compose.project import Project, Service
from stackhand.errors import StackError
from stackhand.kinds.tls import checks as tls_checks
from stackhand.kinds.tls import handshake
from stackhand.kinds.tls.certificates import writable_mounts
from stackhand.kinds.tls.checks import Expectations
from stackhand.kinds.tls.handshake import Shown
from stackhand.model import Finding

_USUAL = (443, 8443)
# --ssl-certfile (uvicorn), --certfile (gunicorn), --tls-cert-file (redis), --cert-file (minio, etcd), ssl_cert=…
_OPTION = re.compile(r"^--?(ssl|tls)?[-_]?cert([-_]?file)?(=|$)|^--(ssl|tls)[-_]", re.IGNORECASE)
_VARIABLE = re.compile(r"^(?P<stem>\w*?)_?(CERT|CERTIFICATE|CRT)(_FILE|FILE|_PATH)?$", re.IGNORECASE)
_FILE = re.compile(r"\.(crt|pem|cer|cert|key)$")
_URL = re.compile(r"https://[^\s'\"|;)\]]+(?:\])?[^\s'\"|;)]*")
_BLIND = re.compile(r"(^|\s)(-k|-[a-zA-Z]*k[a-zA-Z]*|--insecure|--no-check-certificate)(\s|$)|CERT_NONE|_unverified_")
_AUTHORITY = re.compile(r"(?:--cacert|--ca-certificate|--ca-cert|-CAfile|cafile=)[=\s]*['\"]?(?P<path>[^\s'\",)]+)")
# What is TLS from the first byte.
_SCHEMES = frozenset({"https", "wss", "rediss", "valkeys", "amqps", "ldaps", "mqtts"})
_MOUNTS_OF_CERTIFICATES = re.compile(
    r"(^|[^a-z])(acme|ca|certs?|certificates?|letsencrypt|pki|ssl|tls)([^a-z]|$)", re.I
)


@dataclass(frozen=True)
class TlsFacts:
    """What a service shows and has of certificates, and what is expected of them."""

    shown: Shown
    circumstances: Expectations = field(default_factory=Expectations)


class Tls(Kind[TlsFacts]):
    """What serves certificates: web servers and proxies, and whatever has been given a certificate and a key."""

    name = "tls"
    ports = frozenset(_USUAL)

    def matches(self, shown: Traits) -> bool:
        """Return whether a service is set up to serve certificates. It is so beside being of another kind."""
        return bool(
            probed(shown)
            or any(_OPTION.match(word) for word in shown.argv)
            or _pairs(shown.environment)
            or (shown.images & SERVERS and shown.ports & self.ports)
        )

    def matches_strongly(self, shown: Traits) -> bool:
        """Return True: only ports that somebody calls through TLS have to answer."""
        return True

    def collect(self, context: CheckContext, service: str) -> TlsFacts:
        """Shake hands with the service, and read the certificate files that it sees."""
        definition = context.project.services[service]
        shows = traits(definition)
        expected = expectations(context.project, definition, context.clients_of(service))
        certain, possible = _ports(shows, context.container(service).exposed, context.clients_of(service))
        ports = certain or possible
        found = handshake.ask(
            context, service, "localhost", ports, list(expected.names) or [service], _places(definition)
        )
        answering = next((port for port in ports if found.on(port)), None)
        if answering is None and certain:
            _unanswered(found, certain)
        around = replace(
            expected,
            named=expected.named | found.named,
            port=answering,
            started=context.container(service).started_at,
            days=context.settings.certificate_days,
        )
        file = tls_checks.in_use(found, around)
        maker = _maker(context.project, definition, file.path) if file else None
        return TlsFacts(found, replace(around, maker=maker, file=file.path if file else ""))

    def checks(self) -> Sequence[Check]:
        """Return the questions: does it answer, and what is to be said of its certificates."""
        judged = [Check(f"tls.{name}", "network", partial(self._judge, name)) for name in tls_checks.JUDGES]
        return (*super().checks(), *judged)

    def fixes(self) -> Mapping[str, Fix]:
        """Return how all of it is put right: the project's own one-shot makes it anew, and the service takes it up."""
        renew = Fix("renew the certificates of", self._renew)
        taken_up = Fix("have new certificates taken up by", self._renew)
        return {f"tls.{name}": taken_up if name == "served" else renew for name in tls_checks.JUDGES}

    def check_responds(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that the service completes a TLS handshake."""
        for verdict in super().check_responds(context, service):
            if verdict.status == "ok" and context.facts(self, service).circumstances.port is None:
                why = "no port of it is known to speak TLS, and none that was tried does"
                hint = "the label stackhand.kind says what else it is; an https:// healthcheck says where it listens"
                yield skip("there was no handshake", why, hint)
            else:
                yield verdict

    def _judge(self, name: str, context: CheckContext, service: str) -> Iterable[Finding]:
        facts = context.facts(self, service)
        return tls_checks.judge(name, service, facts.shown, facts.circumstances, datetime.now(timezone.utc))

    def _renew(self, context: CheckContext, finding: Finding) -> None:
        """Have new certificates made where those on disk are not good, and have the service take up what is there.

        Looks anew before each step: another finding's repair may have seen to it, or a run that was killed.
        """
        service = finding.service or ""
        facts = self._anew(context, service)
        maker = facts.circumstances.maker
        if maker and tls_checks.broken(facts.shown, facts.circumstances, datetime.now(timezone.utc)):
            context.actions.start(maker)
            facts = self._anew(context, service)
        if tls_checks.broken(facts.shown, facts.circumstances, datetime.now(timezone.utc)):
            # A server that is started with a pair that does not fit may not come up at all.
            raise StackError(f"the certificates are not good yet, so {service} was not restarted")
        if tls_checks.outdated(facts.shown, facts.circumstances):
            context.restart(service)

    def _anew(self, context: CheckContext, service: str) -> TlsFacts:
        context.invalidate()
        return context.facts(self, service)


def probed(shown: Traits) -> list[tuple[str, int]]:
    """Return the hosts and ports of the service itself that its healthcheck asks through https.

    >>> probed(Traits(probe="curl -fsS https://localhost:8443/health"))
    [('localhost', 8443)]
    """
    found = []
    for text in _URL.findall(shown.asked):
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port or 443
        except ValueError:
            continue
        if host and shown.is_me(host):
            found.append((host, port))
    return found


def expectations(project: Project, service: Service, clients: Iterable[Client]) -> Expectations:
    """Return the names that a certificate must carry and why, the authorities it must be of, and the files in use."""
    shown = traits(service)
    names: dict[str, str] = {}
    if not _BLIND.search(shown.probe):
        names = {host: "its healthcheck asks for it" for host, _ in probed(shown) if "$" not in host}
    for client in clients:
        if client.scheme in _SCHEMES:
            names.setdefault(client.host, f"{client.service} calls it so ({client.variable})")
    authorities = {} if _BLIND.search(shown.probe) else dict.fromkeys(_AUTHORITY.findall(shown.probe))
    words = [part for word in shown.argv for part in word.split("=")]
    named = {word for word in (*words, *shown.environment.values()) if word.startswith("/") and _FILE.search(word)}
    return Expectations(names=names, authorities=tuple(authorities), named=frozenset(named))


def _ports(shown: Traits, exposed: Iterable[int], clients: Iterable[Client]) -> tuple[list[int], list[int]]:
    """Return the ports that surely speak TLS, and those that may."""
    certain = [port for _, port in probed(shown)]
    certain += [client.port for client in clients if client.scheme in _SCHEMES and client.port]
    known = shown.ports | set(exposed)
    possible = [port for port in _USUAL if port in known] or sorted(known)[:4]
    return list(dict.fromkeys(certain)), possible


def _unanswered(found: Shown, ports: Sequence[int]) -> None:
    """Raise what is to be said of a service that showed no certificate where it should. Raises CannotAsk, NoAnswer."""
    if not found.tool:
        raise CannotAsk(
            "neither its container nor a neighbour's has openssl, python3 or curl",
            "a container with openssl on its network is enough",
        )
    said = next((each.said for each in found.served if each.said), "it said nothing")
    raise NoAnswer(f"port {ports[0]}: {said} (asked with {found.tool} in {found.asker})")


def _pairs(environment: Mapping[str, str]) -> list[str]:
    """Return the certificate files that the environment names together with their keys."""
    found = []
    for name, value in environment.items():
        match = _VARIABLE.match(name)
        if match and value.startswith("/"):
            stem = match["stem"].lower()
            keys = [each for each in environment if re.match(rf"{re.escape(stem)}_?(private_?)?key", each.lower())]
            if keys and "client" not in stem:
                found.append(value)
    return found


def _places(service: Service) -> list[str]:
    """Return where a service's certificates may lie: what it names, what is mounted under a telling name.

    A configuration file, which may name them, is marked as such.
    """
    shown, raw = traits(service), service.raw
    words = [part for word in shown.argv for part in word.split("=") if part.startswith("/")]
    words += [value for value in shown.environment.values() if value.startswith("/") and _FILE.search(value)]
    found = [*words, *_AUTHORITY.findall(shown.probe)]
    for each in raw.get("volumes") or ():
        source, target = str(each.get("source") or ""), str(each.get("target") or "")
        if _MOUNTS_OF_CERTIFICATES.search(f"{source}/{target}".lower()):
            found.append(f"{target.rstrip('/')}/")
        else:
            found.append(target)
    for each in raw.get("secrets") or ():
        target = str(each.get("target") or each["source"])
        found.append(f"{target if target.startswith('/') else f'{SECRETS}/{target}'}/")
    found += [str(each.get("target") or f"/{each['source']}") for each in raw.get("configs") or ()]
    return [
        path.rstrip("/") if path.endswith("/") or _FILE.search(path) else f"{handshake.CONFIG}{path}"
        for path in dict.fromkeys(found)
    ]


def _maker(project: Project, service: Service, path: str) -> str | None:
    """Return the one-shot that makes a service's certificates: it completes first, and writes where they are read."""
    mounts = {str(each.get("target") or ""): each.get("source") for each in service.raw.get("volumes") or ()}
    place = max((target for target in mounts if path.startswith(f"{target.rstrip('/')}/")), key=len, default=None)
    for entry in service.depends_on:
        other = project.services.get(entry.service)
        if not other or not place or entry.condition != "service_completed_successfully":
            continue
        if mounts[place] in {source for source, _ in writable_mounts(other)}:
            return other.name
    return None
