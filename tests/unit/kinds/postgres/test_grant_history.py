"""What is remembered of roles."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

from postgres_facts import ADMIN, known

from stackhand.kinds.postgres import grant_history, prewarm
from stackhand.kinds.postgres.facts import Server
from stackhand.state.folder import StateFolder


def test_what_is_remembered_side_by_side_is_all_there(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(
        state=StateFolder(tmp_path), dry=False, container=lambda _: SimpleNamespace(run_key="r1")
    )
    threads = [Thread(target=grant_history.save, args=(context, "db", known(), "shop", f"app{n}")) for n in range(12)]
    threads += [Thread(target=prewarm.load, args=(context, f"db{n}", Server(ADMIN))) for n in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(context.state.recall("grants")["db"]["shop"]) == len(context.state.recall("prewarmed")) == 12


def test_a_dry_run_remembers_nothing(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(state=StateFolder(tmp_path), dry=True)
    grant_history.save(context, "db", known(), "shop", "app")
    assert context.state.recall("grants") is None
