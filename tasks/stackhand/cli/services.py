"""The tasks of the namespace `services`, and `up`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from stackhand.cli.own_steps import own_steps
from stackhand.cli.render import services as render
from stackhand.cli.task import choice, count, number, task
from stackhand.context import Stack
from stackhand.errors import FixFailed, NotReady, StartFailed
from stackhand.model import Plan

if TYPE_CHECKING:
    from stackhand.services.start.record import StartReport


_CAUSE = "`inv services.fixes` looks for the cause"
_EACH = f"each is explained above, with what to do next; {_CAUSE}"


@task()
def fixes_after_start(c: Context) -> None:
    """Apply the post-startup fixes to what was just started (the post-task of the start)."""
    stack = Stack.of(c)
    if stack.to_fix:
        _fix(c, stack, stack.to_fix, json=False, after_start=True)


@task(
    iterable=["service"],
    post=[fixes_after_start],
    help={
        "service": "only this service and what it depends on (may be repeated)",
    },
)
def start(
    c: Context,
    service: list[str] | None = None,
    dev: bool = False,
    timeout: str | None = None,
    retries: str | None = None,
    no_fixes: bool = False,
    json: bool = False,
) -> None:
    """Start services in dependency order and wait until each is ready."""
    _start(c, service or [], dev, timeout, retries, no_fixes, json)


@task(iterable=["service"], post=[fixes_after_start], help=dict(start.help))
def up(
    c: Context,
    service: list[str] | None = None,
    dev: bool = False,
    timeout: str | None = None,
    retries: str | None = None,
    no_fixes: bool = False,
    json: bool = False,
) -> None:
    """Start the whole stack: services.start with its post-startup fixes."""
    _start(c, service or [], dev, timeout, retries, no_fixes, json)


@task(iterable=["service"])
def fixes(c: Context, service: list[str] | None = None, json: bool = False) -> None:
    """Check that the started stack is really right, and fix what is not."""
    stack = Stack.of(c)
    _fix(c, stack, stack.select(service or []), json=json, named=service or [])


@task(iterable=["service"])
def status(c: Context, service: list[str] | None = None, json: bool = False) -> None:
    """Show how every service is; exit 1 when not all is ready."""
    from stackhand.services.start.remember import COMPLETED
    from stackhand.services.status import status as read

    stack = Stack.of(c)
    names = stack.select(service or [])
    states = read(stack.engine, stack.project, names, stack.redactor.text, completed=COMPLETED.read(stack.state))
    ok = all(each.ready for each in states)
    if json:
        stack.console.document(
            {"project": stack.project.name, "ok": ok, "services": [each.to_json() for each in states]}
        )
    else:
        render.status(stack, states)
    if not ok:
        waiting = ", ".join(each.name for each in states if not each.ready)
        raise NotReady(f"not ready: {waiting}", "`inv services.start` starts what is missing")


@task(iterable=["service"])
def wait(c: Context, service: list[str] | None = None, timeout: str | None = None, json: bool = False) -> None:
    """Wait until services are ready, without starting anything; exit 1 when they don't get there."""
    stack = Stack.of(c)
    limit = number("timeout", timeout)
    names = stack.select(service or [])
    stack.starter.configure(timeout=limit, retries=1)
    if stack.dry:
        render.dry(stack, Plan(), json=json, idle=f"would wait for {', '.join(names)}")
        return
    with render.live(stack):
        report = stack.starter.wait(names)
    if json:
        stack.console.document(report.to_json())
    else:
        render.start(stack, report)
    fail_unless_ready(report)


@task(
    iterable=["service"],
    help={
        "follow": "go on as new lines come",
        "tail": "lines per service",
        "since": "only newer ones: 10m, 2026-01-31T12:00:00",
    },
)
def logs(
    c: Context,
    service: list[str] | None = None,
    follow: bool = False,
    tail: str = "100",
    since: str | None = None,
    json: bool = False,
) -> None:
    """Show the services' log lines, with the secrets in them masked."""
    from stackhand.services.logs import LogLine, read

    stack = Stack.of(c)
    if tail != "all":
        count("tail", tail)
    names = stack.select(service or [])
    lines: list[dict[str, Any]] = []

    def show(line: LogLine) -> None:
        if not json:
            render.log_line(stack, line)
            return
        entry = {"container": line.container, "text": stack.redactor.text(line.text)}
        if follow:
            stack.console.document(entry)
        else:
            lines.append(entry)

    read(stack.compose, names, tail, since, follow, show)
    if json and not follow:
        stack.console.document({"project": stack.project.name, "ok": True, "lines": lines})


@task(iterable=["service"])
def stop(c: Context, service: list[str] | None = None, json: bool = False) -> None:
    """Stop services, dependants first; containers and data stay."""
    from stackhand.services import stop as stopping

    stack = Stack.of(c)
    names = stack.select(service or [])
    if stack.dry:
        made = stopping.plan(stack.engine, stack.project, names)
        render.dry(stack, made, json=json, idle="nothing to do: nothing runs")
        return
    with stack.state.lock("services.stop"):
        stopped = stopping.stop(stack.compose, stack.engine, stack.project, names, stack.state)
    if json:
        stack.console.document({"project": stack.project.name, "ok": True, "stopped": stopped})
    else:
        stack.console.result(f"stopped: {', '.join(stopped)}" if stopped else "nothing to do: nothing runs")


@task(
    iterable=["service"],
    help={
        "format": "text, dot, mermaid or svg",
        "service": "only this service and what it depends on (may be repeated)",
    },
)
def graph(c: Context, service: list[str] | None = None, format: str = "text", json: bool = False) -> None:
    """Draw the dependency graph."""
    from stackhand.services import graph as drawing

    stack = Stack.of(c)
    form = choice("format", format, drawing.FORMATS)
    names = stack.project.closure(stack.select(service or []))
    if json:
        stack.console.document(drawing.document(stack.project, names))
    else:
        stack.console.result(drawing.draw(stack.project, names, form))


def _start(
    c: Context,
    service: list[str],
    dev: bool,
    timeout: str | None,
    retries: str | None,
    no_fixes: bool,
    json: bool,
) -> None:
    stack = Stack.of(c)
    limit, attempts = number("timeout", timeout), count("retries", retries)
    if not no_fixes:
        _check_fixes(c, stack, json=json)
    if dev:
        stack.use_development()
    stack.prefetch()
    names = stack.select(service)
    stack.starter.configure(timeout=limit, retries=attempts, dev=dev)
    if stack.dry:
        render.dry(stack, stack.starter.plan(names, service), json=json)
        return
    _tell_unfinished(stack)
    if json:
        stack.due(stack.start_document)
    with render.live(stack):
        report = stack.start_report = stack.starter.run(names, service)
    if not json:
        render.start(stack, report)
    fail_unless_ready(report)
    if not no_fixes:
        stack.to_fix = names


def _tell_unfinished(stack: Stack) -> None:
    """Warn of runs that were killed half way: what is started now may lack some of its data, for one."""
    from stackhand.services.unfinished import unfinished

    for run in unfinished(stack.state, lambda: stack.engine.containers(stack.project.name)):
        stack.console.progress("warn", f"{run.summary}; {run.hint}")


def _check_fixes(c: Context, stack: Stack, *, json: bool) -> None:
    """Tell what is misspelt before anything is started. Raises UnknownStep, UnknownKind, BrokenKind."""
    own_steps(c, stack.settings.fixes.steps, json=json)
    from stackhand.engine.compose.project import KIND_LABEL

    labels = (service.raw.get("labels") or {} for service in stack.project.services.values())
    if any(KIND_LABEL in each for each in labels):
        from stackhand.kinds.registry import recognise

        recognise(stack.project)


def _fix(
    c: Context,
    stack: Stack,
    names: list[str],
    *,
    json: bool,
    named: Sequence[str] = (),
    after_start: bool = False,
) -> None:
    from stackhand.services import fixes as fixing

    context = stack.check_context(names if after_start else named)
    steps = own_steps(c, stack.settings.fixes.steps, json=json or stack.json)
    if stack.dry:
        made, left = fixing.plan(context, names, steps)
        render.dry(
            stack, made, json=json, idle="nothing to fix" if not left else "nothing that could be fixed", left=left
        )
        return
    report = fixing.run(context, names, steps, lambda text: stack.console.progress("wait", text))
    stack.fixes_report = report
    if json:
        stack.console.document({"service": named[0] if len(named) == 1 else None, **report.to_json()})
    elif not stack.document_pending:
        render.findings(stack, report, phases=not after_start)
    if not report.ok:
        wrong = [each for each in report.findings if each.status == "fail"]
        first = f"{wrong[0].service or 'stack'}: {wrong[0].summary}"
        raise FixFailed(
            f"{render.count(len(wrong), 'post-startup failure')} left: {first}",
            wrong[0].remedy or None,
        )


def fail_unless_ready(report: StartReport) -> None:
    """Raise StartFailed where a service that is insisted on is not ready."""
    failed = [record for record in report.services if record.state == "failed" and not record.optional]
    skipped = [record.name for record in report.services if record.state == "skipped" and not record.optional]
    if not report.ok:
        names = ", ".join(record.name for record in failed)
        one = failed[0].failure if len(failed) == 1 else None
        why = f": {one.reason}" if one else ""
        also = f"; skipped: {', '.join(skipped)}" if skipped else ""
        raise StartFailed(
            f"{len(failed)} of {len(report.services)} services failed: {names}{why}{also}",
            f"{one.hint}; {_CAUSE}" if one and one.hint and one.step == "ready" else one.hint if one else _EACH,
        )
