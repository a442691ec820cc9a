"""The flows of perms as other code calls them: without Invoke, from one context."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from stackhand.errors import EngineUnreachable, LockHeld, UnknownRun
from stackhand.perms.context import PermsContext, read_ahead
from stackhand.perms.run import check_project, fix_project
from stackhand.perms.undo import undo_run
from stackhand.settings import Perms
from stackhand.state.folder import StateFolder

from .conftest import GID, UID, Tree, facts

OWNER = f"{UID}:{GID}"


def unreachable() -> Any:
    raise EngineUnreachable("nobody answers")


@pytest.fixture
def context(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> PermsContext:
    from stackhand.engine.host import git

    monkeypatch.setattr(git, "executables", lambda programs, root: None)
    programs: Any = None
    return PermsContext(tree.state, os.environ, tree.path, programs, unreachable, unreachable)


def test_check_fix_and_undo(context: PermsContext, tree: Tree) -> None:
    tree.file("app/run.py", 0o666)
    before = facts(tree.path / "app/run.py")
    seen = check_project(context, Perms(), OWNER)
    assert not seen.ok
    assert {each.id for each in seen.findings} == {"perms.git", "perms.compose"}
    assert fix_project(replace(context, dry=True), Perms(), OWNER).counts.wrong == seen.counts.wrong
    assert facts(tree.path / "app/run.py") == before
    fixed = fix_project(context, Perms(), OWNER)
    assert fixed.ok
    assert check_project(context, Perms(), OWNER).ok
    assert undo_run(replace(context, dry=True), None).restored == fixed.counts.changed
    assert undo_run(context, fixed.journal).restored == fixed.counts.changed
    assert facts(tree.path / "app/run.py") == before
    with pytest.raises(UnknownRun):
        undo_run(context, "20200101-000000")


def test_who_changes_something_holds_the_lock(context: PermsContext, tree: Tree) -> None:
    tree.file("app/run.py", 0o666)
    with StateFolder(tree.path).lock("services.start"):
        for change in (lambda: fix_project(context, Perms(), OWNER), lambda: undo_run(context, None)):
            with pytest.raises(LockHeld):
                change()
        assert check_project(context, Perms(), OWNER).counts.wrong
        assert fix_project(replace(context, dry=True), Perms(), OWNER).counts.wrong
        assert undo_run(replace(context, dry=True), None).id is None


def test_what_is_read_ahead_is_waited_for() -> None:
    project: Any = object()
    assert read_ahead(lambda: project)() is project
    with pytest.raises(EngineUnreachable):
        read_ahead(unreachable)()
