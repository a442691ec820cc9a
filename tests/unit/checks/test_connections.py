"""Who connects to whom, read from environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import project, service

from stackhand.checks.connections import Client, clients, secrets, value_of


def _read(environment: dict[str, str], **more: Any) -> list[Client]:
    raw = {"networks": {"back": {"aliases": ["cache", "Database"]}}}
    api = service("api", environment=environment, **more)
    return clients(project(api, service("db", raw=raw), service("other"), networks={"back": "shop_back"}))


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"DATABASE_URL": "postgresql://app:p%40ss@db/shop"}, ("db", 5432, "app", "shop", "p@ss")),
        ({"DATABASE_URL": "postgresql+psycopg://app@db:6543/shop"}, ("db", 6543, "app", "shop", "")),
        ({"SPRING_DATASOURCE_URL": "jdbc:postgresql://db:5432/shop", "SPRING_DATASOURCE_USERNAME": "app"},
         ("db", 5432, "app", "shop", "")),
        ({"DATABASE_URL": "postgresql://db/shop?user=app&password=x"}, ("db", 5432, "app", "shop", "x")),
        ({"DATABASE_URL": "postgresql+asyncpg:///shop?host=db&user=app"}, ("db", 5432, "app", "shop", "")),
        ({"REDIS_URL": "redis://:secret@db:6379/0"}, ("db", 6379, "", "0", "secret")),
        ({"REDIS_URL": "redis://db", "REDIS_PASSWORD": "secret"}, ("db", 6379, "", "", "secret")),
        ({"PGHOST": "db", "PGUSER": "app", "PGPASSWORD": "x", "PGDATABASE": "shop", "PGPORT": "6432"},
         ("db", 6432, "app", "shop", "x")),
        ({"DB_HOST": "db", "DB_USERNAME": "app", "DB_PASS": "x", "DB_NAME": "shop"}, ("db", None, "app", "shop", "x")),
        ({"POSTGRES_SERVER": "db", "POSTGRES_USER": "app", "POSTGRES_DB": "shop"}, ("db", None, "app", "shop", "")),
        ({"WORDPRESS_DB_HOST": "db:3306", "WORDPRESS_DB_USER": "app"}, ("db", 3306, "app", "", "")),
        ({"database__connection__host": "db", "database__connection__user": "app"}, ("db", None, "app", "", "")),
        ({"DATABASE_DSN": "host=db port=5432 user=app password='x y' dbname=shop"}, ("db", 5432, "app", "shop", "x y")),
        ({"ConnectionStrings__Main": "Server=db;User Id=app;Password=x"}, ("db", None, "app", "", "x")),
        ({"KAFKA_BOOTSTRAP": "db:9092"}, ("db", 9092, "", "", "")),
        ({"REDIS_ADDR": "db:6379"}, ("db", 6379, "", "", "")),
        ({"PGHOST": "cache"}, ("cache", None, "", "", "")),
        ({"PGHOST": "database"}, ("database", None, "", "", "")),
        ({"PGHOST": "shop-db-1"}, ("shop-db-1", None, "", "", "")),
        ({"PGHOST": "db.shop_back"}, ("db.shop_back", None, "", "", "")),
    ],
)  # fmt: skip
def test_a_connection(environment: dict[str, str], told: tuple[Any, ...]) -> None:
    (found,) = _read(environment)
    assert (found.host, found.port, found.user, found.database, found.password) == told
    assert (found.service, found.server) == ("api", "db")


@pytest.mark.parametrize(
    "environment",
    [
        {"DATABASE_URL": "postgresql://app@db:1,other:2/shop"},
        {"BROKER": "redis://db:1;redis://other:2"},
        {"PGHOST": "db:1,other:2"},
        {"NODES": "db:1,other:2"},
    ],
)
def test_several_hosts(environment: dict[str, str]) -> None:
    assert [(each.server, each.port) for each in _read(environment)] == [("db", 1), ("other", 2)]


@pytest.mark.parametrize(
    "environment",
    [
        {"HOST": "0.0.0.0", "PORT": "8000"},
        {"DATABASE_URL": "postgresql://app@[::1]:5432/shop"},
        {"DATABASE_URL": "postgresql://app@[::1/shop"},
        {"PGHOST": "/var/run/postgresql"},
        {"PGHOST": "db.example.com"},
        {"PGHOST": ""},
        {"HOSTNAME": "api"},
        {"NOTE": "a=b 'never closed"},
        {"DATABASE_URL_FILE": "/nowhere"},
    ],
)
def test_what_leads_to_no_service(environment: dict[str, str]) -> None:
    assert _read(environment) == []


def test_a_services_own_name_comes_before_an_alias() -> None:
    impostor = service("a", raw={"networks": {"back": {"aliases": ["db"]}}})
    api = service("api", environment={"PGHOST": "db"})
    assert [each.server for each in clients(project(impostor, service("db"), api))] == ["db"]


def test_links_are_names_of_one_service() -> None:
    raw = {"links": ["db:database"]}
    api, other = (
        service("api", environment={"PGHOST": "database"}, raw=raw),
        service("z", environment={"PGHOST": "database"}),
    )
    assert [each.service for each in clients(project(service("db"), api, other))] == ["api"]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:secret@db\n")
    (tmp_path / "password").write_text("word\n")
    api = service(
        "api",
        environment={"REDIS_URL_FILE": "/run/secrets/url", "DB_HOST": "db", "DB_PASSWORD_FILE": "/somewhere/pw"},
        raw={"secrets": [{"source": "url"}, {"source": "pw", "target": "/somewhere/pw"}]},
    )
    made = project(service("db"), api, secret_files={"url": tmp_path / "url", "pw": tmp_path / "password"})
    assert [(each.variable, each.password) for each in clients(made)] == [("REDIS_URL", "secret"), ("DB_HOST", "word")]
    assert value_of(made, api, "DB_PASSWORD") == "word"
    assert value_of(made, api, "OTHER") == ""
    assert secrets(made, api) == {"url": "redis://:secret@db", "pw": "word", "DB_HOST": "db"}
    assert "word" not in repr(clients(made))
