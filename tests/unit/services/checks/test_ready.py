"""Which services a fix starts, and which may well be meant not to run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import START, container, ended, needs, project, service

from stackhand.checks.context import CheckContext, ServiceActions, ServiceKinds
from stackhand.engine.api.containers import Container
from stackhand.services import stop
from stackhand.services.checks.ready import check_ready
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder
from stackhand.state.journal import Journal


class StubEngine:
    """An engine that has these containers."""

    def __init__(self, containers: list[Container]) -> None:
        self._containers = containers

    def containers(self, project: str) -> list[Container]:
        return self._containers

    def was_signalled(self, container: Container) -> None:
        return None  # it has forgotten


def look(folder: Path, containers: list[Container], *, named: tuple[str, ...] = (), **more: Any) -> CheckContext:
    stack = project(service("web", **more), service("front", needs("web")))
    actions = ServiceActions(lambda name: None, lambda name: None, lambda name: None, lambda name, command: None)
    engine: Any = StubEngine(containers)
    return CheckContext(stack, engine, ServiceKinds({}), Fixes(), StateFolder(folder), actions, named=named)


def judge(folder: Path, containers: list[Container], **more: Any) -> tuple[str, bool]:
    (found,) = check_ready(look(folder, containers, **more), "web")
    return found.status, found.fix is not None


ENDED, KILLED, FRONT = ended(code=0), ended(code=137), container("front")


@pytest.mark.parametrize(
    ("containers", "more", "expected"),
    [
        ([KILLED], {}, ("fail", True)),
        ([], {}, ("skip", False)),
        ([FRONT], {}, ("fail", True)),
        ([], {"named": ("web",)}, ("fail", True)),
        ([ENDED], {}, ("warn", False)),
        ([ENDED], {"restart": "unless-stopped"}, ("fail", True)),
        ([ENDED, FRONT], {}, ("fail", True)),
        ([ENDED], {"named": ("web",)}, ("fail", True)),
    ],
)
def test_what_may_be_meant_so_is_left_alone(
    tmp_path: Path, containers: list[Container], more: dict[str, Any], expected: tuple[str, bool]
) -> None:
    assert judge(tmp_path, containers, **more) == expected


def test_what_was_stopped_on_purpose_stays_so_until_it_is_started(tmp_path: Path) -> None:
    with Journal(StateFolder(tmp_path)).run(stop.TASK) as run:
        run.done(KILLED.run_key)
    assert judge(tmp_path, [KILLED]) == ("skip", False)
    assert judge(tmp_path, [ended(code=137, id="another")]) == ("fail", True)


def test_what_a_fix_that_was_killed_has_stopped_is_started_again(tmp_path: Path) -> None:
    running = container("web")
    assert running.run_key == ENDED.run_key
    with pytest.raises(KeyboardInterrupt), look(tmp_path, [running]).restarting("web"):
        raise KeyboardInterrupt
    assert judge(tmp_path, [ENDED]) == ("fail", True)
    # Another end than that one may be meant.
    assert judge(tmp_path, [ended(code=0, id="another")]) == ("warn", False)
    # What came back is owed nothing any more.
    look(tmp_path, [running]).restart("web")
    assert judge(tmp_path, [ENDED]) == ("warn", False)


def test_a_stop_that_was_killed_hides_nothing_that_still_runs(tmp_path: Path) -> None:
    sick = container(status="paused")
    facts = {"engine_time": START.isoformat()}
    Journal(StateFolder(tmp_path)).begin(stop.TASK, facts, {sick.run_key: "", KILLED.run_key: ""})
    assert judge(tmp_path, [sick])[0] == "fail"
    assert judge(tmp_path, [KILLED]) == ("skip", False)
    days_later = replace(KILLED, finished_at=START + timedelta(days=3))
    assert judge(tmp_path, [days_later]) == ("fail", True)


def test_the_journal_is_read_once_for_a_look_and_not_for_what_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    recall = StateFolder.recall
    monkeypatch.setattr(StateFolder, "recall", lambda self, name: reads.append(name) or recall(self, name))
    context = look(tmp_path, [KILLED])
    for name in ("web", "front"):
        list(check_ready(context, name))
    assert reads.count("journal") == 1
    context.invalidate()
    list(check_ready(context, "web"))
    assert reads.count("journal") == 2
    context = look(tmp_path, [container("web"), FRONT])
    for name in ("web", "front"):
        (found,) = check_ready(context, name)
        assert found.status == "ok"
    assert reads.count("journal") == 2
