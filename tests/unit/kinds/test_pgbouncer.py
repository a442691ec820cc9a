"""What the kind pgbouncer decides, of facts alone: its files, its console's answers, its pools."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackhand.kinds.pg import bouncer
from stackhand.kinds.pg.bouncer import Bouncer, Mapped
from stackhand.kinds.pg.logins import Attempt, Links, Login
from stackhand.kinds.pg.pools import Pools, pools
from stackhand.kinds.pgbouncer import judge_login, judge_missing_user, judge_pools

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


def test_a_configuration_is_read() -> None:
    settings, databases = bouncer.parse_ini(INI)
    assert settings == {"listen_port": "6433", "auth_user": "lookup"}
    assert databases["shop"] == Mapped("shop", "db", 5433, "shop_prod", pool_size=7)
    assert databases["odd name"] == Mapped("odd name", "db", 5432, "odd name", "the owner", password="it's")
    assert Bouncer(databases=databases).leads("anything") == Mapped("*", "db", 5432, "anything")
    assert "it's" not in repr(databases["odd name"])


def test_what_the_script_printed_is_read() -> None:
    text = (
        f"\x1eini /etc/pgbouncer.ini\n{INI}\n\x1eusers /etc/userlist.txt\n"
        '"lookup" "its password"\n\x1ewritable /etc/userlist.txt\n\x1econsole\n'
        "key\tvalue\tdefault\tchangeable\ndefault_pool_size\t99\t20\tyes\n"
        "\x1edatabases\nname\thost\tport\tdatabase\tforce_user\tpool_size\n"
        "shop\tdb\t5433\tshop_prod\t\t7\npgbouncer\t\t6432\tpgbouncer\tpgbouncer\t2\n"
    )
    found = bouncer.parse(text)
    assert (found.ini, found.userlist, found.userlist_writable) == ("/etc/pgbouncer.ini", "/etc/userlist.txt", True)
    assert found.administered
    assert (found.setting("default_pool_size"), found.in_file("default_pool_size")) == ("99", "20")
    assert set(found.databases) == {"*", "shop"}
    assert found.databases["shop"].pool_size == 7
    assert "its password" not in repr(found)


def test_a_console_that_lets_nobody_in() -> None:
    found = bouncer.parse("\x1eini /etc/pgbouncer.ini\n[pgbouncer]\n\x1econsole\npsql: error: FATAL: not allowed\n")
    assert (found.running, found.administered) == ({}, False)
    assert found.console_problem == "psql: error: FATAL: not allowed"


FACTS = Bouncer(
    "/etc/pgbouncer.ini",
    {"default_pool_size": "15", "reserve_pool_size": "5", "auth_user": "lookup"},
    {"shop": Mapped("shop", "db", 5432, "shop")},
    {"default_pool_size": "15", "reserve_pool_size": "5", "auth_user": "lookup"},
    administered=True,
)
APP = Login("app", "shop", "pool", 6432, "pool", "secret", ("api",))
MIGRATOR = Login("migrator", "shop", "db", 5432, "", "other", ("migrate",))


def links(facts: Bouncer = FACTS, *more: Login) -> Links:
    return Links((MIGRATOR,), (APP, *more), {"pool": facts})


@pytest.mark.parametrize(
    ("facts", "more", "replicas", "expected"),
    [
        # A pool for app and one for the lookups; two connections are kept for the service that connects directly.
        (FACTS, (), 1, Pools(0, 2, 15, 5, 55)),
        (FACTS, (replace(APP, role="reports"),), 1, Pools(0, 3, 15, 5, 55)),
        (FACTS, (), 3, Pools(0, 6, 15, 5, 55)),
        (replace(FACTS, databases={"shop": Mapped("shop", "db", 5432, "shop", pool_size=30)}),
         (), 1, Pools(70, 0, 15, 5, 55)),
        (replace(FACTS, databases={"shop": Mapped("shop", "db", 5432, "shop", user="one")}),
         (replace(APP, role="reports"),), 1, Pools(0, 2, 15, 5, 55)),
        (replace(FACTS, settings={}, running={}), (), 1, Pools(0, 1, 20, 0, 55)),
    ],
)  # fmt: skip
def test_the_worst_case(facts: Bouncer, more: tuple[Login, ...], replicas: int, expected: Pools) -> None:
    assert pools("pool", links(facts, *more), 57, {"pool": replicas}) == expected


def test_other_pools_of_the_server_take_their_part() -> None:
    other = replace(APP, host="other", via="other")
    both = Links((), (APP, other), {"pool": FACTS, "other": FACTS})
    assert pools("pool", both, 100, {}) == Pools(0, 2, 15, 5, 60)


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
    finding = judge_pools("pool", replace(FACTS, administered=administered), found, "db", 57, alone=alone)
    assert (finding.status, finding.fixable, finding.remedy) == (status, fixable, remedy)
    if fixable:
        smaller = replace(found, size=found.fitting)
        assert smaller.worst <= found.free


def test_a_login_through_it() -> None:
    directly = replace(APP, host="db", via="", port=5432)
    tried = {APP: Attempt("other", "server login failed"), directly: Attempt()}
    finding = judge_login(APP, tried[APP], tried, "db")
    assert (finding.status, finding.fixable) == ("fail", False)
    assert finding.evidence == "server login failed; logging in directly works"
    assert judge_login(APP, Attempt(), tried, "db").status == "ok"


@pytest.mark.parametrize(
    ("writable", "administered", "auth_type", "fixable"),
    [
        (True, True, "scram-sha-256", True),
        (False, True, "scram-sha-256", False),
        (True, False, "scram-sha-256", False),
        (True, True, "plain", False),
    ],
)
def test_a_missing_entry(writable: bool, administered: bool, auth_type: str, fixable: bool) -> None:
    facts = replace(
        FACTS,
        running={"auth_type": auth_type},
        userlist="/etc/userlist.txt",
        userlist_writable=writable,
        administered=administered,
    )
    finding = judge_missing_user("pool", facts, "app")
    assert (finding.status, finding.fixable) == ("fail", fixable)
    assert 'the line "app" "VERIFIER"' in finding.remedy


def test_an_entry_is_quoted() -> None:
    assert bouncer.userlist_line('a"b', "SCRAM-SHA-256$x") == '"a""b" "SCRAM-SHA-256$x"'
