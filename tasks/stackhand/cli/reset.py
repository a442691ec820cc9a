"""The task `services.reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke.context import Context

from stackhand.cli.render import services as render
from stackhand.cli.services import fail_unless_ready, fixes_after_start
from stackhand.cli.task import agreed, task
from stackhand.context import Stack
from stackhand.errors import ApprovalNeeded, BadArgument

if TYPE_CHECKING:
    from stackhand.engine.compose.project import Project
    from stackhand.services.reset.journal import Journal, Mode
    from stackhand.services.reset.plan import Reset


@task(
    post=[fixes_after_start],
    help={
        "soft": "keep the volumes that hold data, and those labelled stackhand.keep=true",
        "full": "remove everything of this project, its data included",
    },
)
def reset(
    c: Context,
    soft: bool = False,
    full: bool = False,
    yes: bool = False,
    no_fixes: bool = False,
    json: bool = False,
) -> None:
    """Remove containers, networks and volumes of this project, and start again; asks first."""
    from stackhand.services.reset import plan as resetting
    from stackhand.services.reset.journal import Journal

    if soft == full:
        raise BadArgument("services.reset takes either --soft or --full", "--soft keeps the data, --full removes it")
    stack = Stack.of(c)
    journal = Journal(stack.state)
    # What is in profiles that are not active now has containers and volumes, too.
    everything = stack.compose.with_profiles(["*"]).config()
    made = _decide(stack, everything, journal, "full" if full else "soft")
    if stack.dry:
        render.dry(stack, made.plan(), json=json)
        return
    render.reset(stack, made, aside=json)
    if made.going and not yes:
        _ask(stack, made)
    document: dict[str, Any] = {"mode": made.mode, "removed": [], "kept": [item.to_json() for item in made.staying]}
    if json:
        stack.due(lambda: {**stack.start_document(), **document})
    with stack.state.lock("services.reset"):
        with journal.run(made.mode, made.names), stack.display as display:
            gone = resetting.remove(made, stack.compose.with_profiles(["*"]), stack.engine, everything, display.update)
        document["removed"] = [item.to_json() for item in gone]
        names = stack.select(made.names)
        with render.live(stack):
            report = stack.start_report = stack.starter.run(names)
    if not json:
        stack.console.result(f"{made.project}: {len(gone)} removed, {len(made.staying)} left")
        render.start(stack, report)
    fail_unless_ready(report)
    if not no_fixes:
        stack.to_fix = names


def _decide(stack: Stack, everything: Project, journal: Journal, mode: Mode) -> Reset:
    from stackhand.services.reset import plan as resetting

    seen = resetting.read(stack.engine, everything)
    before = journal.unfinished()
    if before:
        stack.console.progress("info", f"a reset --{before[0]} was interrupted; this one goes on from there")
    running = {each.service for each in seen.containers if each.running and not each.one_off}
    wanted = {*stack.project.services, *running, *(before[1] if before else ())}
    return resetting.decide(everything, seen, mode, [name for name in everything.services if name in wanted])


def _ask(stack: Stack, made: Reset) -> None:
    what = "everything of this project, its data included" if made.mode == "full" else "what goes"
    if not agreed(stack.console, f"remove {what}, and start {made.project} again?"):
        raise ApprovalNeeded("not agreed to: nothing was removed")
