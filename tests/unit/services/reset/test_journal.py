"""What is remembered of a reset that was not finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackhand.services.reset.journal import TASK, Journal, describe
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal as Actions


def test_a_reset_that_was_interrupted_is_remembered_until_one_is_finished(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert Journal(state).unfinished() is None
    with pytest.raises(KeyboardInterrupt), Journal(state).run("full", ["db", "api"]):
        raise KeyboardInterrupt
    assert Journal(state).unfinished() == ("full", ["db", "api"])
    [run] = Actions(state).unfinished()
    told = describe(run)
    assert told is not None
    assert told.summary == "a reset --full was interrupted before all was removed"
    assert told.hint == "`inv services.reset --full` finishes it"
    with Journal(state).run("soft", ["db"]):
        assert Journal(state).unfinished() == ("soft", ["db"])
    assert Journal(state).unfinished() is None
    assert Actions(state).unfinished() == []


@pytest.mark.parametrize("facts", [{}, {"mode": "\x1b[2J", "names": []}, {"mode": ["full"]}])
def test_a_mode_that_is_none_is_not_told(tmp_path: Path, facts: dict[str, object]) -> None:
    state = StateFolder(tmp_path)
    Actions(state).begin(TASK, facts)
    assert Journal(state).unfinished() is None
    assert describe(Actions(state).unfinished()[0]) is None


def test_names_that_are_none_count_as_no_names(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    Actions(state).begin(TASK, {"mode": "soft", "names": {"db": 1}})
    assert Journal(state).unfinished() == ("soft", [])
