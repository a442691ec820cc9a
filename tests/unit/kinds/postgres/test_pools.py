"""The worst case of the pools."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from builders import healthy
from postgres_facts import FIX, PGBOUNCER_FACTS

from stackhand.kinds.postgres import pools
from stackhand.kinds.postgres.login_map import Login, LoginMap
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, DatabaseEntry
from stackhand.kinds.postgres.pools import Pools, evaluate_pools, worst_case

APP = Login("app", "shop", "pool", 6432, "pool", "secret", ("api",))
MIGRATOR = Login("migrator", "shop", "db", 5432, "", "other", ("migrate",))


def login_map(facts: Bouncer = PGBOUNCER_FACTS, *more: Login) -> LoginMap:
    return LoginMap((MIGRATOR,), (APP, *more), {"pool": facts})


@pytest.mark.parametrize(
    ("facts", "more", "replicas", "expected"),
    [
        # A pool for app and one for the lookups; two connections are kept for the service that connects directly.
        (PGBOUNCER_FACTS, (), 1, Pools(0, 2, 15, 5, 55)),
        (PGBOUNCER_FACTS, (replace(APP, role="reports"),), 1, Pools(0, 3, 15, 5, 55)),
        (PGBOUNCER_FACTS, (), 3, Pools(0, 6, 15, 5, 55)),
        (replace(PGBOUNCER_FACTS, databases={"shop": DatabaseEntry("shop", "db", 5432, "shop", pool_size=30)}),
         (), 1, Pools(70, 0, 15, 5, 55)),
        (replace(PGBOUNCER_FACTS, databases={"shop": DatabaseEntry("shop", "db", 5432, "shop", user="one")}),
         (replace(APP, role="reports"),), 1, Pools(0, 2, 15, 5, 55)),
        (replace(PGBOUNCER_FACTS, settings={}, running={}), (), 1, Pools(0, 1, 20, 0, 55)),
    ],
)  # fmt: skip
def test_the_worst_case(facts: Bouncer, more: tuple[Login, ...], replicas: int, expected: Pools) -> None:
    assert worst_case("pool", login_map(facts, *more), 57, {"pool": replicas}) == expected


def test_other_pools_of_the_server_take_their_part() -> None:
    other = replace(APP, host="other", via="other")
    both = LoginMap((), (APP, other), {"pool": PGBOUNCER_FACTS, "other": PGBOUNCER_FACTS})
    assert worst_case("pool", both, 100, {}) == Pools(0, 2, 15, 5, 60)


@pytest.mark.parametrize(
    ("found", "administered", "alone", "status", "fixable", "remedy"),
    [
        (Pools(0, 2, 15, 5, 55), True, True, "ok", False, ""),
        (Pools(0, 2, 100, 5, 55), True, True, "fail", True, "set default_pool_size = 22"),
        (Pools(0, 2, 100, 5, 55), False, True, "fail", False, "set default_pool_size = 22"),
        (Pools(0, 2, 100, 5, 55), True, False, "fail", False, "set default_pool_size = 22"),
        (Pools(70, 0, 15, 5, 55), True, True, "fail", False, "make the pools smaller, or raise max_connections"),
        (Pools(0, 2, 15, 5, 11), True, True, "fail", False, "make the pools smaller, or raise max_connections"),
    ],
)
def test_pools(found: Pools, administered: bool, alone: bool, status: str, fixable: bool, remedy: str) -> None:
    verdict = evaluate_pools(
        replace(PGBOUNCER_FACTS, administered=administered), found, "db", 57, FIX if alone else None
    )
    assert (verdict.status, verdict.fix is FIX, verdict.remedy) == (status, fixable, remedy)
    if fixable:
        smaller = replace(found, size=found.fitting)
        assert smaller.worst <= found.free


@pytest.mark.parametrize("containers", [1, 2])
def test_a_size_is_set_only_where_one_console_is_all(monkeypatch: pytest.MonkeyPatch, containers: int) -> None:
    monkeypatch.setattr(pools, "bouncer_facts", lambda *_: replace(PGBOUNCER_FACTS, administered=True))
    monkeypatch.setattr(pools, "administered_servers", lambda _: [("db", SimpleNamespace(available=57))])
    monkeypatch.setattr(pools, "_pools", lambda *_, **__: Pools(0, 2, 100, 5, 55))
    context: Any = SimpleNamespace(containers=lambda: [healthy("pool", number=n + 1) for n in range(containers)])
    (verdict,) = pools.check_pools(context, "pool")
    assert (verdict.status, verdict.fix is not None) == ("fail", containers == 1)
