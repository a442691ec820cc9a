"""Which finding explains which: a worker that cannot log in is explained by the database that does not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stackhand.model import Finding, Key

_WRONG = ("fail", "warn")


def attribute(findings: Sequence[Finding], blames: Mapping[Key, Iterable[str]], phases: Sequence[str]) -> list[Finding]:
    """Return the findings with `caused_by` set, root causes first.

    A failure is explained by a failure of the same service in the first phase (it does not run), else by a failure of
    a service that its check blames. The finding that explains has to be a root itself: a circle explains nothing.
    """
    failed = [each for each in findings if each.status == "fail"]
    explained: dict[Key, Key] = {}
    for finding in findings:
        if finding.status not in _WRONG:
            continue
        own = () if finding.phase == phases[0] else (finding.service,)
        for service in (*own, *blames.get(finding.key, ())):
            cause = next((each for each in failed if each.service == service and each.phase == phases[0]), None)
            cause = cause or (
                next((each for each in failed if each.service == service), None) if service != finding.service else None
            )
            if cause and cause.key != finding.key and not _leads_to(cause.key, finding.key, explained):
                explained[finding.key] = cause.key
                break
    attributed = [replace(each, caused_by=explained.get(each.key)) for each in findings]
    return sorted(attributed, key=lambda each: each.caused_by is not None)


def _leads_to(key: Key, goal: Key, explained: Mapping[Key, Key]) -> bool:
    """Return whether the explanations of `key`, one after another, come to `goal`."""
    while key in explained:
        key = explained[key]
        if key == goal:
            return True
    return False
