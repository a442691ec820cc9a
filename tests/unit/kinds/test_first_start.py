"""How far a database is, by the command lines of its container's processes."""

from __future__ import annotations

import pytest

from stackhand.engine.compose.project import Service
from stackhand.kinds.first_start import may_initialise, stage

ENTRYPOINT = "bash /usr/local/bin/docker-entrypoint.sh"


def listing(*commands: str) -> str:
    """Return what the script prints for processes whose command lines are these, the first being the main one."""
    return "\n".join(
        f"==> /proc/{1 + 7 * number}/cmdline <==\n" + command.replace(" ", "\0") + "\0"
        for number, command in enumerate(commands)
    )


TEMPORARY = "/usr/lib/postgresql/18/bin/postgres -c listen_addresses= -p 5432"


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        # Postgres, as its image's entrypoint goes on.
        ([f"{ENTRYPOINT} postgres"], "unknown"),
        ([f"{ENTRYPOINT} postgres", "initdb --username=postgres", "postgres --boot -F"], "initialising"),
        ([f"{ENTRYPOINT} postgres", "postgres -C password_encryption"], "unknown"),
        ([f"{ENTRYPOINT} postgres", TEMPORARY, "postgres: checkpointer", "psql -f slow.sql"], "initialising"),
        ([f"docker-init -- {ENTRYPOINT} postgres", f"{ENTRYPOINT} postgres", TEMPORARY], "initialising"),
        (["postgres", "postgres: checkpointer", "postgres: app shop 10.0.0.3(4000) idle"], "serving"),
        (["docker-init -- docker-entrypoint.sh postgres", "postgres"], "serving"),
        # It listens on its socket only, and is meant to: by its command, by its configuration.
        (["postgres -c listen_addresses="], "serving"),
        (["docker-init -- sh postgres -c listen_addresses=''", "postgres -c listen_addresses="], "serving"),
        ([f"{ENTRYPOINT} postgres -c listen_addresses=", f"{TEMPORARY} -c listen_addresses="], "initialising"),
        (["postgres -c config_file=/etc/sockets-only.conf"], "serving"),
        (["postgres -c listen_addresses=0.0.0.0"], "serving"),
        # An entrypoint that stays beside its server.
        (["sh /start.sh", "postgres -D /data"], "serving"),
        (["sh /start.sh", "postgres -D /data -c listen_addresses= -c fsync=off"], "initialising"),
        # MySQL and MariaDB.
        ([f"{ENTRYPOINT} mysqld", "mysqld --verbose --help --log-bin-index=/tmp/x"], "unknown"),
        ([f"{ENTRYPOINT} mysqld", "mysqld --initialize-insecure"], "initialising"),
        ([f"{ENTRYPOINT} mysqld", "mysqld --daemonize --skip-networking --socket=/tmp/s"], "initialising"),
        ([f"{ENTRYPOINT} mariadbd", "mariadb-install-db --auth-root"], "initialising"),
        ([f"{ENTRYPOINT} mariadbd", "mariadbd --skip-networking --default-time-zone=SYSTEM"], "initialising"),
        (["mysqld"], "serving"),
        (["mysqld --skip-networking"], "serving"),
        (["s6-supervise", "mysqld --skip-networking=0"], "serving"),
        # MongoDB, ClickHouse, and Bitnami's images.
        ([f"{ENTRYPOINT} mongod", "mongod --bind_ip 127.0.0.1 --port 27017 --fork"], "initialising"),
        (["mongod --bind_ip_all"], "serving"),
        (["bash /entrypoint.sh", "clickhouse-server --config-file=x -- --listen_host=127.0.0.1"], "initialising"),
        (["bash /entrypoint.sh", "bash /opt/bitnami/scripts/postgresql/setup.sh", "postgres"], "initialising"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_the_stage(commands: list[str], expected: str) -> None:
    assert stage(listing(*commands)) == expected


def test_a_listing_that_was_cut_off() -> None:
    whole = listing("postgres", "postgres: checkpointer")
    assert [stage(whole[:length]) for length in (0, 5, 33, 40)] == ["unknown", "unknown", "serving", "serving"]


@pytest.mark.parametrize(
    ("image", "entry", "expected"),
    [
        ("timescale/timescaledb:latest-pg17", {}, True),
        ("bitnami/mariadb:11", {}, True),
        ("shop-db", {"healthcheck": {"test": ["CMD-SHELL", "pg_isready -U app"]}}, True),
        ("shop-db", {"command": ["mysqld", "--sql-mode="]}, True),
        ("postgres:18", {"command": ["pg_dump", "-h", "db"]}, False),
        ("postgres:18", {"pid": "host"}, False),
        ("postgres:18", {"labels": {"stackhand.kind": "none"}}, False),
        ("acme/store", {"labels": {"stackhand.kind": "postgres"}}, True),
        ("shop-web", {"healthcheck": {"test": ["CMD", "pg_isready", "-h", "db"]}}, False),
        ("redis:8", {}, False),
        ("prometheuscommunity/postgres-exporter", {}, False),
    ],
)
def test_who_is_asked(image: str, entry: dict[str, object], expected: bool) -> None:
    assert may_initialise(Service("it", image, raw={"image": image, **entry})) is expected
