"""How results look to people: the progress of a start, its timeline, failures, findings, plans."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from stackhand.context import Stack
from stackhand.model import Finding, Plan, Report
from stackhand.output.live import Live
from stackhand.output.table import table, width

if TYPE_CHECKING:
    from stackhand.services.logs import LogLine
    from stackhand.services.reset.plan import Item, Reset
    from stackhand.services.restart.run import Restarted
    from stackhand.services.start.record import Record, StartReport, Step
    from stackhand.services.status import ServiceStatus

_STATUS = {
    "image": "wait",
    "create": "info",
    "start": "wait",
    "wait": "info",
    "ready": "ok",
    "kept": "ok",
    "retry": "warn",
    "failed": "fail",
    "skipped": "skip",
    "note": "warn",
}
_BAR = 40
_SHORTEST_BAR = 12
# `ready after`, something of `waited for …`, and the space between columns.
_OTHERS = 50
_SIGNS = {True: "ok", False: "NO"}


@contextlib.contextmanager
def live(stack: Stack, *, kept: bool = True) -> Iterator[None]:
    """Show the steps of a start while the body runs; without `kept`, not those of services that were ready before."""
    with stack.lock:
        display, starter = stack.display, stack.starter
        if not starter.subscribers:
            starter.subscribers.append(lambda step: _show(display, step) if kept or step.kind != "kept" else None)
    with display:
        yield


def _show(display: Live, step: Step) -> None:
    display.update(
        step.service,
        _STATUS[step.kind],
        step.text,
        detail=step.kind == "image",
        quiet=step.kind in ("create", "wait"),
    )


def dry(
    stack: Stack,
    plan: Plan,
    *,
    json: bool,
    idle: str = "nothing to do: all is ready",
    left: Sequence[Finding] = (),
) -> None:
    """Print what would be done, and why, or `idle` if there is nothing to do. `left` are findings that would stay."""
    if json:
        findings = {"findings": [each.to_json() for each in left]} if left else {}
        stack.console.document({**_plan_document(stack, plan), **findings})
        return
    if not plan:
        stack.console.result(idle)
    for action in plan.actions:
        stack.console.result(f"{'would' if action.certain else 'may'} {action}")
    for finding in left:
        stack.console.result(_finding(stack, finding))


def _plan_document(stack: Stack, plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON, for a dry run."""
    return {
        "project": stack.project.name,
        "ok": True,
        "dry": True,
        "plan": [asdict(each) for each in plan.actions],
    }


def status(stack: Stack, states: Sequence[ServiceStatus]) -> None:
    """Print how services are, as a table."""
    console = stack.console
    rows = []
    for each in states:
        started = max((c.started_at for c in each.containers if c.started_at), default=None)
        detail = each.detail.splitlines()[-1] if each.detail else ""
        since = f"{started:%Y-%m-%d %H:%M:%S}" if started and each.ready else ""
        rows.append([_SIGNS[each.ready], each.name, each.state, since, detail])
    console.result(table(console, ["", "service", "state", "since (UTC)", ""], rows))


def log_line(stack: Stack, line: LogLine) -> None:
    """Print one log line."""
    stack.console.result(f"{line.container} | {line.text}")


def dry_service(stack: Stack, name: str, *, json: bool) -> None:
    """Print what bringing up one service would do. In JSON only the task that was named writes a document."""
    stack.loader.select([name])
    plan = stack.starter.plan([name], [name])
    if json:
        dry(stack, plan, json=True)
    elif not stack.json:
        own = Plan(tuple(action for action in plan.actions if action.service == name))
        dry(stack, own, json=False, idle=f"nothing to do for {name}: it is ready")


def start(stack: Stack, report: StartReport) -> None:
    """Print the outcome of a start: the failures if there are any, and the timeline."""
    for record in report.services:
        if record.state == "failed":
            failure(stack, record)
    services = count(len(report.services), "service")
    if not report.changed:
        stack.console.result(f"{report.project}: {services} ready, nothing changed ({report.elapsed:.1f} s)")
        return
    ready = sum(1 for record in report.services if record.state not in ("failed", "skipped"))
    stack.console.result(f"{report.project}: {ready} of {services} ready in {report.elapsed:.1f} s")
    stack.console.result(_timeline(stack, report))
    if len(report.critical_path) > 1:
        arrow = " → " if stack.console.has_symbols(stack.console.stdout) else " -> "
        stack.console.result(f"critical path: {arrow.join(report.critical_path)}")


def changes(stack: Stack, found: Sequence[tuple[str, str]]) -> None:
    """Print what has changed, before anything is done about it."""
    for name, cause in found:
        stack.console.progress("info", f"{name}: {cause}")


def restart(stack: Stack, restarted: Restarted) -> None:
    """Print the outcome of a restart: the services that it touched, and the number of the others."""
    report = restarted.report
    if not report.changed:
        waiting = f"; unhealthy: {', '.join(restarted.unhealthy)}" if restarted.unhealthy else ""
        stack.console.result(f"{report.project}: nothing changed ({report.elapsed:.1f} s){waiting}")
        return
    touched = tuple(record for record in report.services if record.attempts or record.failure)
    for record in touched:
        failure(stack, record)
    well = [record.name for record in touched if record.state not in ("failed", "skipped")]
    left = len(report.services) - len(touched)
    done = f"{len(well)} of {count(len(touched), 'service')} renewed in {report.elapsed:.1f} s"
    stack.console.result(f"{report.project}: {done}; {count(left, 'other')} left alone")
    stack.console.result(_timeline(stack, replace(report, services=touched)))


def reset(stack: Stack, plan: Reset, *, aside: bool) -> None:
    """List what goes and what stays; `aside` where stdout is for a document."""
    tell = stack.console.note if aside else stack.console.result
    for title, items in (("goes", plan.going), ("stays", plan.staying)):
        tell(f"{title}:" if items else f"{title}: nothing")
        for item in items:
            tell(f"  {item}")
    tell("images stay")


def resumed(stack: Stack, plan: Reset) -> None:
    """Print that an earlier reset was interrupted, if one was."""
    if plan.resumes:
        stack.console.progress("info", f"a reset --{plan.resumes} was interrupted; this one goes on from there")


def removed(stack: Stack, plan: Reset, gone: Sequence[Item]) -> None:
    """Print how much a reset has removed and left."""
    stack.console.result(f"{plan.project}: {len(gone)} removed, {len(plan.staying)} left")


def up(stack: Stack, name: str) -> None:
    """Print that a service is up, and which others were started for it."""
    report = stack.starter.report()
    others = [each.name for each in report.services if each.attempts and each.name != name]
    record = next(each for each in report.services if each.name == name)
    changed = f" in {report.elapsed:.1f} s" if report.changed else ", nothing changed"
    stack.console.result(f"{name}: {record.state}{changed}" + (f" (with {', '.join(others)})" if others else ""))


def failure(stack: Stack, record: Record) -> None:
    """Print all that helps with one failed service."""
    what = record.failure
    if what is None:
        return
    console = stack.console
    lines = [f"{console.symbol('fail', console.stderr)} {record.name} failed at step `{what.step}`: {what.reason}"]
    if what.waited >= 0.1:
        lines.append(f"    waited: {what.waited:.1f} s")
    lines += [f"    tried:  {text}" for text in what.tried]
    if what.probe_output:
        lines += _block("probe:", what.probe_output.splitlines())
    if what.log_tail:
        lines += _block("logs:", what.log_tail)
    if what.hint:
        lines.append(f"    next:   {what.hint}")
    console.note("\n".join(lines))


def findings(stack: Stack, report: Report, *, phases: bool = True) -> None:
    """Print fixes, findings and, with `phases`, a table of how each phase ended."""
    console = stack.console
    for outcome in report.outcomes:
        state = "ok" if outcome.ok else "fail"
        done = "fixed" if outcome.ok else f"could not fix ({outcome.error})"
        console.result(f"{console.symbol(state, console.stdout)} {done}: {outcome.action}")
    wrong = [each for each in report.findings if each.status in ("fail", "warn")]
    for finding in wrong:
        console.result(_finding(stack, finding))
    if phases:
        console.result(_phases(stack, report))
    fine = sum(1 for each in report.findings if each.status == "ok")
    if not wrong and not report.outcomes:
        console.result(f"post-startup fixes: nothing to fix ({count(fine, 'check')})")
    else:
        fixed = sum(1 for outcome in report.outcomes if outcome.ok)
        console.result(f"post-startup fixes: {fixed} done, {len(wrong)} left, {count(fine, 'check')} well")


def _phases(stack: Stack, report: Report) -> str:
    """Return the table of phases: how many checks each has, how they ended, and what was fixed in it."""
    fixed = Counter(outcome.finding for outcome in report.outcomes if outcome.ok)
    rows = []
    for phase in dict.fromkeys([*report.phases, *(finding.phase for finding in report.findings)]):
        mine = [finding for finding in report.findings if finding.phase == phase]
        if not mine:
            continue
        states = Counter(finding.status for finding in mine)
        ids = {finding.id for finding in mine}
        numbers = (states["ok"], sum(fixed[id_] for id_ in ids), states["warn"], states["fail"], states["skip"])
        rows.append([phase, *(str(number or "-") for number in numbers)])
    return table(stack.console, ["phase", "well", "fixed", "warnings", "failures", "not asked"], rows)


def _finding(stack: Stack, finding: Finding) -> str:
    sign = stack.console.symbol(finding.status, stack.console.stdout)
    lines = [f"{sign} {finding.service or 'stack'}: {finding.summary}"]
    if finding.evidence:
        lines += [f"    {line}" for line in finding.evidence.splitlines()]
    if finding.remedy:
        lines.append(f"    remedy: {finding.remedy}")
    return "\n".join(lines)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    head = f"    {title:<8}"
    return [f"{head if index == 0 else ' ' * len(head)}| {line}" for index, line in enumerate(lines)]


def _timeline(stack: Stack, report: StartReport) -> str:
    console = stack.console
    unicode = console.has_symbols(console.stdout)
    names = max(len(record.name) for record in report.services)
    states = max(len(_state(record)) for record in report.services)
    # What the other columns need is theirs; the bars take what is left.
    size = max(_SHORTEST_BAR, min(_BAR, width(console) - names - states - _OTHERS))
    total = max([_end(record) for record in report.services] + [0.001])
    rows = []
    for record in sorted(report.services, key=lambda each: (each.began or 0.0, each.name)):
        waited = f"waited for {', '.join(record.waited_for)}" if record.waited_for else ""
        after = f"{record.ready_after:.1f} s" if record.attempts and record.ready_after is not None else ""
        rows.append([record.name, _bar(record, total, unicode, size), _state(record), after, waited])
    return table(stack.console, ["service", f"0 s{'':{size - 9}}{total:4.1f} s", "state", "ready after", ""], rows)


def _state(record: Record) -> str:
    return record.state if record.attempts or record.failure else f"{record.state}, was running"


def _bar(record: Record, total: float, unicode: bool, size: int) -> str:
    if not record.attempts or record.began is None:
        return ""  # this run did not start it
    first = int(size * record.began / total)
    last = max(first + 1, round(size * _end(record) / total))
    return " " * first + ("█" if unicode else "#") * (last - first)


def _end(record: Record) -> float:
    """Return when a service was ready or given up, in seconds since the run began."""
    if record.failure:
        return (record.began or 0.0) + record.failure.waited
    return record.ready or 0.0


def count(number: int, word: str) -> str:
    """Return a number with its word, in the plural where that is due."""
    return f"{number} {word}{'' if number == 1 else 's'}"
