"""What a service shows of itself, and what it is recognised by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import project, service
from shells import Shell, context, running

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits, traits
from stackhand.errors import UnknownKind
from stackhand.kinds.registry import data_kind, kinds_of, recognise


class _Redis(Kind[None]):
    name = "redis"
    images = frozenset({"redis", "valkey"})
    programs = frozenset({"redis-server"})
    probes = frozenset({"redis-cli ping"})


def _shown(image: str = "something", **raw: Any) -> Traits:
    return traits(service("it", image=image, raw=raw))


@pytest.mark.parametrize(
    ("image", "recognised"),
    [
        ("redis", True),
        ("redis:7-alpine", True),
        ("docker.io/library/redis@sha256:abc", True),
        ("localhost:5000/team/redis:7", True),
        ("bitnami/redis:7.2", True),
        ("ai-workflow-redis", True),
        ("redis7", True),
        ("web-redis", True),
        ("admin-valkey:8", True),
        ("redis-stack-server", True),
        ("oliver006/redis_exporter", False),
        ("redis-commander", False),
        ("bitnami/redis-sentinel", False),
        ("my-redis-app", False),
        ("redis-demo-worker", False),
        ("registry.example.com/redis/thing", False),
        ("open-webui:redis", False),
        ("predis", False),
    ],
)
def test_image(image: str, recognised: bool) -> None:
    assert _Redis().matches(_shown(image)) is recognised


def test_the_project_is_no_part_of_a_built_image() -> None:
    assert traits(service("frontend", image="redis-tutorial-frontend", builds=True, raw={})).images == frozenset()
    assert traits(service("redis", image="shop-redis", builds=True, raw={})).images == {"redis"}


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        (["redis-server", "/etc/redis.conf"], {"redis-server"}),
        (["/usr/local/bin/redis-server"], {"redis-server"}),
        ("redis-server --appendonly yes", {"redis-server"}),
        (["sh", "-c", 'redis-server --requirepass "$PASS"'], {"redis-server"}),
        (["sh", "-c", "exec redis-server"], {"redis-server"}),
        (["tini", "--", "gosu", "redis", "redis-server"], {"redis-server"}),
        (["docker-entrypoint.sh", "redis-server"], {"redis-server"}),
        (["bash", "-lc", "migrate && celery -A app worker"], {"migrate", "celery"}),
        (["sh", "-c", "migrate\ncelery -A app worker\n"], {"migrate", "celery"}),
        (["sh", "-c", "migrate; celery -A app worker"], {"migrate", "celery"}),
        (["sh", "-c", "while true; do pg_dump -h db; sleep 60; done"], {"true", "pg_dump", "sleep", "done"}),
        (["python3.12", "-m", "celery", "worker"], {"celery"}),
        (["poetry", "run", "celery", "worker"], {"celery"}),
        (["env", "A=1", "celery", "worker"], {"celery"}),
        (["timeout", "-k", "5", "30", "celery", "worker"], {"celery"}),
        (["bash", "-euo", "pipefail", "-c", "celery -A app worker"], {"celery"}),
        (["tini", "-g", "-p", "SIGTERM", "--", "celery", "worker"], {"celery"}),
        (["uv", "run", "--package", "shop", "celery", "-A", "app", "worker"], {"celery"}),
        (["python3", "-X", "utf8", "-m", "celery", "worker"], {"celery"}),
        (["watchfiles", "--filter", "python", "celery -A app worker", "app"], {"celery"}),
        (["watchmedo", "auto-restart", "-d", ".", "-p", "*.py", "-R", "--", "celery", "-A", "app"], {"celery"}),
        (["watchmedo", "auto-restart", "--directory=.", "--recursive", "celery", "-A", "app"], {"celery"}),
        (["-c", "max_connections=200"], set()),
        (["sh", "-c", "echo 'never closed"], {"echo 'never closed"}),
        (None, set()),
    ],
)
def test_programs(command: Any, programs: set[str]) -> None:
    assert _shown(command=command).programs == programs


def test_a_word_among_the_arguments_is_no_program() -> None:
    assert not _Redis().matches(_shown(command=["wait-for", "redis-server", "--timeout", "5"]))
    assert not _Redis().matches(_shown(command=["echo", "redis-server"]))


def test_a_client_in_the_servers_image_is_no_server() -> None:
    assert not _Redis().matches(_shown("redis:7", command=["redis-cli", "-h", "redis", "monitor"]))
    assert _Redis().matches(_shown("redis:7", command=["/scripts/start.sh", "primary"]))
    assert _Redis().matches(_shown("redis:7", command=["sh", "-c", "sleep 1 && redis-server"]))
    assert not _Redis().matches(_shown("redis:7", entrypoint=["/bin/sh", "/scripts/redis-backup.sh"]))


@pytest.mark.parametrize(
    ("test", "itself"),
    [
        ("redis-cli ping", True),
        (["CMD", "redis-cli", "-h", "localhost", "ping"], True),
        (["CMD", "redis-cli", "-h", "127.0.0.1", "ping"], True),
        (["CMD-SHELL", "pg_isready -h$HOSTNAME"], True),
        (["CMD-SHELL", "pg_isready --host=/var/run/postgresql"], True),
        (["CMD-SHELL", "pg_isready -h it"], True),
        (["CMD-SHELL", "pg_isready -h cache"], True),
        (["CMD-SHELL", "pg_isready -h other"], False),
        (["CMD-SHELL", "pg_isready --host=other -U app"], False),
        (["CMD-SHELL", "pg_isready -d postgresql://app:word@other/app"], False),
        (["CMD-SHELL", "pg_isready -d postgresql://app@localhost:5432/app"], True),
        (["CMD-SHELL", "pg_isready -d postgresql:///app"], True),
        (["CMD-SHELL", "pg_isready -d 'host=other dbname=app'"], False),
        (["CMD-SHELL", "pg_isready -d $POSTGRES_DB -U $POSTGRES_USER"], True),
        (["CMD-SHELL", "redis-cli -u redis://other:6379 ping"], False),
        (["CMD-SHELL", "redis-cli -u redis://:word@127.0.0.1:6379/0 ping"], True),
        (["CMD-SHELL", "redis-cli -h $REDIS_HOST ping"], False),
        (["CMD-SHELL", 'redis-cli -h "${REDIS_HOST}" ping'], False),
        (["CMD-SHELL", "redis-cli -h $OWN_HOST ping"], True),
        (["CMD-SHELL", "redis-cli -h ${NOBODY:-localhost} ping"], True),
        (["CMD-SHELL", "redis-cli -h $NOBODY ping"], False),
        (["CMD-SHELL", "redis-cli -u $REDIS_URL ping"], False),
        (["CMD-SHELL", "redis-cli -u $NOBODYS_URL ping"], False),
        (["CMD-SHELL", "redis-cli -h $(hostname -i) ping"], True),
        (["CMD-SHELL", "redis-cli ping && redis-cli -h other ping"], False),
        (["CMD-SHELL", "redis-cli ping && curl -f http://other/"], True),
    ],
)
def test_whom_a_healthcheck_asks(test: Any, itself: bool) -> None:
    raw = {"healthcheck": {"test": test}, "networks": {"back": {"aliases": ["cache"]}}}
    environment = {"REDIS_HOST": "redis", "REDIS_URL": "redis://redis:6379", "OWN_HOST": "cache", "POSTGRES_DB": "shop"}
    assert traits(service("it", environment=environment, raw=raw)).probes_itself is itself


def test_a_healthcheck_that_takes_the_host_from_the_environment() -> None:
    raw = {"healthcheck": {"test": ["CMD", "pg_isready", "-q"]}}
    assert not traits(service("it", environment={"PGHOST": "db"}, raw=raw)).probes_itself
    assert traits(service("it", environment={"PGHOST": "/var/run/postgresql"}, raw=raw)).probes_itself


class _Silent(_Redis):
    ports = frozenset({6379})

    def collect(self, context: CheckContext, service: str) -> None:
        raise NoAnswer("Connection refused")


@pytest.mark.parametrize(
    ("image", "raw", "status"),
    [
        ("redis:7", {}, "fail"),
        ("mine", {"command": ["redis-server"]}, "fail"),
        ("mine", {"labels": {"stackhand.kind": "redis"}}, "fail"),
        ("mine", {"healthcheck": {"test": "redis-cli ping"}}, "skip"),
        ("mine", {"expose": ["6379"]}, "skip"),
    ],
)
def test_a_guess_that_does_not_answer_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: str, raw: dict[str, Any], status: str
) -> None:
    kind = _Silent()
    monkeypatch.setattr("stackhand.kinds.registry.kinds", lambda: (kind,))
    made = project(service("it", image=image, raw=raw))
    stage = context(made, Shell(tmp_path / "bin", {}, running("it")), tmp_path)
    stage.kinds = recognise(made)
    (finding,) = stage.kinds.of("it")[0].check_responds(stage, "it")
    assert (finding.status, finding.fix, finding.evidence) == (status, None, "Connection refused")
    assert ("stackhand.kind" in finding.remedy) is (status == "skip")


def test_ports() -> None:
    raw = {"expose": ["6379", "53/udp", "8000-8010"], "ports": [{"target": 80, "published": "8080"}]}
    assert _shown(**raw).ports == {6379, 53, 80}


@pytest.mark.parametrize(
    ("image", "raw", "kinds"),
    [
        ("qdrant/qdrant", {"healthcheck": {"test": ["CMD", "curl", "http://localhost:6333/readyz"]}}, ["qdrant"]),
        ("ollama/ollama", {"healthcheck": {"test": ["CMD", "curl", "http://localhost:11434/"]}}, ["ollama"]),
        ("mine", {"expose": ["6379"]}, ["redis"]),
        ("mine", {"expose": ["9999"]}, []),
        ("redis:7", {"labels": {"stackhand.kind": "none"}}, []),
        ("mine", {"labels": {"stackhand.kind": "redis, http"}}, ["http", "redis"]),
        ("redis:7", {"labels": {"stackhand.kind": ""}}, []),
        ("ghcr.io/open-webui/open-webui:ollama", {"ports": [{"target": 8080}]}, ["http"]),
        ("prom/postgres-exporter", {"expose": ["9187"]}, []),
        ("mine", {"command": ["celery", "-A", "app", "beat"]}, []),
        ("mine", {"command": ["celery", "-A", "app", "flower"], "expose": ["5555"]}, []),
    ],
)
def test_kinds_of(image: str, raw: dict[str, Any], kinds: list[str]) -> None:
    assert [kind.name for kind in kinds_of(service("it", image=image, raw=raw))] == kinds


def test_a_label_of_no_kind() -> None:
    with pytest.raises(UnknownKind) as error:
        kinds_of(service("cache", raw={"labels": {"stackhand.kind": "rediss"}}))
    assert error.value.exit_code == 2
    assert "cache" in error.value.message
    assert error.value.hint == "did you mean 'redis'?"


@pytest.mark.parametrize(
    ("image", "raw", "kind"),
    [
        ("redis:7", {}, "redis"),
        ("redis:7", {"labels": {"stackhand.kind": "none"}}, "redis"),
        ("postgres:16", {"labels": {"stackhand.kind": "http"}}, "postgres"),
        ("postgres:16", {"entrypoint": ["sh", "/scripts/backup.sh"]}, "postgres"),
        ("redis:7", {"command": ["/restore.sh"]}, "redis"),
        ("mine", {"command": ["gunicorn", "mine"], "healthcheck": {"test": "pg_isready"}}, "postgres"),
        ("mine", {"expose": ["6379"]}, "redis"),
        ("qdrant/qdrant:v1.12", {}, "qdrant"),
        ("ollama/ollama", {}, "ollama"),
        ("mysql:8", {}, "mysql"),
        ("mcr.microsoft.com/mssql/server:2022-latest", {}, "mssql"),
        ("mine", {"command": ["mariadbd", "--user=mysql"]}, "mariadbd"),
        ("nginx:1", {}, None),
        ("registry.example.com/web", {}, None),
        ("mysql.example.com:5000/web:1", {}, None),
    ],
)
def test_data_kind(image: str, raw: dict[str, Any], kind: str | None) -> None:
    assert data_kind(service("it", image=image, raw=raw)) == kind
