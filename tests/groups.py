"""The groups of the tests: the folder of a test says its group, and the group says what the test may need.

A budget is the time that a group's tests may take, added up, on a machine with two cores. A run prints it beside the
time they took. A slow machine fails no run: a group over its budget is a task for people.
"""

from __future__ import annotations

from collections.abc import Iterator

# In the order in which they run, with their budgets in seconds.
BUDGETS = {
    "unit": 60,  # no process, no engine, no trees of files
    "files": 300,  # real trees, often as root; programs of this machine
    "sim": 60,  # starts on a simulated engine
    "compose": 60,  # the Compose CLI, and no engine
    "engine": 1200,  # a real engine
    "reference": 1500,  # the reference stack on it
    "crash": 300,  # the engine or the task is killed half-way
}
NEED_AN_ENGINE = {"engine", "reference", "crash"}


def group_of(node: str) -> str:
    """Return the group of a test, from its pytest id.

    >>> group_of("tests/engine/test_start.py::test_profiles"), group_of("tasks/stackhand/model.py::stackhand.model.Ok")
    ('engine', 'unit')
    """
    first, _, rest = node.partition("/")
    name = rest.partition("/")[0]
    return name if first == "tests" and name in BUDGETS else "unit"


class Times:
    """Adds up how long the tests of each group take, wherever they run."""

    def __init__(self) -> None:
        self.tests = dict.fromkeys(BUDGETS, 0)
        self.seconds = dict.fromkeys(BUDGETS, 0.0)

    def add(self, node: str, when: str, seconds: float) -> None:
        """Count one part of a test: its setup, its call or its teardown."""
        group = group_of(node)
        self.tests[group] += when == "setup"
        self.seconds[group] += seconds

    def lines(self) -> Iterator[str]:
        """Yield a line for each group that had tests."""
        for group, budget in BUDGETS.items():
            if self.tests[group]:
                tests, seconds = self.tests[group], self.seconds[group]
                verdict = ": OVER ITS BUDGET" if seconds > budget else ""
                yield f"{group:<10} {tests:>5} tests {seconds:>6.0f} s of {budget:>4} s{verdict}"
