"""The kind postgres: which services are one, and what its checks say where nothing could be read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders import container, project, service
from postgres_facts import BOUNCER, server

from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext, ServiceKinds
from stackhand.checks.traits import traits
from stackhand.kinds.postgres.facts import Role
from stackhand.kinds.postgres.pgbouncer import PgBouncer
from stackhand.kinds.postgres.postgres import Postgres
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder


@pytest.mark.parametrize(
    ("image", "raw", "expected"),
    [
        ("postgres:16-alpine", {}, True),
        ("postgis/postgis:16-3.4", {}, True),
        ("timescale/timescaledb:latest-pg16", {}, True),
        ("pgvector/pgvector:pg16", {}, True),
        ("bitnami/postgresql:16", {}, True),
        ("prometheuscommunity/postgres-exporter", {}, False),
        ("supabase/postgres-meta:v0.84", {}, False),
        ("shop/postgres-rest", {}, False),
        ("shop/db", {"healthcheck": {"test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1"]}}, True),
        ("shop/db", {"healthcheck": {"test": ["CMD-SHELL", "pg_isready -U shop"]}}, True),
        ("shop/api", {"healthcheck": {"test": ["CMD-SHELL", "pg_isready -h db -U shop"]}}, False),
        ("shop/db", {"command": ["postgres", "-c", "max_connections=200"]}, True),
        ("shop/api", {}, False),
        # A client in the server's image: its own program, and another service's server.
        ("postgres:16", {"command": ["/backup.sh"], "environment": {"PGHOST": "db"}}, False),
        ("postgres:16", {"entrypoint": ["sh", "-c", "while :; do ./dump; sleep 9; done"],
                         "environment": {"POSTGRES_HOST": "db"}}, False),
        ("postgres:16", {"healthcheck": {"test": ["CMD", "pg_isready", "-h", "db"]}}, False),
        ("postgres:16", {"command": ["/start.sh"]}, True),
        ("postgres:16", {"command": ["/start.sh"], "environment": {"PGHOST": "/var/run/postgresql"}}, True),
        ("postgres:16", {"command": ["/start.sh"], "environment": {"PGHOST": "it"}}, True),
        ("postgres:16", {"environment": {"PGHOST": "db"}}, True),
        ("postgres:16", {"command": ["-c", "max_connections=9"], "environment": {"PGHOST": "db"}}, True),
        ("postgres:16", {"command": ["sh", "-c", "exec postgres"], "environment": {"PGHOST": "db"}}, True),
    ],
)  # fmt: skip
def test_recognised(image: str, raw: dict[str, Any], expected: bool) -> None:
    made = service("it", image=image, raw=raw, environment=raw.get("environment", {}))
    assert Postgres().matches(traits(made)) is expected


@pytest.mark.parametrize("check", ["postgres.grants", "postgres.auth_query"])
def test_rights_that_could_not_be_read_are_told_by_the_checks_that_need_them(check: str, tmp_path: Path) -> None:
    """Otherwise a finding would count as gone after its fix."""
    shown = server(Role("app"))
    shown = msgspec.structs.replace(
        shown,
        cluster=msgspec.structs.replace(shown.cluster, databases=("shop_prod",)),
        asked=("shop_prod",),
        error="canceling statement due to statement timeout",
    )
    api = Client("api", "pool", "pool", 6432, "X", "", "app", "shop", "", "s3cr3t")
    stage = CheckContext(
        project(service("db"), service("pool"), service("api")),
        SimpleNamespace(containers=lambda name: [container("db"), container("pool")]),  # type: ignore[arg-type]
        ServiceKinds({"db": (Postgres(),), "pool": (PgBouncer(),)}),
        Fixes(),
        StateFolder(tmp_path),
        None,  # type: ignore[arg-type]
    )
    stage.clients = [api]
    stage.facts = lambda kind, name: shown if kind.name == "postgres" else BOUNCER  # type: ignore[assignment, return-value]
    asked = next(each for each in Postgres().checks() if each.id == check)
    found = [each.finding(asked, "db") for each in asked.run(stage, "db")]
    assert [(each.id, each.status, each.subject) for each in found] == [(check, "skip", "shop_prod")]
