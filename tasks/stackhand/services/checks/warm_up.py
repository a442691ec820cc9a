"""Warm-ups: the entries of `fixes.warm` are carried out once for each run of a service's container."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial

from stackhand.checks.check import Check, Fix, Verdict, ok, warn
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.state.document import Document

# The digest of the warm-ups that were carried out last, by service.
_WARMED: Document[dict[str, str]] = Document("warmed", lambda value: {**value}, dict)


def check_warm(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that a service was warmed since its container started."""
    entries = context.settings.warm.get(service, ())
    container = context.running(service)
    if not entries or container is None:
        return
    if _WARMED.read(context.state).get(service) == _digest(container.run_key, entries):
        yield ok("it was warmed since its start")
    else:
        yield warn(
            "it was not warmed since its start",
            "; ".join(entries),
            "`inv services.fixes` warms it",
            fix=Fix("warm", partial(_warm, context, service, entries)),
        )


def _warm(context: CheckContext, service: str, entries: Iterable[str]) -> None:
    kinds = context.kinds.of(service)
    if not kinds:
        raise StackError(f"{service} is of no kind that has warm-ups; the label stackhand.kind names one")
    run = context.container(service).run_key
    for entry in entries:
        kinds[0].warm(context, service, entry)
    _WARMED.update(context.state, lambda known: {**known, service: _digest(run, entries)})


def _digest(run: str, entries: Iterable[str]) -> str:
    """Return a digest of a run of a container and of its warm-ups."""
    return hashlib.sha256("\n".join((run, *entries)).encode()).hexdigest()


CHECKS = (Check("caches.warm", "caches", check_warm),)
