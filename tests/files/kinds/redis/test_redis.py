"""Redis asked for real: what its probes do where sh runs them, with programs that stand in for Redis's own."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from builders import START, project, service
from shells import Shell, context, running

from stackhand.checks import scripts
from stackhand.checks.check import CannotAsk, NoAnswer, Verdict
from stackhand.checks.context import CheckContext
from stackhand.engine.api.containers import Attachment
from stackhand.errors import StackError
from stackhand.kinds.redis.address import Listening, listening
from stackhand.kinds.redis.facts import Account, collect
from stackhand.kinds.redis.kind import Redis
from stackhand.kinds.registry import kinds_of


def _hash(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


# Users and passwords that it knows are in the file `users` beside it; what it is asked to do goes to `said`.
CLI = """#!/bin/sh
here=${0%/*}
user=default listening=6379 at=6379
[ ! -e "$here/listening" ] || read -r listening < "$here/listening"
while :; do
  case $1 in
    --user) user=$2; shift 2;; --no-auth-warning|--no-raw|--insecure) shift;; --tls) at="tls $at"; shift;;
    -h) [ ! -e "$here/network" ] || { cat "$here/network"; exit 1; }; shift 2;;
    -p) at="${at% *}"; [ "$at" = tls ] && at="tls $2" || at=$2; shift 2;; -s) at=$2; shift 2;; *) break;;
  esac
done
[ $# -gt 0 ] || read -r line
if [ -e "$here/down" ] || [ "$at" != "$listening" ]; then
  echo "Could not connect to Redis at 127.0.0.1:6379: Connection refused"; exit 1
fi
if ! grep -qx "$user $REDISCLI_AUTH" "$here/users"; then
  echo "AUTH failed: WRONGPASS invalid username-password pair or user is disabled."
  echo "NOAUTH Authentication required."
  exit 0
fi
case "${*:-$line}" in
  PING) echo PONG;;
  INFO) [ "$user" = app ] && { echo "$user" >> "$here/denied"; echo "NOPERM no"; exit; }
    printf '# Server\\r\\nconfig_file:%s\\r\\n' "$here/redis.conf"
    printf 'cluster_enabled:1\\r\\n'
    printf 'maxmemory:0\\r\\nmaxmemory_policy:allkeys-lru\\r\\naof_enabled:1\\r\\n';;
  "CONFIG GET dir") [ "$user" = admin ] || { echo "$user" >> "$here/denied"; echo "NOPERM no"; exit; }
    printf 'dir\\n/data\\n';;
  "CONFIG GET aclfile") printf 'aclfile\\n%s\\n' "$here/users.acl";;
  "CLUSTER INFO") printf 'cluster_state:fail\\r\\ncluster_slots_assigned:0\\r\\n';;
  "ACL LIST") cat "$here/list";;
  *) printf '%s\\n' "$user ${*:-$line}" >> "$here/said"; [ -e "$here/refuse" ] && echo "(error) ERR not so" || echo OK;;
esac
"""


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The container's list of processes: none is in it that a test does not put there."""
    folder = tmp_path / "proc"
    folder.mkdir()
    read = scripts.read

    def with_own_processes(package: str, name: str) -> str:
        text = read(package, name)
        return text.replace("/proc/", f"{folder}/") if name == "address_probe.sh" else text

    monkeypatch.setattr(scripts, "read", with_own_processes)
    return folder


def _logins(stage: CheckContext, service: str = "redis") -> list[Verdict]:
    stage.invalidate()
    return list(Redis().check_logins(stage, service))


def _act(verdict: Verdict) -> None:
    assert verdict.fix
    verdict.fix.act()


def _stack(tmp_path: Path, *, users: str, listed: str, file: str, **environment: str) -> tuple[CheckContext, Shell]:
    clients = environment or {"REDIS_HOST": "redis", "REDIS_USER": "app", "REDIS_PASSWORD": "app-word"}
    about = service(
        "redis",
        image="redis:7",
        environment={"APP_PASSWORD": "app-word", "ADMIN_PASSWORD": "admin-word", "PLAIN": "plain"},
        raw={"tmpfs": [f"{tmp_path}/bin:uid=1"]},
    )
    made = project(about, service("api", environment=clients), service("worker", environment=clients))
    shell = Shell(tmp_path / "bin", {"redis-cli": CLI}, running("redis", "api", "worker", memory_limit=256 * 2**20))
    for name, text in {"users": users, "list": listed, "users.acl": file}.items():
        (shell.folder / name).write_text(text)
    (shell.folder / "redis.conf").write_text(f"port 6379\naclfile {shell.folder}/users.acl\nappendonly yes\n")
    return context(made, shell, tmp_path, celery=["worker"]), shell


APP = f"user app on #{_hash('app-word')} ~* +@all -@admin\n"
ADMIN = f"user admin on >admin-word ~* +@all\nuser default off #{_hash('app-word')}\n"


def test_all_is_well(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="app app-word\nadmin admin-word\n", listed=APP + ADMIN, file=APP + ADMIN)
    facts = collect(stage, "redis")
    assert [(each.user, each.services, each.ok) for each in facts.logins] == [("app", ("api", "worker"), True)]
    assert facts.admin == Account("admin", "admin-word")
    assert facts.users is not None
    assert set(facts.users) == {"app", "admin", "default"}
    assert (facts.aclfile, facts.written_at_start) == (f"{shell.folder}/users.acl", True)
    assert [each.status for each in _logins(stage)] == ["ok"]
    assert any("tasks of worker" in each.summary for each in Redis().check_memory(stage, "redis"))
    assert facts.info["maxmemory"] == "0"
    # Nobody was asked for what he may not: Redis keeps a log of that.
    assert not (shell.folder / "denied").exists()
    words = " ".join(word for argv, _ in shell.asked for word in argv)
    assert "app-word" not in words
    assert "admin-word" not in words
    assert "plain" not in str([env for _, env in shell.asked])


def test_nobody_can_log_in_but_the_administrator_that_the_file_tells_of(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=APP + ADMIN)
    (finding,) = _logins(stage)
    assert (finding.id, finding.status, finding.subject) == ("", "fail", "app")
    assert finding.fix
    assert (finding.fix.does, finding.fix.strength) == ("put back the user app of", "reload")
    assert "there is no such user" in finding.summary
    finding.fix.act()
    assert (shell.folder / "said").read_text() == f"admin ACL SETUSER {APP.removeprefix('user ')}"
    assert _hash("app-word") not in " ".join(word for argv, _ in shell.asked for word in argv)


def test_a_refused_fix_says_why(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=APP + ADMIN)
    (finding,) = _logins(stage)
    (shell.folder / "refuse").touch()
    with pytest.raises(StackError, match="redis: ERR not so"):
        _act(finding)


def test_of_a_user_that_is_there_only_the_password_is_put_right(tmp_path: Path) -> None:
    other = f"user app on #{_hash('another')} ~* +get\n"
    stage, shell = _stack(tmp_path, users="app another\nadmin admin-word\n", listed=other + ADMIN, file=APP + ADMIN)
    (finding,) = _logins(stage)
    assert "the password is another one" in finding.summary
    _act(finding)
    assert (shell.folder / "said").read_text() == f"admin ACL SETUSER app resetpass #{_hash('app-word')}\n"


def test_a_restart_saves_first(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=ADMIN)
    (finding,) = _logins(stage)
    assert finding.id == "redis.reload"
    assert finding.fix
    assert (finding.fix.does, finding.fix.strength) == ("restart", "restart")
    (shell.folder / "refuse").touch()
    with pytest.raises(StackError):
        _act(finding)
    assert shell.restarted == []
    (shell.folder / "refuse").unlink()
    _act(finding)
    # What was appended is not what the next start has to carry out again.
    said = (shell.folder / "said").read_text().splitlines()
    assert said[-3:] == ["admin BGREWRITEAOF", "admin INFO persistence", "admin SHUTDOWN SAVE"]
    assert shell.restarted == ["redis"]
    (shell.folder / "users").write_text("app app-word\nadmin admin-word\n")
    _act(finding)
    assert shell.restarted == ["redis"]


def test_a_restart_in_vain_is_not_made_again(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=ADMIN)
    (finding,) = _logins(stage)
    _act(finding)
    (again,) = _logins(stage)
    # The same finding: it is still so after its fix.
    assert (again.id, again.subject, again.status, again.fix) == (finding.id, finding.subject, "fail", None)
    assert "did not bring it back" in again.summary
    assert "inv up.redis" in again.remedy
    # Somebody has started it anew, perhaps with another file.
    shell._containers[0] = replace(shell._containers[0], started_at=START + timedelta(minutes=1))
    (anew,) = _logins(stage)
    assert anew.fix


def test_silence(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="", listed="", file="")
    (shell.folder / "down").touch()
    with pytest.raises(NoAnswer, match="Connection refused"):
        collect(stage, "redis")
    (shell.folder / "redis-cli").unlink()
    with pytest.raises(CannotAsk, match="has a redis-cli"):
        collect(stage, "redis")
    assert [each.status for each in Redis().check_responds(stage, "redis")] == ["skip"]


@pytest.mark.parametrize(
    ("config", "title", "listens"),
    [
        ("port 6380\n", "", "6380"),
        ("port 6380\n", "redis-server *:6380", "6380"),
        ("port 0\ntls-port 6390\ntls-auth-clients no\n", "redis-server *:6390", "tls 6390"),
        ("port 0\nunixsocket /run/redis.sock\n", "redis-server unixsocket:/run/redis.sock", "/run/redis.sock"),
        ("include {folder}/more.conf\n", "", "6381"),
        # A port that an entrypoint has chosen.
        (None, "valkey-server 0.0.0.0:6382", "6382"),
        (None, "keydb-server *:6379", "6379"),
    ],
)
def test_where_its_own_configuration_has_it_listen(
    tmp_path: Path, processes: Path, config: str | None, title: str, listens: str
) -> None:
    stage, shell = _stack(tmp_path, users="app app-word\nadmin admin-word\n", listed=APP + ADMIN, file=APP + ADMIN)
    (shell.folder / "listening").write_text(f"{listens}\n")
    (shell.folder / "more.conf").write_text("port 6381\n")
    if config is not None:
        file = shell.folder / "own.conf"
        file.write_text(config.format(folder=shell.folder))
        stage.project.services["redis"].raw["command"] = ["redis-server", str(file)]  # type: ignore[index]
    (processes / "1").mkdir()
    (processes / "1" / "cmdline").write_bytes(title.replace(" ", "\0").encode() + b"\0")
    assert [each.ok for each in collect(stage, "redis").logins] == [True]
    Redis().warm(stage, "redis", "EXISTS a")
    assert (shell.folder / "said").read_text() == 'app "EXISTS" "a"\n'


def test_of_configurations_lying_around_the_one_counts_that_fits() -> None:
    text = "\036title *:7000\n\036config /etc/redis.conf\n\036config /b.conf\nport 0\ntls-port 7000\n"
    assert listening(text, named=False) == Listening("7000", "", {"port": "0", "tls-port": "7000"})
    assert listening(text.partition("\036config /b")[0], named=False) == Listening("7000")
    # Two servers are seen: of one of them the title is.
    assert listening("\036title *:6380\n\036title *:6381\n", named=False) == Listening()


@pytest.mark.parametrize(("health", "status"), [("healthy", "skip"), ("unhealthy", "fail"), ("none", "fail")])
def test_refused_where_its_healthcheck_is_content(tmp_path: Path, health: str, status: str) -> None:
    stage, shell = _stack(tmp_path, users="", listed="", file="")
    (shell.folder / "down").touch()
    shell._containers[0] = replace(shell._containers[0], health=health)
    (finding,) = Redis().check_responds(stage, "redis")
    assert (finding.status, finding.fix) == (status, None)
    assert "Connection refused" in finding.evidence


@pytest.mark.parametrize(
    "command",
    [
        'redis-server --requirepass "$REDIS_PASSWORD"',
        "exec redis-server --requirepass ${REDIS_PASSWORD:?no password}",
        "redis-server --requirepass ${OTHER:-own-word}",
        'redis-server --requirepass "$(cat /run/secrets/redis)" --appendonly yes',
        "redis-server --requirepass $(cat /run/secrets/redis)",
        "redis-server --requirepass own-word",
    ],
)
def test_a_password_of_the_command(tmp_path: Path, command: str) -> None:
    """Its clients have another one: the server is asked with its own all the same, and nobody is let in by that."""
    (tmp_path / "secret").write_text("own-word\n")
    raw = {"command": ["sh", "-c", command], "secrets": [{"source": "word", "target": "redis"}]}
    environment = {"REDIS_PASSWORD": "own-word"} if "REDIS" in command else {}
    about = service("cache", environment=environment, raw=raw, secrets=("word",))
    client = service("api", environment={"REDIS_URL": "redis://:another@cache/0"})
    made = project(about, client, secret_files={"word": tmp_path / "secret"})
    assert [kind.name for kind in kinds_of(about)] == ["redis"]
    shell = Shell(tmp_path / "bin", {"redis-cli": CLI.replace("= admin", "= default")}, running("cache", "api"))
    (shell.folder / "users").write_text("default own-word\n")
    stage = context(made, shell, tmp_path)
    facts = collect(stage, "cache")
    assert facts.admin == Account("", "own-word")
    assert facts.info["maxmemory"] == "0"
    assert facts.declared["default"].takes(_hash("own-word"))
    (finding,) = _logins(stage, "cache")
    assert (finding.status, finding.fix) == ("fail", None)
    assert "own-word" not in " ".join(word for argv, _ in shell.asked for word in argv)


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        (
            "DENIED Redis is running in protected mode because protected mode is enabled and no password is set",
            "api and worker cannot connect: it is in protected mode, without a password",
        ),
        (
            "Could not connect to Redis at 172.18.0.2:6379: Connection refused",
            "api and worker cannot connect: it does not listen on its networks",
        ),
        ("NOAUTH Authentication required.", "api and worker can log in as app"),
    ],
)
def test_it_is_asked_as_other_containers_ask(tmp_path: Path, said: str, summary: str) -> None:
    stage, shell = _stack(tmp_path, users="app app-word\nadmin admin-word\n", listed=APP + ADMIN, file=APP + ADMIN)
    (shell.folder / "network").write_text(f"{said}\n")
    (before,) = _logins(stage)
    assert before.status == "ok"  # it has no address of its own
    shell._containers[0] = replace(shell._containers[0], attachments={"net": Attachment("172.18.0.2")})
    (finding,) = _logins(stage)
    assert (finding.summary, finding.status) == (summary, "ok" if "NOAUTH" in said else "fail")
    assert finding.evidence in said
    assert finding.fix is None


def test_a_cluster_without_slots(tmp_path: Path) -> None:
    stage, _ = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=ADMIN)
    (finding,) = Redis().check_cluster(stage, "redis")
    assert finding.status == "fail"
    assert "16384 of its 16384 slots" in finding.summary


@pytest.mark.parametrize(("told", "appends"), [("yes", True), ("no", False), ("$APPEND", True)])
def test_appendonly_on_the_command_line(tmp_path: Path, told: str, appends: bool) -> None:
    stage, shell = _stack(tmp_path, users="", listed="", file="")
    command = ["redis-server", f"{shell.folder}/redis.conf", "--appendonly", told, "--dir", f"{shell.folder}/x"]
    stage.project.services["redis"].raw["command"] = command  # type: ignore[index]
    stage.project.services["redis"].environment["APPEND"] = "yes"  # type: ignore[index]
    facts = collect(stage, "redis")
    assert (facts.appends, facts.ephemeral) == (appends, True)


def test_warm_up(tmp_path: Path) -> None:
    stage, shell = _stack(tmp_path, users="app app-word\n", listed="", file="")
    Redis().warm(stage, "redis", "SET 'a key' 1")
    assert (shell.folder / "said").read_text() == 'app "SET" "a key" "1"\n'
    (shell.folder / "refuse").touch()
    with pytest.raises(StackError, match="ERR not so"):
        Redis().warm(stage, "redis", "SET a b")


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({"REDIS_URL": "redis://:nobody@redis:6379/0"}, "fail"),
        ({"REDIS_URL": "redis://redis:6379/0"}, "warn"),
        ({"WAIT_FOR": "redis:6379"}, None),
        ({"REDIS_HOST": "redis", "REDIS_USER": "app"}, None),
        ({"HTTP_URL": "http://redis:6379"}, None),
    ],
)
def test_only_known_logins_are_judged(tmp_path: Path, environment: dict[str, str], status: str | None) -> None:
    stage, _ = _stack(tmp_path, users="admin admin-word\n", listed=ADMIN, file=ADMIN, **environment)
    found = _logins(stage)
    assert [each.status for each in found] == ([status] if status else [])
    assert not any(each.fix for each in found)
