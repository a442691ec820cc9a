"""The task `demo`: the reference stack started and repaired before your eyes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from stackhand.cli.outcome import start_document
from stackhand.cli.render import services as render
from stackhand.cli.task import interrupt, task
from stackhand.context import Stack
from stackhand.errors import FixFailed, StartFailed
from stackhand.model import Plan, Report
from stackhand.output.pulse import ProgressTicker

if TYPE_CHECKING:
    from stackhand.demo import Demo, Work
    from stackhand.services.start.record import StartReport


@task(help={"remove": "remove the stack again, with its data"})
def demo(c: Context, remove: bool = False, json: bool = False) -> None:
    """Start the reference stack, give it work, break it and repair it; or remove it."""
    from stackhand.demo import Demo, find
    from stackhand.engine.api.endpoint import for_cli

    run = Stack.of(c)
    stack = _stack(run, find(), json=json)
    example = Demo(find(), stack.commands, for_cli(stack.environ))
    try:
        example.refuse_others(stack.project.name)
        if remove:
            _remove(stack, example, json=json)
        elif stack.dry:
            first = (*example.secrets().actions, *example.images(stack.engine, stack.project).actions)
            plan = Plan((*first, *stack.starter.plan(stack.loader.select([])).actions))
            render.dry(stack, plan, json=json)
        else:
            _show(stack, example, json=json)
    except KeyboardInterrupt as error:
        raise interrupt(stack) from error


def _stack(run: Stack, folder: Path, *, json: bool) -> Stack:
    """Return the stack of the demonstration, wherever the run itself is."""
    environ = {key: value for key, value in run.environ.items() if key != "COMPOSE_PROFILES"}
    # The development override is for those who change the stack's code.
    environ["COMPOSE_FILE"] = "compose.yaml"
    return Stack({}, directory=folder, environ=environ, dry=run.dry, json=json, console=run.console)


def _show(stack: Stack, example: Demo, *, json: bool) -> None:
    console = stack.console
    _prepare(stack, example, example.secrets())
    _prepare(stack, example, example.images(stack.engine, stack.project))
    # A new stack reads the project again: only now are there secrets to keep out of the output.
    document = _start_and_use(_stack(stack, example.folder, json=json), example, json=json)
    console.progress("warn", "now the worker is killed and a database role dropped; the next start repairs both")
    example.break_it()
    # With clocks and records of its own.
    second = _stack(stack, example.folder, json=json)
    document["repair"] = _start_and_use(second, example, json=json)
    if json:
        console.document(document)
    else:
        console.result(_how_to_go_on(example.folder, stack.project.services["caddy"].ports[0].published))


def _start_and_use(stack: Stack, example: Demo, *, json: bool) -> dict[str, Any]:
    from stackhand.services.status import status

    names = stack.loader.select([])
    report = _start(stack, names, json=json)
    fixed = _fix(stack, names, json=json)
    states = status(stack.engine, stack.project, names, stack.state, stack.redactor.text)
    work = example.submit(stack.project)
    if not json:
        render.status(stack, states)
        stack.console.result(_in_words(work))
    return {
        **start_document(report, fixed),
        "status": [each.to_json() for each in states],
        "task": work.to_json(),
    }


def _prepare(stack: Stack, example: Demo, plan: Plan) -> None:
    for action in plan.actions:
        stack.console.progress("wait", str(action))
        example.carry_out(action, ProgressTicker(stack.console))


def _start(stack: Stack, names: list[str], *, json: bool) -> StartReport:
    with render.live(stack):
        report: StartReport = stack.starter.run(names)
    if not json:
        render.start(stack, report)
    if not report.ok:
        failed = [record.name for record in report.services if record.state == "failed"]
        raise StartFailed(f"the reference stack did not start: {', '.join(failed)} failed", "the reasons are above")
    return report


def _fix(stack: Stack, names: list[str], *, json: bool) -> Report:
    from stackhand.services import fixes as fixing

    report = fixing.run(stack.check_context(), names, tell=lambda text: stack.console.progress("wait", text))
    if not json:
        render.findings(stack, report, phases=False)
    if not report.ok:
        raise FixFailed("the reference stack is not right", "the findings are above")
    return report


def _remove(stack: Stack, example: Demo, *, json: bool) -> None:
    if stack.dry:
        stack.console.result("would remove the reference stack: containers, networks, volumes and secrets")
        return
    name = stack.project.name
    example.remove(ProgressTicker(stack.console))
    if json:
        stack.console.document({"project": name, "ok": True, "removed": True})
        return
    stack.console.result(f"{name} is removed with its data; its images are kept for the next time:")
    images = sorted({service.image for service in stack.project.services.values()})
    stack.console.result(f"  docker image rm {' '.join(images)}")


def _in_words(work: Work) -> str:
    result = ", ".join(f"{key} {value}" for key, value in work.result.items())
    return f"task {work.id[:8]}: {work.state} after {work.seconds:.2f} s: {result}"


def _how_to_go_on(folder: Path, port: int) -> str:
    # Short where that is possible, and true wherever it was called.
    there = min(os.path.relpath(folder), str(folder), key=len)
    return f"""
go on in its folder:        cd {there}
  how is everything:        ../../inv services.status
  who depends on whom:      ../../inv services.graph
  the worker's log:         ../../inv services.logs -s worker
  hand in a text yourself:  docker compose exec -T caddy cat /tls/ca.crt > ca.crt
                            curl --cacert ca.crt https://localhost:{port}/tasks -H 'Content-Type: application/json' \
-d '{{"text": "one two three"}}'
remove it, data included:   ./inv demo --remove"""
