"""Restarts that fixes make, in the journal of actions: one that is killed half way is finished by the next run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from stackhand.engine.api.containers import Container
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal, Run, Unfinished

# The task whose runs the journal has: each names the runs of containers that a fix is about to end.
TASK = "services.fixes"


@contextmanager
def restarting(state: StateFolder, restarted: Collection[Container], containers: Sequence[Container]) -> Iterator[None]:
    """Write down while the body runs that a fix, and nobody else, stops these of all the `containers`.

    Where the body is killed or fails, that stays written: the next run starts what ended so.
    """
    keys = [container.run_key for container in restarted if container.running]
    stopped = {container.run_key for container in containers if container.stopped}
    journal = Journal(state)
    before = [run for run in journal.unfinished(TASK) if not run.is_under_way]
    with journal.run(TASK, steps=dict.fromkeys(keys, "")):
        yield
    journal.settle(*(run for run in before if not run.left(lambda key: key in keys or key not in stopped)))


def has_pending_restart(runs: Iterable[Run], containers: Sequence[Container]) -> bool:
    """Return whether one of these containers was stopped by a fix, one of these runs, that did not come to its end."""
    pending = {key for run in runs if run.task == TASK and not run.ended for key in run.steps}
    return any(container.stopped and container.run_key in pending for container in containers)


def describe(run: Run, containers: Sequence[Container]) -> Unfinished | None:
    """Return the message about a fix that was not finished; None where all that it stopped runs again."""
    left = run.left(lambda key: all(each.run_key != key or not each.stopped for each in containers))
    services = list(dict.fromkeys(each.service for each in containers if each.run_key in left))
    if not services:
        return None
    return Unfinished(
        TASK,
        run.began,
        f"a fix was interrupted while it restarted {', '.join(services)}",
        "`inv services.fixes` finishes it",
    )
