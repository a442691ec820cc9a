"""The programs that tasks run, under the GraphExecutor."""

from __future__ import annotations

from support import Runner

TASKS = """\
import threading
from invoke import task

meeting = threading.Barrier(2, timeout=30)

def running(name):
    @task(name=name)
    def run(c):
        meeting.wait()
        c.run(f"echo {name} out; echo {name} err >&2")
    return run

left, right = running("left"), running("right")

@task(pre=[left, right])
def both(c):
    pass

@task
def broken(c):
    c.run("exit 9", hide=True)

@task(pre=[broken])
def main(c):
    print("must not run")
"""


def test_output_of_programs_side_by_side_is_kept_apart(run: Runner) -> None:
    # Invoke leaves the pipes of its programs to the garbage collector, which Python would warn of.
    ran = with_tasks(run).inv("both", env={"PYTHONWARNINGS": "ignore"})
    assert ran.code == 0, ran
    lines = (ran.stdout + ran.stderr).splitlines()
    assert sorted(lines) == ["left | left err", "left | left out", "right | right err", "right | right out"]


def test_a_failed_program_ends_with_its_own_code(run: Runner) -> None:
    ran = with_tasks(run).inv("main")
    assert ran.code == 9, ran
    assert ran.stdout == ""


def with_tasks(run: Runner) -> Runner:
    (run.directory / "tasks.py").write_text(TASKS)
    (run.directory / "invoke.yaml").write_text("tasks:\n  executor_class: stackhand.graph.GraphExecutor\n")
    return run
