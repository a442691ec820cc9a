"""Typed documents of the state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackhand.state.document import Document
from stackhand.state.folder import StateFolder

RUNS: Document[frozenset[str]] = Document("runs", lambda value: frozenset(map(str, value)), frozenset, sorted)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert RUNS.read(state) == frozenset()
    RUNS.write(state, frozenset({"b", "a"}))
    assert RUNS.read(state) == {"a", "b"}
    assert state.recall("runs") == ["a", "b"]


@pytest.mark.parametrize("text", ["3", "null", "{", "true"])
def test_something_else_counts_as_nothing(tmp_path: Path, text: str) -> None:
    state = StateFolder(tmp_path)
    (state.prepare() / "runs.json").write_text(text)
    assert RUNS.read(state) == frozenset()


def test_an_update_returns_the_new_value(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert RUNS.update(state, lambda runs: runs | {"a"}) == {"a"}
    assert RUNS.update(state, lambda runs: runs | {"b"}, durable=True) == {"a", "b"}
    assert RUNS.read(state) == {"a", "b"}
