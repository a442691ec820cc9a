"""The kind ollama: a server of language models."""

from __future__ import annotations

import json
from dataclasses import dataclass

from stackhand.checks.context import CheckContext
from stackhand.checks.errors import NoAnswer
from stackhand.checks.http import Url, json_of, probed_url, request, url_of
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits
from stackhand.errors import StackError

_PORT = 11434
# Commands of ollama: those of a server, and those of its clients.
_SERVES = frozenset({"serve", "start"})
_ASKS = frozenset({"cp", "create", "list", "ls", "ps", "pull", "push", "rm", "run", "show", "stop"})
# Seconds: a large model is read from a slow disk.
_LOAD_TIMEOUT = 300.0


@dataclass(frozen=True)
class OllamaFacts:
    """The server's version."""

    version: str


class Ollama(Kind[OllamaFacts]):
    """Ollama answers with its version; a warm-up loads a model."""

    name = "ollama"
    images = frozenset({"ollama"})
    programs = frozenset({"ollama"})
    probes = frozenset({"ollama list", "ollama ps"})
    ports = frozenset({_PORT})
    holds_data = True
    instead_of = frozenset({"http"})

    def matches(self, shown: Traits) -> bool:
        """Return whether it is Ollama, or its healthcheck asks itself at that port. A job that pulls is none."""
        if _is_job(shown):
            return False
        probed = probed_url(shown)
        return super().matches(shown) or bool(probed and probed.port == _PORT)

    def collect(self, context: CheckContext, service: str) -> OllamaFacts:
        """Ask for the version."""
        reply = request(context, service, _url(context, service, "/api/version"))
        version = json_of(reply).get("version")
        if reply.status >= 400 or not version:
            raise NoAnswer(f"/api/version answers {reply.status} {reply.line}".strip())
        return OllamaFacts(str(version))

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Load one model: without a prompt `/api/generate` does just that. It stays for as long as the server says."""
        body = json.dumps({"model": what, "stream": False})
        url = _url(context, service, "/api/generate")
        reply = request(context, service, url, method="POST", body=body, seconds=_LOAD_TIMEOUT)
        if reply.status >= 400:
            why = json_of(reply).get("error") or reply.line
            raise StackError(f"{service}: {what} could not be loaded: {why}", f"`inv models.pull {what}` fetches it")


def _is_job(shown: Traits) -> bool:
    """Return whether it only asks a server: with a command of ollama's, or because it is told of a server elsewhere."""
    if _SERVES & set(shown.argv):
        return False
    host = url_of(f"http://{shown.environment.get('OLLAMA_HOST', '').rpartition('://')[2]}")
    return bool(_ASKS & set(shown.argv)) or bool(host and not shown.is_own_host(host.host))


def _url(context: CheckContext, service: str, path: str) -> Url:
    """Return where the server listens: `OLLAMA_HOST` may name another port."""
    given = context.project.services[service].environment.get("OLLAMA_HOST") or ""
    port = given.rstrip("/").rpartition(":")[2]
    return Url("http", "127.0.0.1", int(port) if port.isdecimal() else _PORT, path)
