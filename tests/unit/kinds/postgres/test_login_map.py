"""Who logs in where, directly and through PgBouncer."""

from __future__ import annotations

from postgres_facts import BOUNCER

from stackhand.checks.connections import Client
from stackhand.kinds.postgres.login_map import AuthQuery, Login, LoginMap, build_login_map
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, DatabaseEntry


def test_who_logs_in_where() -> None:
    clients = [
        Client("api", "pool", "pool", 6432, "DATABASE_HOST", "", "app", "shop", "", "s3cr3t"),
        Client("worker", "pool", "pool", 6432, "DATABASE_HOST", "", "app", "shop", "", "s3cr3t"),
        Client("migrate", "db", "db", None, "PGHOST", "", "migrator", "shop_prod", "", "other"),
        Client("api", "db", "db", 80, "SOME_URL", "http", "app", "", "", "x"),
    ]
    found = build_login_map("db", clients, {"pool": BOUNCER}, {"db": "db", "pool": "pool"})
    assert found.pooled == (Login("app", "shop", "pool", 6432, "pool", "s3cr3t"),)
    assert found.pooled[0].clients == ("api", "worker")
    assert set(found.direct) == {
        Login("app", "shop_prod", "db", 5432, "", "s3cr3t"),
        Login("migrator", "shop_prod", "db", 5432, "", "other"),
        Login("lookup", "shop_prod", "db", 5432, "", "its password"),
    }
    assert [(each.role, each.database) for each in found.auth_queries] == [("lookup", "shop_prod")]
    assert found.pairs() == [("app", "shop_prod"), ("migrator", "shop_prod")]


def test_a_forced_user_is_who_logs_in() -> None:
    forced = Bouncer(
        databases={"shop": DatabaseEntry("shop", "db", 5432, "shop", user="owner", password="of the owner")}
    )
    client = Client("api", "pool", "pool", None, "X", "", "anybody", "shop", "", "its own")
    found = build_login_map("db", [client], {"pool": forced}, {"db": "db"})
    assert found.direct == (Login("owner", "shop", "db", 5432, "", "of the owner"),)
    assert found.pooled == (Login("anybody", "shop", "pool", 6432, "pool", "its own"),)


def test_an_entry_for_any_database_is_looked_up_for_those_that_clients_ask_for() -> None:
    settings = {"auth_user": "lookup", "auth_query": "SELECT u, p FROM auth.get($1)"}
    entries = {"*": DatabaseEntry("*", "db"), "named": DatabaseEntry("named", "db", 5432, "other", auth_user="second")}
    any_database = Bouncer(settings=settings, databases=entries)
    client = Client("api", "pool", "pool", None, "X", "", "app", "shop", "", "s3cr3t")
    found = build_login_map("db", [client], {"pool": any_database}, {"db": "db"})
    assert {(each.role, each.database) for each in found.auth_queries} == {("lookup", "shop"), ("second", "other")}
    assert build_login_map("db", [], {"pool": any_database}, {"db": "db"}).auth_queries == (
        AuthQuery("pool", "second", "other", "SELECT u, p FROM auth.get($1)"),
    )


def test_a_direct_login_is_derived_only_where_nobody_makes_it_himself() -> None:
    api = Client("api", "pool", "pool", 6432, "X", "", "app", "shop", "", "s3cr3t")
    found = build_login_map("db", [api], {"pool": BOUNCER}, {"db": "db"})
    assert {each.role: each.behind for each in found.direct} == {"app": ("pool",), "lookup": ("pool",)}
    job = Client("job", "db", "db", 5432, "X", "", "app", "shop_prod", "", "s3cr3t")
    found = build_login_map("db", [api, job], {"pool": BOUNCER}, {"db": "db"})
    merged = next(each for each in found.direct if each.role == "app")
    assert (merged.clients, merged.behind) == (("api", "job"), ())


def test_who_only_asks_the_console_is_no_role_of_the_server() -> None:
    anything = Bouncer(databases={"*": DatabaseEntry("*", "db")}, settings={"auth_user": "lookup"})
    exporter = Client("exporter", "pool", "pool", 6432, "X", "postgres", "stats", "pgbouncer", "", "s3cr3t")
    assert build_login_map("db", [exporter], {"pool": anything}, {"db": "db"}) == LoginMap(bouncers={"pool": anything})
