"""The kind qdrant: a vector database."""

from __future__ import annotations

from stackhand.checks.context import CheckContext
from stackhand.checks.errors import NoAnswer
from stackhand.checks.http import Url, probed_url, request
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits

_PORT = 6333


class Qdrant(Kind[None]):
    """Qdrant answers that all its shards are ready."""

    name = "qdrant"
    images = frozenset({"qdrant"})
    programs = frozenset({"qdrant"})
    ports = frozenset({_PORT})
    holds_data = True
    instead_of = frozenset({"http"})

    def matches(self, shown: Traits) -> bool:
        """Return whether it is Qdrant, or its healthcheck asks itself at that port."""
        probed = probed_url(shown)
        return super().matches(shown) or bool(probed and probed.port == _PORT)

    def collect(self, context: CheckContext, service: str) -> None:
        """Ask whether it is ready. Versions before 1.5 know no `/readyz`, and answer 404."""
        environment = context.project.services[service].environment
        scheme = "https" if (environment.get("QDRANT__SERVICE__ENABLE_TLS") or "").lower() in ("1", "true") else "http"
        port = environment.get("QDRANT__SERVICE__HTTP_PORT") or ""
        reply = request(context, service, Url(scheme, "127.0.0.1", int(port) if port.isdecimal() else _PORT, "/readyz"))
        if reply.status >= 400 and reply.status != 404:
            raise NoAnswer(f"/readyz answers {reply.status} {reply.line}".strip())
