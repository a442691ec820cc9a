"""The list of kinds: those of this folder, and those of other packages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from stackhand.checks.context import ServiceKinds
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits, traits
from stackhand.engine.compose.project import Project, Service
from stackhand.errors import BrokenKind, UnknownKind, did_you_mean
from stackhand.kinds.data_volumes import store
from stackhand.kinds.tls.certificates import keeps_certificates

GROUP = "stackhand.kinds"
_NONE = "none"


@cache
def kinds() -> tuple[Kind[Any], ...]:
    """Return all kinds: our own, then those of the entry-point group `stackhand.kinds`. Raises BrokenKind."""
    from stackhand.kinds.celery.kind import Celery
    from stackhand.kinds.http import Http
    from stackhand.kinds.ollama import Ollama
    from stackhand.kinds.postgres.pgbouncer import PgBouncer
    from stackhand.kinds.postgres.postgres import Postgres
    from stackhand.kinds.qdrant import Qdrant
    from stackhand.kinds.redis.kind import Redis
    from stackhand.kinds.tls.kind import Tls

    own = (Postgres(), PgBouncer(), Redis(), Celery(), Ollama(), Qdrant(), Http(), Tls())
    return (*_brought({kind.name for kind in own}), *own)


def recognise(project: Project) -> ServiceKinds:
    """Return the kinds of every service of a project. Raises UnknownKind, BrokenKind."""
    found = {name: kinds_of(service) for name, service in project.services.items()}
    shown = {name: traits(service) for name, service in project.services.items()}
    guesses = {
        (name, kind.name)
        for name, some in found.items()
        for kind in some
        if shown[name].label is None and not kind.matches_strongly(shown[name])
    }
    return ServiceKinds(found, frozenset(guesses))


def kinds_of(service: Service) -> tuple[Kind[Any], ...]:
    """Return the kinds of one service: those of its label, else those that its traits match.

    Raises UnknownKind where there is no kind of the label's name.
    """
    shown = traits(service)
    known = kinds()
    if shown.label is not None:
        return _labelled(service.name, shown.label, known)
    return _recognised(shown, known)


def data_kind(service: Service) -> str | None:
    """Return the kind because of which a service's volumes are kept, or None where they hold nothing to lose.

    A label changes what is asked of a service; what is in its volumes it does not change. A job made of a database's
    image may keep dumps there, or end in a server.
    """
    shown = traits(service)
    alike = (kind for kind in kinds() if shown.images & kind.images)
    found = (*kinds_of(service), *_possible(shown, kinds()), *alike)
    kind = next((kind.name for kind in found if kind.holds_data), None)
    return kind or store(service) or ("tls" if keeps_certificates(service) else None)


def _recognised(shown: Traits, known: Sequence[Kind[Any]]) -> tuple[Kind[Any], ...]:
    found = _possible(shown, known)
    # Program and image count more than a guess: a web server whose healthcheck asks a database is no database.
    if any(shown.programs & kind.programs or shown.images & kind.images for kind in found):
        found = tuple(kind for kind in found if kind.matches_strongly(shown))
    general = frozenset(name for kind in found for name in kind.instead_of)
    return tuple(kind for kind in found if kind.name not in general)


def _possible(shown: Traits, known: Sequence[Kind[Any]]) -> tuple[Kind[Any], ...]:
    """Return all kinds that match; those that match by port only where no other does."""
    found = tuple(kind for kind in known if kind.matches(shown))
    return found or tuple(kind for kind in known if kind.matches_port(shown))


def _labelled(service: str, names: frozenset[str], known: Sequence[Kind[Any]]) -> tuple[Kind[Any], ...]:
    by_name = {kind.name: kind for kind in known}
    for name in sorted(names - {_NONE, ""}):
        if name not in by_name:
            raise UnknownKind(
                f"service {service} has the label stackhand.kind: {name}, and there is no such kind",
                did_you_mean(name, sorted([*by_name, _NONE]), "kinds"),
            )
    return tuple(by_name[name] for name in sorted(names & set(by_name)))


def _brought(taken: set[str]) -> list[Kind[Any]]:
    """Return the kinds of other packages; their names must not be among `taken`. Raises BrokenKind."""
    from importlib.metadata import entry_points

    found: list[Kind[Any]] = []
    for entry in entry_points(group=GROUP):
        try:
            made = entry.load()()
        except Exception as error:  # whatever another package's code may raise
            raise _broken(entry.name, entry.value, f"{type(error).__name__}: {error}") from error
        if not isinstance(made, Kind):
            raise _broken(entry.name, entry.value, f"it is no stackhand.kinds.Kind but {type(made).__name__}")
        name = getattr(made, "name", "")
        if not name or name == _NONE:
            raise _broken(entry.name, entry.value, "it has no name")
        if name in taken:
            raise _broken(entry.name, entry.value, f"there is a kind {name} already")
        taken.add(name)
        found.append(made)
    return found


def _broken(name: str, value: str, problem: str) -> BrokenKind:
    return BrokenKind(
        f"the kind {name} ({value}) cannot be loaded: {problem}",
        f"repair or uninstall the package that brings {value}",
    )
