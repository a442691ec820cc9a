"""The kind http: any service that answers HTTP requests, where no more special kind applies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from stackhand.checks.check import Verdict, fail, ok, skip, warn
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.http import SERVERS, TIMEOUT, Late, Reply, Url, probed_url, request
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits, traits
from stackhand.engine.compose.project import Service
from stackhand.errors import StackError
from stackhand.kinds.caddy import sites

# The most usual first.
_PORTS = (80, 8080, 8000, 3000, 5000, 8888, 9000, 4000, 8081, 8501, 7860, 443, 8443)
_TLS_PORTS = frozenset({443, 8443})
_WARM_UP_TIMEOUT = 60.0
# A healthcheck may take half a minute if nobody says otherwise; nobody waits for that long at every run.
_LONGEST_TIMEOUT = 10.0
# Answers to a stranger, or to a GET where another method is expected: the service is there.
_NOT_FOR_US = frozenset({401, 403, 405})


@dataclass(frozen=True)
class HttpFacts:
    """The URL that was asked for, the answer, and whether the healthcheck passes."""

    url: Url
    reply: Reply
    healthy: bool = False


class Http(Kind[HttpFacts]):
    """Something that speaks HTTP answers, without an error of its own."""

    name = "http"
    images = SERVERS
    programs = frozenset(
        """
        apache2 apache2-foreground caddy daphne granian gunicorn haproxy http-server httpd httpd-foreground hypercorn
        lighttpd nginx nginx-debug openresty traefik uvicorn waitress-serve
        """.split()  # noqa: SIM905
    )
    ports = frozenset(_PORTS)
    every_container = True

    def matches(self, shown: Traits) -> bool:
        """Return whether it is a web server, or its healthcheck asks itself for a URL."""
        return super().matches(shown) or probed_url(shown) is not None

    def matches_strongly(self, shown: Traits) -> bool:
        """Return True: whether there has to be an answer is decided by the URL (`collect`)."""
        return True

    def collect(self, context: CheckContext, service: str) -> HttpFacts:
        """Ask for the path of the healthcheck, else for `/`: by the name of a site where it serves named ones only."""
        container = context.container(service)
        url = url_to_ask(context.project.services[service], container.exposed)
        site = None if url.given else next(iter(sites(context, service)), None)
        if site:
            named = Url("https" if site.secure else "http", url.host, site.port, name=site.name)
            with contextlib.suppress(NoAnswer):
                return HttpFacts(named, request(context, service, named))
        healthy = container.health == "healthy"
        allowed = container.healthcheck.timeout if url.given and container.healthcheck else TIMEOUT
        seconds = max(TIMEOUT, min(allowed, _LONGEST_TIMEOUT))
        try:
            reply = request(context, service, url, seconds=seconds)
        except CannotAsk:
            raise
        except NoAnswer as error:
            if not url.given and not traits(context.project.services[service]).label:
                raise CannotAsk(f"that it speaks HTTP is a guess, and there is no answer: {error.message}") from error
            if healthy and not url.plain:
                raise CannotAsk(f"only its healthcheck knows how to ask it, and it passes: {error.message}") from error
            if healthy and isinstance(error, Late) and allowed > seconds:
                raise CannotAsk(
                    f"its healthcheck gives it {allowed:g} s, and it passes: {error.message}",
                    "if it need not be that slow, give the healthcheck a shorter timeout",
                ) from error
            # It may wait for one of them.
            error.blames = context.needs(service)
            raise
        return HttpFacts(url, reply, healthy)

    def check_responds(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check the answer's status, where there is one."""
        try:
            facts = context.facts(self, service)
        except NoAnswer:
            return super().check_responds(context, service)
        return [evaluate_status(service, facts, context.redact(str(facts.url)), context.needs(service))]

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Ask for one path, which may take a while."""
        url = url_to_ask(context.project.services[service], context.container(service).exposed)
        path = quote(what if what.startswith("/") else f"/{what}", safe="/?&=%:;,+@!~*'()$")
        reply = request(context, service, Url(url.scheme, url.host, url.port, path), seconds=_WARM_UP_TIMEOUT)
        if reply.status >= 400:
            raise StackError(f"{service}: {path} answers {reply.status}: {context.redact(reply.line)}")


def evaluate_status(service: str, facts: HttpFacts, url: str, needs: tuple[str, ...] = ()) -> Verdict:
    """Return the verdict about one answer. What the service's own healthcheck asks for must be there.

    Where it asks otherwise than we can (another method, a header, a password, a look at the body), its result counts.
    An error of the server's (5xx) is blamed on the services that it `needs`.
    """
    status, given, plain = facts.reply.status, facts.url.given, facts.url.plain
    evidence = f"{url}: {status} {facts.reply.line}".strip()
    logs = f"`inv services.logs -s {service}` says more"
    passes = facts.healthy and (status in _NOT_FOR_US or not plain)
    if status < 400 or (given and passes) or (not given and status < 500):
        return ok(f"it answers as http ({status})")
    if not given:
        return _guessed(status, evidence, logs, needs)
    if not plain:
        why = f"only its healthcheck knows how to ask it: without that it answers {status}"
        return skip(why, evidence, logs)
    if status >= 500:
        return fail(f"it answers {status}", evidence, logs, blames=needs)
    if facts.healthy:
        remedy = "give the healthcheck a path that there is, and curl the option -f"
        return warn(f"its healthcheck passes with the answer {status}", evidence, remedy)
    remedy = "correct the healthcheck's path, or what the service answers there"
    return fail(f"it answers {status} to its own healthcheck", evidence, remedy)


def _guessed(status: int, evidence: str, logs: str, needs: tuple[str, ...]) -> Verdict:
    """Return the verdict about a server's error at a URL that is a guess: a proxy may not know a host of that name."""
    if status == 503:
        return skip("it answers 503 where nobody said that it serves anything", evidence, logs)
    remedy = f"{logs}; a healthcheck that asks for a URL says what it is to serve"
    return warn(f"it answers {status}", evidence, remedy, blames=needs)


def url_to_ask(service: Service, exposed: Iterable[int]) -> Url:
    """Return the URL to ask a service for: that of its healthcheck, else `/` at the likeliest of its ports."""
    shown = traits(service)
    probed = probed_url(shown)
    if probed:
        return probed
    declared, other = shown.ports, frozenset(exposed)
    likely = [port for ports in (declared, other) for port in _PORTS if port in ports]
    port = next(iter([*likely, *sorted(declared), *sorted(other)]), _PORTS[0])
    return Url("https" if port in _TLS_PORTS else "http", "127.0.0.1", port)
