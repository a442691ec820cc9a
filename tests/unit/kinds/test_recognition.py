"""Services as compose files of the world have them: what each is, and what it is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from builders import project, service

from stackhand.kinds.registry import recognise

# Name, image, what else the compose file says, environment; the kinds, with `?` behind those that are only guessed.
Row = tuple[str, str, dict[str, Any], dict[str, str], list[str]]


def _probe(test: str) -> dict[str, Any]:
    return {"healthcheck": {"test": ["CMD-SHELL", test]}}


def _ports(*targets: int) -> dict[str, Any]:
    return {"ports": [{"target": target, "published": str(target)} for target in targets]}


DATABASES: list[Row] = [
    ("db", "postgres:16", {**_ports(5432), **_probe("pg_isready -U $DB_USER")}, {"DB_USER": "app"}, ["postgres"]),
    ("db", "bitnami/postgresql:16", _ports(5432), {}, ["postgres"]),
    ("db", "bitnami/postgresql-repmgr:16", {}, {}, ["postgres"]),
    ("db", "timescale/timescaledb-ha:pg16", {}, {}, ["postgres"]),
    ("db", "pgvector/pgvector:pg16", {}, {}, ["postgres"]),
    ("db", "postgis/postgis:16-3.4", {}, {}, ["postgres"]),
    ("db", "supabase/postgres:15.1.1.78", {"command": ["postgres", "-c", "wal_level=logical"]}, {}, ["postgres"]),
    ("db", "shop-db", {**_probe("pg_isready")}, {}, ["postgres?"]),
    ("db", "shop-db", {"expose": ["5432"]}, {}, ["postgres?"]),
    ("cockroach", "cockroachdb/cockroach", {**_ports(26257, 8080), "command": ["start-single-node"]}, {}, ["http"]),
    ("pgpool", "bitnami/pgpool:4", _ports(5432), {}, []),
    ("pgbouncer", "edoburu/pgbouncer:v1.23", {**_ports(5432), **_probe("pg_isready -h localhost")}, {}, ["pgbouncer"]),
    ("pgbouncer", "bitnami/pgbouncer:1", _ports(6432), {}, ["pgbouncer"]),
    ("tiles", "pramsey/pg_tileserv", _ports(7800), {}, []),
    ("db", "citusdata/citus:12", {}, {}, ["postgres"]),
    ("db", "tensorchord/pgvecto-rs:pg16-v0.2.0", {}, {}, ["postgres"]),
    ("exporter", "quay.io/prometheuscommunity/postgres-exporter", _ports(9187), {}, []),
    ("meta", "supabase/postgres-meta:v0.84", _ports(8080), {}, ["http"]),
    ("rest", "postgrest/postgrest", _ports(3000), {}, ["http"]),
    ("pgadmin", "dpage/pgadmin4", _ports(80), {}, ["http"]),
    ("adminer", "adminer", _ports(8080), {}, ["http"]),
    ("mcp", "crystaldba/postgres-mcp", _ports(8000), {}, ["http"]),
    ("backup", "prodrigestivill/postgres-backup-local:16", _probe("curl -f http://localhost:8080/"), {}, ["http"]),
    ("backup", "postgres:16", {"entrypoint": ["sh", "-c", "while true; do pg_dump -h db; sleep 86400; done"]}, {}, []),
    ("backup", "postgres:16-alpine", {"entrypoint": ["/bin/sh", "/scripts/backup.sh"]}, {}, []),
    ("backup", "postgres:16-alpine", {"command": ["crond", "-f", "-l", "8"]}, {}, []),
    ("init", "postgres:16", {"command": ["sh", "-c", "until pg_isready -h db; do sleep 1; done; psql -f x"]}, {}, []),
    ("create", "postgres:16", {"command": ["createdb", "-h", "db", "app"]}, {}, []),
]  # fmt: skip

CACHES: list[Row] = [
    ("redis", "redis:7-alpine", {"command": ["redis-server", "--appendonly", "yes"]}, {}, ["redis"]),
    ("redis", "bitnami/redis:7.2", _ports(6379), {}, ["redis"]),
    ("redis", "redis/redis-stack:latest", _ports(6379, 8001), {}, ["redis"]),
    ("cache", "valkey/valkey:8", {"command": ["sh", "-c", "exec valkey-server --requirepass $WORD"]}, {}, ["redis"]),
    ("cache", "eqalpha/keydb", {"command": ["keydb-server", "/etc/keydb/keydb.conf"]}, {}, ["redis"]),
    ("cache", "docker.dragonflydb.io/dragonflydb/dragonfly", _ports(6379), {}, ["redis?"]),
    ("sentinel", "bitnami/redis-sentinel:7", _ports(26379), {}, []),
    ("sentinel", "redis:7", {"command": ["redis-server", "/s.conf", "--sentinel"], **_probe("redis-cli ping")}, {}, []),
    ("exporter", "oliver006/redis_exporter", _ports(9121), {}, []),
    ("commander", "rediscommander/redis-commander", _ports(8081), {}, ["http"]),
    ("insight", "redis/redisinsight", _ports(5540), {}, []),
    ("memcached", "memcached:1.6", _ports(11211), {}, []),
]

# Cookiecutter's Django template, Airflow with the executor celery, and what people write themselves.
DJANGO = {"POSTGRES_HOST": "postgres", "CELERY_BROKER_URL": "redis://redis:6379/0", "PGHOST": "postgres"}
AIRFLOW = {"AIRFLOW__CELERY__BROKER_URL": "redis://:@redis:6379/0"}
INSPECT = 'celery --app airflow.executors.celery_executor.app inspect ping -d "celery@$HOSTNAME"'
WORKERS: list[Row] = [
    ("django", "shop_local_django", {"command": ["/start"], **_ports(8000)}, DJANGO, ["http"]),
    ("celeryworker", "shop_local_celeryworker", {"command": ["/start-celeryworker"]}, DJANGO, ["celery"]),
    ("celerybeat", "shop_local_celerybeat", {"command": ["/start-celerybeat"]}, DJANGO, []),
    ("flower", "shop_local_flower", {"command": ["/start-flower"], **_ports(5555)}, DJANGO, []),
    ("airflow-worker", "apache/airflow:2.9", {"command": ["celery", "worker"], **_probe(INSPECT)}, AIRFLOW, ["celery"]),
    ("airflow-scheduler", "apache/airflow:2.9",
     {"command": ["scheduler"], **_probe("curl --fail http://localhost:8974/health")}, AIRFLOW, ["http"]),
    ("flower", "apache/airflow:2.9",
     {"command": ["celery", "flower"], **_probe("curl --fail http://localhost:5555/")}, AIRFLOW, ["http"]),
    ("triggerer", "apache/airflow:2.9", {"command": ["triggerer"],
     **_probe('airflow jobs check --job-type TriggererJob --hostname "$HOSTNAME"')}, AIRFLOW, []),
    ("flower", "mher/flower", {"command": ["celery", "flower", "--broker=redis://redis"], **_ports(5555)}, {}, []),
    ("worker", "shop-app", {"command": ["uv", "run", "--package", "w", "celery", "-A", "w", "worker"]}, {}, ["celery"]),
    ("beat", "shop-app", {"command": ["celery", "-A", "worker", "beat"]}, {}, []),
    ("worker", "shop-app", {"command": ["rq", "worker", "high"], **_probe("redis-cli -h $REDIS_HOST ping")},
     {"REDIS_HOST": "redis"}, []),
    ("worker", "shop-worker", _probe("celery -A shop inspect ping"), {}, ["celery?"]),
]  # fmt: skip

WEB: list[Row] = [
    ("proxy", "traefik:v3", _ports(80, 443), {}, ["http", "tls"]),
    ("proxy", "nginx:1.27", _ports(80), {}, ["http"]),
    ("proxy", "caddy:2", _ports(80, 443), {}, ["http", "tls"]),
    ("proxy", "envoyproxy/envoy:v1.31", _ports(443), {}, ["http", "tls"]),
    ("proxy", "jc21/nginx-proxy-manager", _ports(80, 81, 443), {}, ["http", "tls"]),
    ("exporter", "nginx/nginx-prometheus-exporter", _ports(9113), {}, []),
    ("ollama", "ollama/ollama:rocm", {**_ports(11434), **_probe("ollama list")}, {}, ["ollama"]),
    ("webui", "ghcr.io/open-webui/open-webui:ollama", {**_ports(8080), **_probe("curl -f http://localhost:8080/health")},
     {"OLLAMA_BASE_URL": "http://ollama:11434"}, ["http"]),
    ("llm", "shop-llm", _probe("curl -f http://localhost:11434/api/version"), {}, ["ollama?"]),
    ("pull", "ollama/ollama", {"command": ["pull", "llama3"]}, {"OLLAMA_HOST": "ollama"}, []),
    ("pull", "ollama/ollama", {"entrypoint": ["/bin/sh", "-c", "sleep 3; OLLAMA_HOST=ollama:11434 ollama pull llama3"]},
     {}, []),
    ("pull", "ollama/ollama", {"entrypoint": ["/pull-models.sh"]}, {"OLLAMA_HOST": "http://ollama:11434"}, []),
    ("ollama", "ollama/ollama", {"entrypoint": ["sh", "-c", "ollama serve & sleep 5; ollama pull llama3; wait"]},
     {"OLLAMA_HOST": "0.0.0.0:11434"}, ["ollama"]),
    ("ollama", "ollama/ollama", {"command": ["serve"]}, {"OLLAMA_HOST": "http://0.0.0.0"}, ["ollama"]),
    ("ollama", "ollama/ollama", {}, {"OLLAMA_HOST": ":11434"}, ["ollama"]),
    ("ollama", "ollama/ollama", {}, {"OLLAMA_HOST": "ollama"}, ["ollama"]),
    ("qdrant", "qdrant/qdrant:v1.12", _ports(6333, 6334), {}, ["qdrant"]),
    ("minio", "minio/minio", {"command": ["server", "/data"], **_ports(9000)}, {}, ["http"]),
    ("mail", "axllent/mailpit", _ports(1025, 8025), {}, []),
    ("api", "shop-api", {"command": ["gunicorn", "shop:app"], **_probe("pg_isready")}, {}, ["http"]),
    ("api", "shop-api", {"command": ["python", "app.py"], **_probe("pg_isready")}, {"PGHOST": "db"}, []),
    ("api", "shop-api", {"command": ["python", "app.py"], **_probe("pg_isready -d $DATABASE_URL")},
     {"DATABASE_URL": "postgresql://db/app"}, []),
    ("api", "shop-api", {"command": ["python", "app.py"], **_probe("pg_isready -d postgresql://db/app")}, {}, []),
    ("api", "shop-api", {"command": ["python", "app.py"], **_probe("redis-cli -u redis://redis ping")}, {}, []),
    ("job", "alpine:3", {"command": ["sleep", "infinity"]}, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "image", "raw", "environment", "kinds"),
    [
        pytest.param(*row, id=re.sub(r"\W+", "-", f"{row[0]} {row[1].rpartition('/')[2]}"))
        for row in (*DATABASES, *CACHES, *WORKERS, *WEB)
    ],
)
def test_what_it_is(name: str, image: str, raw: dict[str, Any], environment: dict[str, str], kinds: list[str]) -> None:
    found = recognise(project(service(name, image=image, raw=raw, environment=environment)))
    told = [f"{kind.name}{'?' if found.is_guess(name, kind.name) else ''}" for kind in found.of(name)]
    assert told == kinds
