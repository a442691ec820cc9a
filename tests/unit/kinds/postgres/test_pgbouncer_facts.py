"""A PgBouncer by its files and the answers of its console."""

from __future__ import annotations

from postgres_facts import INI

from stackhand.kinds.postgres import pgbouncer_facts
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, DatabaseEntry


def test_a_configuration_is_read() -> None:
    settings, databases = pgbouncer_facts.parse_ini(INI)
    assert settings == {"listen_port": "6433", "auth_user": "lookup"}
    assert databases["shop"] == DatabaseEntry("shop", "db", 5433, "shop_prod", pool_size=7)
    assert databases["odd name"] == DatabaseEntry("odd name", "db", 5432, "odd name", "the owner", password="it's")
    assert Bouncer(databases=databases).lookup("anything") == DatabaseEntry("*", "db", 5432, "anything")
    assert "it's" not in repr(databases["odd name"])


def test_what_the_script_printed_is_read() -> None:
    text = (
        f"\x1eini /etc/pgbouncer.ini\n{INI}\n\x1eusers /etc/userlist.txt\n"
        '"lookup" "its password"\n\x1ewritable /etc/userlist.txt\n\x1econsole\n'
        "key\tvalue\tdefault\tchangeable\ndefault_pool_size\t99\t20\tyes\n"
        "\x1edatabases\nname\thost\tport\tdatabase\tforce_user\tpool_size\n"
        "shop\tdb\t5433\tshop_prod\t\t7\npgbouncer\t\t6432\tpgbouncer\tpgbouncer\t2\n"
    )
    found = pgbouncer_facts.parse(text)
    assert (found.ini, found.userlist, found.userlist_writable) == ("/etc/pgbouncer.ini", "/etc/userlist.txt", True)
    assert found.administered
    assert found.console["PGPORT"] == "6433"
    assert (found.setting("default_pool_size"), found.in_file("default_pool_size")) == ("99", "20")
    assert set(found.databases) == {"*", "shop"}
    assert found.databases["shop"].pool_size == 7
    assert "its password" not in repr(found)


def test_a_console_that_lets_nobody_in() -> None:
    found = pgbouncer_facts.parse(
        "\x1eini /etc/pgbouncer.ini\n[pgbouncer]\n\x1econsole\npsql: error: FATAL: not allowed\n"
    )
    assert (found.running, found.administered) == ({}, False)
    assert found.console_problem == "psql: error: FATAL: not allowed"


def test_an_entry_is_quoted() -> None:
    assert pgbouncer_facts.userlist_line('a"b', "SCRAM-SHA-256$x") == '"a""b" "SCRAM-SHA-256$x"'
