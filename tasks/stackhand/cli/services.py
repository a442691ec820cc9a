"""The tasks of the namespace `services`, and `up`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from invoke.context import Context

from stackhand.cli.outcome import RunOutcome, start_document
from stackhand.cli.own_steps import own_steps
from stackhand.cli.render import services as render
from stackhand.cli.take_over import ask_to_take_over
from stackhand.cli.task import choice, count, number, task
from stackhand.context import Stack
from stackhand.errors import NotReady
from stackhand.model import Plan


@task()
def fixes_after_start(c: Context) -> None:
    """Apply the post-startup fixes to what was just started (the post-task of the start)."""
    stack = Stack.of(c)
    names = RunOutcome.of(stack).services_to_fix
    if names:
        _fix(c, stack, names, json=False, after_start=True)


def _start(
    c: Context,
    service: list[str] | None = None,
    dev: bool = False,
    timeout: str | None = None,
    retries: str | None = None,
    no_fixes: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Start services in dependency order and wait until each is ready."""
    stack = Stack.of(c)
    limit, attempts = number("timeout", timeout), count("retries", retries)
    if not no_fixes:
        _check_fixes(c, stack, json=json)
    if dev:
        stack.loader.use_development()
    prefetch(stack)
    names = stack.loader.select(service or [])
    stack.starter.configure(timeout=limit, retries=attempts, dev=dev)
    if stack.dry:
        render.dry(stack, stack.starter.plan(names, service or []), json=json)
        return
    _warn_of_unfinished(stack, names)
    outcome = RunOutcome.of(stack)
    if json:
        outcome.set_document()
    ask_to_take_over(stack, yes=yes)
    with render.live(stack):
        report = stack.starter.run(names, service or [])
    if not json:
        render.start(stack, report)
    outcome.started(report, fix=() if no_fixes else names)


_START: dict[str, Any] = {
    "iterable": ["service"],
    "post": [fixes_after_start],
    "help": {"service": "only this service and what it depends on (may be repeated)"},
}
start = task(name="start", **_START)(_start)
up = task(name="up", **_START)(_start)
up.__doc__ = "Start the whole stack: services.start with its post-startup fixes."


@task(iterable=["service"])
def fixes(c: Context, service: list[str] | None = None, json: bool = False) -> None:
    """Check that the started stack is really right, and fix what is not."""
    stack = Stack.of(c)
    _fix(c, stack, stack.loader.select(service or []), json=json, named=service or [])


@task(iterable=["service"])
def status(c: Context, service: list[str] | None = None, json: bool = False) -> None:
    """Show how every service is; exit 1 when not all is ready."""
    from stackhand.services.status import status as read

    stack = Stack.of(c)
    names = stack.loader.select(service or [])
    states = read(stack.engine, stack.project, names, stack.state, stack.redactor.text)
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
    names = stack.loader.select(service or [])
    stack.starter.configure(timeout=limit, retries=1)
    if stack.dry:
        render.dry(stack, Plan(), json=json, idle=f"would wait for {', '.join(names)}")
        return
    with render.live(stack):
        report = stack.starter.wait(names)
    if json:
        stack.console.document(start_document(report))
    else:
        render.start(stack, report)
    report.raise_unless_ok()


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
    names = stack.loader.select(service or [])
    lines: list[dict[str, Any]] = []

    def show(line: LogLine) -> None:
        if not json:
            render.log_line(stack, line)
            return
        entry = {"container": line.container, "text": line.text}
        if follow:
            stack.console.document(entry)
        else:
            lines.append(entry)

    read(stack.loader.compose, stack.engine.now, names, tail, since, follow, stack.redactor, show)
    if json and not follow:
        stack.console.document({"project": stack.project.name, "ok": True, "lines": lines})


@task(iterable=["service"])
def stop(c: Context, service: list[str] | None = None, yes: bool = False, json: bool = False) -> None:
    """Stop services, dependants first; containers and data stay."""
    from stackhand.services import stop as stopping

    stack = Stack.of(c)
    names = stack.loader.select(service or [])
    if stack.dry:
        plan = stopping.plan(stack.engine, stack.project, names)
        render.dry(stack, plan, json=json, idle="nothing to do: nothing runs")
        return
    takeover = ask_to_take_over(stack, yes=yes)
    stopped = stopping.stop(stack.loader.compose, stack.engine, stack.project, names, stack.state, takeover)
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
    names = stack.project.closure(stack.loader.select(service or []))
    if json:
        stack.console.document(drawing.document(stack.project, names))
    else:
        stack.console.result(drawing.draw(stack.project, names, form))


def prefetch(stack: Stack) -> None:
    """Begin to read what a start asks for, on threads of their own: the hashes, and the way to the engine."""
    stack.loader.prefetch_hashes()
    stack.engine.connect_ahead()


def _warn_of_unfinished(stack: Stack, names: Sequence[str]) -> None:
    """Warn of runs that were killed half way: what is started now may lack some of its data, for one."""
    from stackhand.services.unfinished import before_start

    starting = stack.project.closure(names)
    for run in before_start(stack.state, lambda: stack.engine.containers(stack.project.name), starting):
        stack.console.progress("warn", f"{run.summary}; {run.hint}")


def _check_fixes(c: Context, stack: Stack, *, json: bool) -> None:
    """Check what the fixes will need before anything is started. Raises UnknownStep, UnknownKind, BrokenKind."""
    own_steps(c, stack.settings.fixes.steps, json=json)
    from stackhand.engine.compose.labels import KIND_LABEL

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
    outcome = RunOutcome.of(stack)
    outcome.fixes_report = report
    if json:
        stack.console.document({"service": named[0] if len(named) == 1 else None, **report.to_json()})
    elif not outcome.document_pending:
        render.findings(stack, report, phases=not after_start)
    fixing.raise_unless_ok(report)
