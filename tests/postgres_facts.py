"""Facts of Postgres that its tests begin with: servers, roles, logins, rights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stackhand.kinds.postgres import grant_history
from stackhand.kinds.postgres.facts import Cluster, Default, Grant, Rights, Role, SchemaInfo, Server
from stackhand.kinds.postgres.grant_history import GrantHistory
from stackhand.kinds.postgres.login_attempts import Attempt
from stackhand.kinds.postgres.login_map import Login
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, DatabaseEntry
from stackhand.kinds.postgres.psql import Admin
from stackhand.model import Fix

ADMIN = Admin("postgres")
DATA = "7123"
FIX = Fix("mend it in", lambda: None)


def knowing(server: Server) -> Any:
    """Return a context that knows this server."""
    return SimpleNamespace(facts_of=lambda *_: server)


BOUNCER = Bouncer(
    settings={"auth_user": "lookup", "auth_query": "SELECT u, p FROM auth.get($1)", "listen_port": "6432"},
    databases={"shop": DatabaseEntry("shop", "db", 5432, "shop_prod")},
    users={"lookup": "its password"},
)
POOLED = Login("app", "shop", "pool", 6432, "pool", "s3cr3t", ("api",))
FINE, SHUT = Attempt(), Attempt("not_admitted", "no pg_hba.conf entry")
WRONG = Attempt("password", "password authentication failed")
LOGIN = Login("app", "shop", "db", 5432, "", "s3cr3t", ("api",))
DENIED = Attempt("password", "password authentication failed")


def server(*known: Role, recovery: bool = False, **rights: Rights) -> Server:
    return Server(ADMIN, cluster=Cluster(150000, DATA, recovery, roles=known), rights=rights)


ALL = ("DELETE", "INSERT", "SELECT", "UPDATE")
HELD = Grant("app", "public", "r", ALL, ("results", "tasks"))
GIVEN = Default("app", "migrator", "public", "r", ALL)
OBJECTS = (Grant("", "public", "r", (), ("results", "tasks")),)
RIGHTS = Rights(
    "shop",
    "migrator",
    ("app",),
    schemas=(SchemaInfo("public", ("app",)),),
    held=(HELD,),
    defaults=(GIVEN,),
    objects=OBJECTS,
)


def known(rights: Rights = RIGHTS, **more: Any) -> GrantHistory:
    return grant_history.snapshot(Server(ADMIN, cluster=Cluster(150000, DATA), **more), rights, Role("app"))


# A configuration of PgBouncer.
INI = """
; a comment
[databases]
shop = host=db port=5433 dbname=shop_prod pool_size=7
"odd name" = host=db user='the owner' password='it''s'
* = host=db

[users]
app = pool_mode=session

[pgbouncer]
listen_port = 6433
auth_user = lookup
"""

PGBOUNCER_FACTS = Bouncer(
    "/etc/pgbouncer.ini",
    {"default_pool_size": "15", "reserve_pool_size": "5", "auth_user": "lookup"},
    {"shop": DatabaseEntry("shop", "db", 5432, "shop")},
    {"default_pool_size": "15", "reserve_pool_size": "5", "auth_user": "lookup"},
    administered=True,
)
