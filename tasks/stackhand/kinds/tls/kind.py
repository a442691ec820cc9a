"""The kind tls: servers with certificates. They are asked by a handshake, and their certificate files are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import urlsplit

from stackhand.checks.check import Check, Fix, Verdict, skip
from stackhand.checks.connections import SECRETS, Client
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.http import SERVERS
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits, traits
from stackhand.engine.compose.project import Project, Service
from stackhand.errors import StackError
from stackhand.kinds.caddy import sites
from stackhand.kinds.tls import checks as tls_checks
from stackhand.kinds.tls.certificates import writable_mounts
from stackhand.kinds.tls.checks import Expectations
from stackhand.kinds.tls.handshake import CONFIG, TlsObservation, observe

_USUAL = (443, 8443)
# --ssl-certfile (uvicorn), --certfile (gunicorn), --tls-cert-file (redis), --cert-file (minio, etcd), ssl_cert=…
# Not those by which a client verifies: --ssl-mode, --tls-ca, --tls-insecure.
_OPTION = re.compile(
    r"^--?(ssl|tls)?[-_]?cert([-_]?file)?(=|$)|^--(ssl|tls)[-_](?!ca|client|insecure|mode|no|skip|verify)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"^(?P<stem>\w*?)_?(CERT|CERTIFICATE|CRT)(_FILE|FILE|_PATH)?$", re.IGNORECASE)
# The certificate of a client says who it is: PGSSLCERT, DB_TLS_CERT, KAFKA_CLIENT_CERT, /certs/client.crt.
_CLIENTS_FILE = re.compile(r"(^|[^a-z])clients?([^a-z]|$)", re.IGNORECASE)
_CALLED = re.compile(
    r"^(pg|db|database|cache|broker|upstream|docker|etcdctl|kube)(?=_|ssl|tls|$)|"
    r"^(?P<program>amqp|clickhouse|consul|elastic|elasticsearch|etcd|kafka|ldap|mariadb|mongo|mongodb|mqtt|mysql|nats|"
    r"opensearch|postgres|postgresql|rabbitmq|redis|smtp|valkey|vault)(?=_|ssl|tls|$)"
)
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
    """What was seen of a service's certificates, and what is expected of them."""

    observed: TlsObservation
    expected: Expectations = field(default_factory=Expectations)


class Tls(Kind[TlsFacts]):
    """A server with a certificate: web servers, proxies, and any service that is given a certificate and a key."""

    name = "tls"
    ports = frozenset(_USUAL)

    def matches(self, shown: Traits) -> bool:
        """Return whether a service is set up to serve certificates. It is so beside being of another kind."""
        return bool(
            probed(shown)
            or (not shown.is_client and _certificate_options(shown.argv))
            or _pairs(shown)
            or (shown.images & SERVERS and shown.ports & self.ports)
        )

    def matches_strongly(self, shown: Traits) -> bool:
        """Return True: only ports that are called through TLS have to answer."""
        return True

    def collect(self, context: CheckContext, service: str) -> TlsFacts:
        """Shake hands with the service, and read the certificate files that it sees."""
        definition = context.project.services[service]
        container, clients = context.container(service), context.clients_of(service)
        expected = expectations(definition, clients)
        certain, possible = _ports(traits(definition), container.exposed, clients)
        secure = [site for site in sites(context, service) if site.secure]
        if secure and not expected.names:
            expected = replace(expected, names={site.name: "it has a site of that name" for site in secure})
        ports = certain or list(dict.fromkeys(site.port for site in secure)) or possible
        observed = observe(context, service, ports, list(expected.names) or [service], _places(definition))
        answering = next((port for port in ports if observed.on(port)), None)
        if answering is None and certain:
            raise _no_certificate(observed, certain[0])
        expected = replace(
            expected,
            named=expected.named | observed.named,
            port=answering,
            started=container.started_at,
            days=context.settings.certificate_days,
        )
        file = tls_checks.in_use(observed, expected)
        issuer_job = _issuer_job(context.project, definition, file.path) if file else None
        return TlsFacts(observed, replace(expected, issuer_job=issuer_job, file=file.path if file else ""))

    def checks(self) -> Sequence[Check]:
        """Return the questions: does it answer, and what is wrong with its certificates."""
        of_certificates = (
            Check(f"tls.{name}", "network", partial(self._check, name)) for name in tls_checks.EVALUATORS
        )
        return (*super().checks(), *of_certificates)

    def check_responds(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that the service completes a TLS handshake."""
        for verdict in super().check_responds(context, service):
            if verdict.status == "ok" and context.facts(self, service).expected.port is None:
                why = "no port of it is known to speak TLS, and none that was tried does"
                hint = "the label stackhand.kind says what else it is; an https:// healthcheck says where it listens"
                yield skip("there was no handshake", why, hint)
            else:
                yield verdict

    def _check(self, name: str, context: CheckContext, service: str) -> Iterable[Verdict]:
        facts = context.facts(self, service)
        does = "have new certificates taken up by" if name == "served" else "renew the certificates of"
        renew = Fix(does, partial(self._renew, context, service), "restart")
        return tls_checks.evaluate(name, facts.observed, facts.expected, context.engine.now(), renew)

    def _renew(self, context: CheckContext, service: str) -> None:
        """Have new certificates made where those on disk are not good, and have the service take up what is there.

        Looks again before each step: another finding's fix may have seen to it, or a run that was killed.
        """
        facts = self._look_again(context, service)
        issuer_job = facts.expected.issuer_job
        if issuer_job and tls_checks.broken(facts.observed, facts.expected, context.engine.now()):
            context.actions.start(issuer_job)
            facts = self._look_again(context, service)
        if tls_checks.broken(facts.observed, facts.expected, context.engine.now()):
            # A server that is started with a pair that does not fit may not come up at all.
            raise StackError(f"the certificates are not good yet, so {service} was not restarted")
        if tls_checks.outdated(facts.observed, facts.expected):
            context.restart(service)

    def _look_again(self, context: CheckContext, service: str) -> TlsFacts:
        context.invalidate()
        return context.facts(self, service)


def probed(shown: Traits) -> list[tuple[str, int]]:
    """Return the hosts and ports of the service itself that its healthcheck asks through https.

    >>> probed(Traits(probe="curl -fsS https://localhost:8443/health"))
    [('localhost', 8443)]
    """
    found = []
    for text in _URL.findall(shown.healthcheck):
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port or 443
        except ValueError:
            continue
        if host and shown.is_own_host(host):
            found.append((host, port))
    return found


def expectations(service: Service, clients: Iterable[Client]) -> Expectations:
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
    return Expectations(service.name, names, authorities=tuple(authorities), named=frozenset(named))


def _ports(shown: Traits, exposed: Iterable[int], clients: Iterable[Client]) -> tuple[list[int], list[int]]:
    """Return the ports that surely speak TLS, and those that may."""
    certain = [port for _, port in probed(shown)]
    certain += [client.port for client in clients if client.scheme in _SCHEMES and client.port]
    known = shown.ports | set(exposed)
    possible = [port for port in _USUAL if port in known] or sorted(known)[:4]
    return list(dict.fromkeys(certain)), possible


def _no_certificate(observed: TlsObservation, port: int) -> NoAnswer:
    """Return the error about a service that presented no certificate on a port where it should."""
    if not observed.tool:
        return CannotAsk(
            "neither its container nor a neighbour's has openssl, python3 or curl",
            "a container with openssl on its network is enough",
        )
    said = next((each.said for each in observed.presented if each.said), "it said nothing")
    return NoAnswer(f"port {port}: {said} (asked with {observed.tool} in {observed.asker})")


def _certificate_options(argv: Sequence[str]) -> list[str]:
    """Return the options of a command line by which a server is given a certificate."""
    pairs = zip(argv, [*argv[1:], ""], strict=False)
    return [word for word, value in pairs if _OPTION.match(word) and not _CLIENTS_FILE.search(f"{word} {value}")]


def _pairs(shown: Traits) -> list[str]:
    """Return the certificate files that the environment names together with their keys, and serves."""
    found, environment = [], shown.environment
    for name, value in environment.items():
        match = _VARIABLE.match(name)
        if match and value.startswith("/"):
            stem = match["stem"].lower()
            keys = [each for each in environment if re.match(rf"{re.escape(stem)}_?(private_?)?key", each.lower())]
            if keys and not _is_a_clients(stem, value, shown):
                found.append(value)
    return found


def _is_a_clients(stem: str, path: str, shown: Traits) -> bool:
    """Return whether a certificate is one that the service shows where it connects to, not to its own clients.

    `stem` is what stands before the word CERT in its variable: that of a server which this service is not, or of one
    that variables beside it name.
    """
    if "client" in stem or _CLIENTS_FILE.search(path.rpartition("/")[2]):
        return True
    called = _CALLED.match(stem)
    if called and called["program"] not in {*shown.images, *shown.programs, *shown.names}:
        return True
    group = re.split(r"_?(?:ssl|tls)", stem)[0]
    hosts = (value for name, value in shown.environment.items() if group and name.lower() == f"{group}_host")
    # A name with a dot may be its own, as others know it.
    return any("." not in host and not shown.is_own_host(host) for host in hosts)


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
        path.rstrip("/") if path.endswith("/") or _FILE.search(path) else f"{CONFIG}{path}"
        for path in dict.fromkeys(found)
    ]


def _issuer_job(project: Project, service: Service, path: str) -> str | None:
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
