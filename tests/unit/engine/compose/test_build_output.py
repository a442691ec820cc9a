"""BuildKit's plain output: whose line it is, and what a failed step has printed."""

from __future__ import annotations

import pytest

from stackhand.engine.compose.build_output import BuildLines, failed_step

# By `bake` of buildx 0.29, which writes an empty line after each of its last ones.
BAKE = """#8 [2/2] RUN echo one; echo; echo two; exit 3
#8 0.741 one
#8 ERROR: process "/bin/sh -c …" did not complete successfully: exit code: 3
------
 > [2/2] RUN echo one; echo; echo two; exit 3:
0.741 one
0.741 \n0.742 two
------
Dockerfile:2

--------------------

   1 |     FROM bb:1

   2 | >>> RUN echo one; echo; echo two; exit 3

--------------------

failed to solve: process "/bin/sh -c …" did not complete successfully: exit code: 3

"""


def test_what_the_command_printed() -> None:
    assert failed_step(BAKE, 15) == ("[2/2] RUN echo one; echo; echo two; exit 3:", "one", "two")
    assert failed_step(BAKE, 1) == ("[2/2] RUN echo one; echo; echo two; exit 3:", "two")


def test_without_a_failed_step_the_last_lines_without_blank_ones() -> None:
    assert failed_step("one\n\ntwo\n\n  \nno such file\n", 2) == ("two", "no such file")


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["#8 [api 2/2] RUN make"], "api"),
        (["#8 [api 2/2] RUN make", "#9 [my_db 2/2] RUN make", "#8 1.984 no rule"], "api"),
        (["#9 [my_db internal] load .dockerignore", "#9 DONE 0.0s"], "my.db"),
        (["#1 [internal] load local bake definitions"], None),
        (["#1 [internal] load local bake definitions", "#1 DONE 0.0s"], None),
        (["#8 [base 2/2] RUN make"], None),
        (["Dockerfile:2"], None),
    ],
)
def test_whose_line_it_is(lines: list[str], last: str | None) -> None:
    build = BuildLines(["api", "my.db"])
    assert [build.service_of(line) for line in lines][-1] == last


def test_all_lines_of_a_build_alone_are_its_own() -> None:
    assert BuildLines(["api"]).service_of("#1 [internal] load local bake definitions") == "api"
