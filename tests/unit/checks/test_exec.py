"""Programs inside a service's container, in a neighbour's, in a helper: one result, and who is asked next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from builders import container

from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.exec import first_able, in_helper, inside
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.api.helper import Helper
from stackhand.engine.api.sdk import ContainerGone
from stackhand.errors import StackError

WEB = container("web")


@pytest.mark.parametrize(
    ("codes", "asked", "place"),
    [
        ({"db": 0, "web": 0}, ["db"], "db"),
        ({"db": 127, "web": 0}, ["db", "web"], "web"),
        ({"db": 126, "web": 1}, ["db", "web"], "web"),
        ({"db": 127, "web": None}, ["db", "web"], "web"),
        ({"db": 127, "web": 127}, ["db", "web"], None),
        ({}, [], None),
    ],
)
def test_the_first_that_has_the_program(codes: dict[str, int | None], asked: list[str], place: str | None) -> None:
    seen: list[str] = []

    def run(where: str) -> ExecResult:
        seen.append(where)
        return ExecResult(codes[where], "")

    found = first_able(codes, run)
    assert (found.place if found else None, seen) == (place, asked)


class _Engine:
    """An engine whose answer is this, or that raises it."""

    def __init__(self, answer: ExecResult | Exception) -> None:
        self.answer = answer
        self.helpers: list[Helper] = []

    def ask(self, *args: Any, **options: Any) -> ExecResult:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run_helper(self, helper: Helper, timeout: float | None = None) -> ExecResult:
        self.helpers.append(helper)
        return self.ask()


def _inside(engine: Any) -> ExecResult:
    return inside(engine, WEB, ["true"])


def _in_helper(engine: Any) -> ExecResult:
    return in_helper(engine, WEB, "tools", ["true"])


@pytest.mark.parametrize(
    ("run", "raised", "expected"),
    [
        (_inside, ContainerGone("no such container"), NoAnswer),
        (_in_helper, ContainerGone("no such container"), NoAnswer),
        (_in_helper, StackError("there is no such image"), CannotAsk),
    ],
)
def test_where_nothing_can_run(
    run: Callable[[Any], ExecResult], raised: StackError, expected: type[StackError]
) -> None:
    with pytest.raises(expected) as error:
        run(_Engine(raised))
    assert type(error.value) is expected
    assert raised.message in error.value.message


def test_a_helper_joins_the_network_of_the_container() -> None:
    engine: Any = _Engine(ExecResult(0, "hello"))
    assert _in_helper(engine).stdout == "hello"
    assert [(each.image, each.network) for each in engine.helpers] == [("tools", f"container:{WEB.id}")]
