"""Which finding explains which: a worker that cannot log in is explained by the database that does not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from stackhand.checks.suite import Suite
from stackhand.model import Finding, Key


def attribute(findings: Sequence[Finding], blames: Mapping[Key, Iterable[str]], suite: Suite) -> list[Finding]:
    """Return the findings with `caused_by` set, root causes first; otherwise they keep their order.

    - A failure in the first phase is a symptom: the service does not answer, or is unhealthy. A failure of the same
      service in an explaining phase of the suite is its cause: it is off its network, its certificate has ended.
    - A failure or warning is explained by a failure of a service that its check blames, in the first phase or in an
      explaining one.

    A cause may have a cause of its own, and no chain of causes comes back to where it began.
    """
    failed = [each for each in findings if each.status == "fail"]
    causes: dict[Key, Key] = {}

    def candidates(finding: Finding) -> Iterator[Finding]:
        if finding.phase == suite.phases[0]:
            yield from (each for each in failed if each.service == finding.service and each.phase in suite.explaining)
        for service in blames.get(finding.key, ()):
            for phases in (suite.phases[:1], suite.explaining):
                yield from (each for each in failed if each.service == service and each.phase in phases)

    for finding in findings:
        if finding.service is None or finding.status not in ("fail", "warn"):
            continue
        cause = next((each.key for each in candidates(finding) if not _leads_to(each.key, finding.key, causes)), None)
        if cause:
            causes[finding.key] = cause
    attributed = [replace(each, caused_by=causes.get(each.key)) for each in findings]
    return sorted(attributed, key=lambda each: each.caused_by is not None)


def _leads_to(key: Key, goal: Key, causes: Mapping[Key, Key]) -> bool:
    """Return whether `key`, or one of its causes, is `goal`."""
    while key != goal and key in causes:
        key = causes[key]
    return key == goal
