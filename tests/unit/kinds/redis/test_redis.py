"""The kind redis: its script against a redis-cli that is a few lines of sh, and its judgements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackhand.checks.check import Fix, Verdict
from stackhand.checks.traits import Traits
from stackhand.kinds.redis.acl import User, users_of
from stackhand.kinds.redis.address import connection
from stackhand.kinds.redis.checks import (
    LoginFixes,
    evaluate_cluster,
    evaluate_disk,
    evaluate_logins,
    evaluate_memory,
    evaluate_replication,
)
from stackhand.kinds.redis.facts import Account, Login, RedisFacts
from stackhand.kinds.redis.kind import Redis

WRONG = "AUTH failed: WRONGPASS invalid username-password pair or user is disabled."
LOGIN = Login("app", ("api",), WRONG, "right", True, True)
DECLARED = {"app": User("app", True, frozenset({"right"}), "on #right +@all")}
BROKEN = RedisFacts(logins=(LOGIN,), users={}, declared=DECLARED, aclfile="/a.acl", admin=Account("admin", "x"))


FIXES = LoginFixes(lambda user: Fix(f"put back {user}", lambda: None), Fix("restart", lambda: None))


def _evaluate(**changes: Any) -> Verdict:
    (finding,) = evaluate_logins("redis", replace(BROKEN, **changes), FIXES)
    return finding


@pytest.mark.parametrize(
    ("changes", "id", "fixable", "says"),
    [
        ({}, "redis.login", True, "there is no such user"),
        ({"users": {"app": User("app", True, frozenset({"other"}))}}, "redis.login", True, "the password is another"),
        ({"users": {"app": User("app", False, frozenset({"right"}))}}, "redis.login", False, "turned off"),
        ({"declared": {"app": User("app", False, frozenset({"right"}), "off")}}, "redis.login", False, "no such user"),
        ({"declared": {}}, "redis.login", False, "there is no such user"),
        ({"declared": {}, "written_at_start": True}, "redis.reload", True, "which every start writes again"),
        ({"declared": {}, "written_at_start": True, "ephemeral": True}, "redis.login", False, "writes again"),
        ({"declared": {}, "written_at_start": True, "logins": (replace(LOGIN, given=False),)},
         "redis.login", False, "was not given"),
        ({"admin": None, "users": None}, "redis.login", False, "though it is configured"),
        ({"admin": None, "users": None, "appends": True}, "redis.reload", True, "though it is configured"),
        ({"admin": None, "users": None, "appends": True, "ephemeral": True}, "redis.login", False, "configured"),
        ({"logins": (replace(LOGIN, answer="ERR max number of clients reached"),)}, "redis.login", False, "refused"),
        ({"logins": (replace(LOGIN, answer="AUTH failed: ERR AUTH called without any password configured"),)},
         "redis.login", False, "has no password"),
        # Whoever has no password must not get in by having the others' removed.
        ({"logins": (replace(LOGIN, digest=""),), "declared": {"app": User("app", True, frozenset(), "on nopass")}},
         "redis.login", False, "wants a password"),
    ],
)  # fmt: skip
def test_judging_a_login(changes: dict[str, Any], id: str, fixable: bool, says: str) -> None:
    finding = _evaluate(**changes)
    assert (finding.id or "redis.login", finding.fix is not None) == (id, fixable)
    assert not finding.fix or (finding.fix is FIXES.restart) is (id == "redis.reload")
    assert says in finding.summary
    assert finding.remedy


def test_requirepass_that_differs(tmp_path: Path) -> None:
    login = replace(LOGIN, user="default", given=False)
    facts = RedisFacts(logins=(login,), declared={"default": User("default", hashes=frozenset({"other"}))})
    (finding,) = evaluate_logins("redis", facts, FIXES)
    assert not finding.fix
    assert "requirepass" in finding.remedy


@pytest.mark.parametrize(
    ("info", "limit", "queue", "settings"),
    [
        ({"maxmemory": "0"}, 0, (), []),
        ({"maxmemory": "0"}, 256, (), ["maxmemory"]),
        ({"maxmemory": str(192 * 2**20)}, 256, (), []),
        ({"maxmemory": str(200 * 2**20)}, 256, (), ["maxmemory"]),
        ({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, 256, (), []),
        ({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}, 256, ("worker",), ["maxmemory-policy"]),
        ({"maxmemory": "1", "maxmemory_policy": "noeviction"}, 256, ("worker",), []),
        ({}, 256, ("worker",), None),
    ],
)
def test_memory(info: dict[str, str], limit: int, queue: tuple[str, ...], settings: list[str] | None) -> None:
    found = list(evaluate_memory(RedisFacts(info=info, memory_limit=limit * 2**20), queue))
    if settings is None:
        assert found == []
        return
    assert [each.subject for each in found if each.status == "warn"] == settings
    assert not any(each.fix for each in found)
    if "maxmemory" in settings:
        assert "`maxmemory 192mb`" in found[0].remedy


def test_disk() -> None:
    assert list(evaluate_disk("redis", RedisFacts())) == []
    (well,) = evaluate_disk("redis", RedisFacts(info={"aof_last_write_status": "ok"}))
    (ill,) = evaluate_disk("redis", RedisFacts(info={"rdb_last_bgsave_status": "err"}))
    assert (well.status, ill.status) == ("ok", "fail")


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"role": "master", "master_link_status": "down"}, None),
        ({}, None),
        ({"master_link_status": "up"}, "ok"),
        ({"master_link_status": "down", "uptime_in_seconds": "2", "master_link_down_since_seconds": "-1"}, "skip"),
        ({"master_link_status": "down", "uptime_in_seconds": "90", "master_link_down_since_seconds": "3"}, "skip"),
        ({"master_link_status": "down", "uptime_in_seconds": "90", "master_link_down_since_seconds": "-1"}, "fail"),
        ({"master_link_status": "down", "uptime_in_seconds": "90", "master_link_down_since_seconds": "60"}, "fail"),
        ({"master_link_status": "down", "master_sync_in_progress": "1", "uptime_in_seconds": "90"}, "skip"),
        ({"master_link_status": "down"}, "fail"),
    ],
)
def test_a_replica(info: dict[str, str], status: str | None) -> None:
    replica = {"role": "slave", "master_host": "main", "master_port": "6379", **info} if info else {}
    found = list(evaluate_replication(RedisFacts(info=replica), ["main"]))
    assert [each.status for each in found] == ([status] if status else [])
    if status == "fail":
        assert "main:6379" in found[0].summary
        assert found[0].blames == ("main",)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({}, []),
        ({"cluster_state": "ok", "cluster_slots_assigned": "16384"}, ["its cluster serves"]),
        (
            {"cluster_state": "fail", "cluster_slots_assigned": "16383"},
            ["its cluster does not serve: 1 of its 16384 slots belong to no server"],
        ),
        (
            {"cluster_state": "fail", "cluster_slots_assigned": "16384"},
            ["its cluster does not serve: servers of it are gone"],
        ),
    ],
)
def test_a_cluster(cluster: dict[str, str], says: list[str]) -> None:
    assert [each.summary for each in evaluate_cluster("redis", RedisFacts(cluster=cluster))] == says


@pytest.mark.parametrize(
    ("refusal", "services", "status"),
    [
        ("DENIED Redis is running in protected mode", ("api",), "fail"),
        ("DENIED Redis is running in protected mode", (), "warn"),
        ("Could not connect to Redis", ("api",), "fail"),
        # Nobody is known to connect: it may be for what shares its network.
        ("Could not connect to Redis", (), None),
    ],
)
def test_what_answers_nobody_outside(refusal: str, services: tuple[str, ...], status: str | None) -> None:
    logins = (replace(LOGIN, answer="PONG", services=services),) if services else ()
    found = list(evaluate_logins("redis", RedisFacts(logins=logins, refusal=refusal), FIXES))
    assert [each.status for each in found] == ([status] if status else [])


def test_users() -> None:
    text = "# a comment\nuser a on nopass ~*\nuser b on >word #0A resetpass #0b\nuser c off\nappendonly yes\nuser\n"
    found = users_of(text)
    assert set(found) == {"a", "b", "c"}
    assert found["b"].hashes == {"0b"}
    assert found["a"].enabled
    assert not found["c"].enabled
    assert "0b" not in repr(found)[: repr(found).index("hashes")]


@pytest.mark.parametrize(
    ("probe", "argv", "options"),
    [
        ("redis-cli ping", (), []),
        ("/usr/bin/redis-cli -p 6380 ping", (), ["-p", "6380"]),
        ("redis-cli -p $OTHER ping", (), []),
        ("redis-cli -p $PORT ping", (), ["-p", "6399"]),
        ("redis-cli -s /run/redis.sock ping", ("redis-server", "--port", "0"), ["-s", "/run/redis.sock"]),
        ("", ("redis-server", "--port", "0", "--unixsocket", "/run/redis.sock"), ["-s", "/run/redis.sock"]),
        ("redis-cli --tls --cert /c --key /k ping", (), ["--tls", "--cert", "/c", "--key", "/k"]),
        ("nc -p 1 x", ("redis-server", "--port", "7000"), ["-p", "7000"]),
        ("redis-cli 'never closed", (), []),
        ("", ("redis-server", "--port", "0", "--tls-port", "6380"), ["--tls", "--insecure", "-p", "6380"]),
        ("redis-cli --tls --cacert /c ping", ("redis-server", "--tls-port", "6380"),
         ["--tls", "--cacert", "/c", "-p", "6380"]),
        ("redis-cli --tls -p 1 ping", ("redis-server", "--port", "0", "--tls-port", "6380"), ["--tls", "-p", "1"]),
        # It listens in plain text as well.
        ("", ("redis-server", "--tls-port", "6380"), []),
        ("", ("redis-server", "--port", "0", "--tls-port", "1", "--tls-cert-file", "/c", "--tls-key-file", "/k"),
         ["--tls", "--insecure", "--cert", "/c", "--key", "/k", "-p", "1"]),
        ("", ("redis-server", "--port", "0", "--tls-port", "1", "--tls-cert-file", "/c", "--tls-key-file", "/k",
              "--tls-auth-clients", "no"), ["--tls", "--insecure", "-p", "1"]),
    ],
)  # fmt: skip
def test_connection(probe: str, argv: tuple[str, ...], options: list[str]) -> None:
    assert connection(Traits(probe=probe, argv=argv, environment={"PORT": "6399"})) == options


@pytest.mark.parametrize(
    ("shown", "recognised"),
    [
        (Traits(images=frozenset({"valkey"})), True),
        (Traits(argv=("redis-server", "/sentinel.conf", "--sentinel")), False),
        (Traits(images=frozenset({"redis"}), argv=("redis-sentinel", "/s.conf")), False),
        (Traits(probe="redis-cli -u redis://redis:6379 ping"), False),
        (Traits(probe="redis-cli -h redis ping"), False),
        (Traits(probe="redis-cli ping"), True),
        (Traits(probe="redis-cli -u redis://localhost:6380 ping"), True),
    ],
)
def test_recognition(shown: Traits, recognised: bool) -> None:
    assert Redis().matches(shown) is recognised
