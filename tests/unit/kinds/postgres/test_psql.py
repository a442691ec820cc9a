"""The ways in as administrator, and what their answers mean."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from postgres_facts import ADMIN

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.postgres.psql import Admin, NoAdministrator, first_answer


def test_without_psql_nobody_was_asked() -> None:
    class Bare:
        within = float

        def shell(self, *_: Any, **__: Any) -> ExecResult:
            return ExecResult(127, "", "sh: psql: not found")

    context: Any = Bare()
    with pytest.raises(CannotAsk, match="no psql"):
        first_answer(context, "db", [ADMIN], "SELECT 1")


WHOLE = '{"section" : "cluster", "version" : 150004}'


class AskedServer:
    """A server as psql shows it: an answer to each way in, then to `SELECT 1`."""

    within = float

    def __init__(self, *answers: ExecResult, health: str = "none") -> None:
        self.answers = list(answers)
        self.verified_healthy: list[str] = []
        self.health = health

    def shell(self, *_: Any, **__: Any) -> ExecResult:
        return self.answers.pop(0)

    def container(self, service: str) -> Any:
        return SimpleNamespace(health=self.health)

    def redact(self, text: str) -> str:
        return text


DEMOTED = ExecResult(0, '{"section" : "maintenance"}', "ERROR:  permission denied for table pg_authid")
SLOW = ExecResult(None, "", "", 10.0)
NOWHERE = ExecResult(2, "", "psql: error: connection to server on socket failed: No such file or directory")


def test_a_way_in_that_does_not_see_the_server_is_none() -> None:
    stage: Any = AskedServer(DEMOTED, ExecResult(0, WHOLE))
    second = Admin("other")
    assert first_answer(stage, "db", [ADMIN, second], "…")[0] is second
    stage = AskedServer(DEMOTED)
    with pytest.raises(NoAdministrator, match="permission denied for table pg_authid"):
        first_answer(stage, "db", [ADMIN], "…")


@pytest.mark.parametrize(
    ("answers", "health", "kind", "says"),
    [
        ([ExecResult(0, "", "ERROR:  function sha256(bytea) does not exist")], "none", CannotAsk, "function sha256"),
        ([SLOW, ExecResult(0, "1\n")], "none", CannotAsk, "it answers"),
        ([SLOW, SLOW], "none", NoAnswer, "no answer within 10 s"),
        ([NOWHERE], "none", NoAnswer, "No such file"),
        # Its own healthcheck is content: it listens somewhere else.
        ([NOWHERE], "healthy", CannotAsk, "No such file"),
        (
            [ExecResult(2, "", "psql: error: FATAL:  the database system is starting up")],
            "none",
            NoAnswer,
            "starting up",
        ),
    ],
)
def test_no_answer(answers: list[ExecResult], health: str, kind: type[Exception], says: str) -> None:
    stage: Any = AskedServer(*answers, health=health)
    with pytest.raises(NoAnswer, match=says) as caught:
        first_answer(stage, "db", [ADMIN], "…")
    assert type(caught.value) is kind
