"""Tables and indexes that need maintenance."""

from __future__ import annotations

from postgres_facts import ADMIN, knowing

from stackhand.kinds.postgres import maintenance
from stackhand.kinds.postgres.facts import Index, Maintenance, Server


def test_indexes() -> None:
    found = Maintenance(
        "shop",
        {"public.many": 3_000_000},
        (
            Index("public.a", "public.t", unique=True),
            Index("public.b", "public.t"),
            Index("public.a_ccnew", "public.t", unique=True),
        ),
        (Index("public.c", "public.t", size=50_000_000, expected=5_000_000),),
    )
    about = knowing(Server(ADMIN, maintenance={"shop": found}))
    assert [(each.status, bool(each.fix), each.remedy) for each in maintenance.check_indexes(about, "db")] == [
        ("fail", True, "REINDEX INDEX CONCURRENTLY public.a"),
        ("warn", True, "REINDEX INDEX CONCURRENTLY public.b"),
        ("warn", True, "DROP INDEX CONCURRENTLY public.a_ccnew"),
    ]
    assert [(each.status, bool(each.fix)) for each in maintenance.check_bloat(about, "db")] == [("warn", False)]
    assert [(each.status, each.remedy) for each in maintenance.check_analyse(about, "db")] == [
        ("warn", "ANALYZE public.many")
    ]
