"""Warm-ups: what `fixes.warm` names is carried out once for each run of a service's container."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.errors import StackError
from stackhand.model import Finding

_MEMORY = "warmed"


def check_warm(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that a service was warmed since its container started."""
    entries = context.settings.warm.get(service, ())
    container = context.running(service)
    if not entries or container is None:
        return
    mark = _mark(container.run_key, entries)
    if (context.state.recall(_MEMORY) or {}).get(service) == mark:
        yield Finding("caches.warm", service, "caches", "ok", "it was warmed since its start")
    else:
        yield Finding(
            "caches.warm",
            service,
            "caches",
            "warn",
            "it was not warmed since its start",
            evidence="; ".join(entries),
            remedy="`inv services.fixes` warms it",
            fixable=True,
        )


def _warm(context: CheckContext, finding: Finding) -> None:
    service = finding.service or ""
    kinds = context.kinds.of(service)
    if not kinds:
        raise StackError(f"{service} is of no kind that has warm-ups; the label stackhand.kind names one")
    run = context.container(service).run_key
    entries = context.settings.warm[service]
    for entry in entries:
        kinds[0].warm(context, service, entry)
    context.state.update(_MEMORY, lambda known: {**(known or {}), service: _mark(run, entries)})


def _mark(run: str, entries: Iterable[str]) -> str:
    """Return what names a run of a container together with what it was warmed by."""
    return hashlib.sha256("\n".join((run, *entries)).encode()).hexdigest()


CHECKS = (Check("caches.warm", "caches", check_warm),)
FIXES = {"caches.warm": Fix("warm", _warm)}
