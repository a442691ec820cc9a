"""The project's own steps among the post-startup fixes."""

from __future__ import annotations

import pytest
from support import Project

TASKS = """
from invoke import task
from stackhand import ns

@task
def seed(c, rows=3):
    c.run("echo seeding from a program")
    print("seeded", rows)
    with open("seeded", "a") as file:
        file.write("x")

@task
def broken(c):
    c.run("exit 7", hide=True)

@task
def leaves(c):
    import os, sys
    os.system("echo written past Python")
    sys.exit("nothing to seed with")

ns.add_task(seed)
ns.add_task(broken)
ns.add_task(leaves)
"""


@pytest.fixture
def stack(project: Project) -> Project:
    project.services(web={"command": "sleep infinity"})
    (project.directory / "tasks.py").write_text(TASKS)
    return project


def steps(stack: Project, *names: str) -> None:
    (stack.directory / "invoke.yaml").write_text(f"stackhand: {{fixes: {{steps: [{', '.join(names)}]}}}}\n")


def test_a_step_runs_after_the_start_and_keeps_out_of_the_document(stack: Project) -> None:
    steps(stack, "seed")
    result = stack.inv("up", "--json")
    assert result.code == 0, result
    assert [each["summary"] for each in result.json()["findings"] if each["phase"] == "steps"] == ["the step seed ran"]
    assert "seeded 3" in result.stderr
    assert "seeding from a program" in result.stderr
    assert (stack.directory / "seeded").read_text() == "x"


def test_a_step_that_fails_fails_the_fixes(stack: Project) -> None:
    steps(stack, "seed", "broken")
    result = stack.inv("up")
    assert result.code == 1, result
    assert "the step broken failed" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_a_step_that_exits_is_a_finding_in_the_one_document(stack: Project) -> None:
    steps(stack, "leaves", "seed")
    result = stack.inv("services.start", "--json")
    assert result.code == 1, result
    found = [(each["summary"], each["evidence"]) for each in result.json()["findings"] if each["phase"] == "steps"]
    assert found == [("the step leaves failed", "nothing to seed with"), ("the step seed ran", "")]
    assert "written past Python" in result.stderr


def test_a_step_that_runs_the_fixes_does_not_run_itself(stack: Project) -> None:
    steps(stack, "services.fixes", "seed")
    assert stack.inv("up").code == 0
    assert (stack.directory / "seeded").read_text() == "x"


def test_an_unknown_step_is_told_before_anything_is_done(stack: Project) -> None:
    steps(stack, "sed")
    result = stack.inv("up")
    assert stack.containers() == []
    assert result.code == 2, result
    assert result.stderr.splitlines() == [
        "error: stackhand.fixes.steps names sed, and there is no such task",
        "hint: did you mean 'seed'?",
    ]


def test_a_dry_run_names_the_steps_and_runs_none(stack: Project) -> None:
    steps(stack, "seed")
    assert stack.inv("up", "--no-fixes").code == 0
    assert "would run the step seed" in stack.inv("--dry", "services.fixes").stdout
    assert not (stack.directory / "seeded").exists()
