"""What attempts to log in say and prove."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from postgres_facts import ADMIN, BOUNCER, FINE, POOLED, SHUT, WRONG

from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.postgres.facts import Cluster, Server
from stackhand.kinds.postgres.login_attempts import (
    Attempt,
    classify,
    conclusive_attempts,
    expect_recovery,
    read_attempt,
    try_all,
    try_logins,
)
from stackhand.kinds.postgres.login_map import Login, LoginMap


@pytest.mark.parametrize(
    ("message", "trouble"),
    [
        ('FATAL:  password authentication failed for user "app"', "password"),
        ("FATAL:  SASL authentication failed", "password"),
        ('FATAL:  role "app" is not permitted to log in', "nologin"),
        ('FATAL:  role "app" does not exist', "no_role"),
        ('FATAL:  database "app" does not exist', "no_database"),
        ("FATAL:  no such database: app", "no_database"),
        ('FATAL:  permission denied for database "app"', "no_connect"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "app"', "not_admitted"),
        ("FATAL:  pg_hba.conf rejects connection for host", "not_admitted"),
        ("FATAL:  server login has been failing, try again later (server_login_retry)", "later"),
        (
            'FATAL:  server login has been failing, cached error: permission denied for database "app" '
            "(server_login_retry)",
            "later",
        ),
        ("FATAL:  sorry, too many clients already", "full"),
        ("FATAL:  the database system is starting up", "starting"),
        ('connection to server at "db" failed: Connection refused', "silent"),
        ("FATAL:  server login failed: wrong password type", "other"),
    ],
)
def test_complaints_are_understood(message: str, trouble: str) -> None:
    assert classify(f"psql: error: {message}") == trouble


def test_what_came_of_a_login() -> None:
    assert read_attempt(ExecResult(0, "1")) == Attempt()
    assert (
        read_attempt(ExecResult(2, "", 'psql: error: FATAL:  role "x" is not\npermitted to log in')).trouble
        == "nologin"
    )
    assert read_attempt(ExecResult(None, "", "", 6.0)) == Attempt("silent", "no answer within 6 s")


def test_logins_are_tried_a_few_at_a_time() -> None:
    import threading
    import time

    lock, now, most = threading.Lock(), [0], [0]

    class Asked:
        def within(self, seconds: float) -> float:
            return seconds

        def ask(self, *_: Any, **__: Any) -> ExecResult:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= 1
            return ExecResult(0, "1")

    logins = [Login(f"app{number}", "shop", "db", 5432, "", "s3cr3t") for number in range(12)]
    context: Any = Asked()
    assert len(try_logins(context, "db", logins)) == 12
    assert 1 < most[0] <= 4


DERIVED = Login("app", "shop", "db", 5432, "", "s3cr3t", ("api",), ("pool",))
OWN = Login("lookup", "shop", "db", 5432, "", "its password", ("pool",), ("pool",))


@pytest.mark.parametrize(
    ("pooled", "direct", "protected", "counts"),
    [
        (FINE, FINE, True, True),
        # The server admits PgBouncer's address alone.
        (FINE, SHUT, True, False),
        (Attempt("other", "x"), SHUT, True, False),
        (FINE, Attempt("full", "too many connections"), True, False),
        (FINE, Attempt("silent", "refused"), True, False),
        (Attempt("silent", "x"), Attempt("silent", "refused"), True, True),
        # Connections from before hide it; but who has no password is let in from there without one.
        (FINE, WRONG, True, True),
        (FINE, WRONG, False, False),
        (WRONG, WRONG, False, True),
        (FINE, Attempt("no_role", "does not exist"), False, True),
    ],
)
@pytest.mark.parametrize("login", [DERIVED, OWN])
def test_what_a_login_that_only_a_pgbouncer_makes_proves(
    login: Login, pooled: Attempt, direct: Attempt, protected: bool, counts: bool
) -> None:
    found = conclusive_attempts({POOLED: pooled, login: direct}, [login.role] if protected else [])
    assert (login in found) is counts
    assert found[POOLED] == pooled


def test_who_logs_in_directly_has_to_be_admitted() -> None:
    tried = {POOLED: FINE, Login("app", "shop", "db", 5432, "", "s3cr3t", ("migrate",)): SHUT}
    assert conclusive_attempts(tried, ["app"]) == tried


def test_a_pool_that_waits_after_a_failure_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the repair of a role, and only then: PgBouncer tries no login for server_login_retry seconds."""
    later = ExecResult(2, "", "FATAL:  server login has been failing, try again later (server_login_retry)")
    answers = [later, later, ExecResult(0, "1")]
    pauses: list[float] = []
    monkeypatch.setattr("stackhand.kinds.postgres.login_attempts.time.sleep", pauses.append)
    monkeypatch.setattr(
        "stackhand.kinds.postgres.login_attempts.login_map",
        lambda *_: LoginMap(pooled=(POOLED,), bouncers={"pool": BOUNCER}),
    )
    stage: Any = SimpleNamespace(
        within=float,
        scratch={},
        ask=lambda *_, **__: answers.pop(0),
        facts_of=lambda *_: Server(ADMIN, cluster=Cluster(150000)),
    )
    assert try_all(stage, "db")[POOLED].trouble == "later"
    expect_recovery(stage, "db")
    assert try_all(stage, "db")[POOLED] == Attempt()
    assert len(pauses) == 1


@pytest.mark.parametrize(("direct", "waits"), [(FINE, True), (WRONG, False)])
def test_a_pool_is_given_time_where_its_server_admits_the_role_again(
    monkeypatch: pytest.MonkeyPatch, direct: Attempt, waits: bool
) -> None:
    """What PgBouncer says is old then: another run has put it right."""
    own = Login("app", "shop", "db", 5432, "", "s3cr3t", ("migrate",))
    looks = [{POOLED: Attempt("later", "cached error"), own: direct}, {POOLED: FINE}]
    module = "stackhand.kinds.postgres.login_attempts"
    monkeypatch.setattr(f"{module}.time.sleep", lambda _: None)
    monkeypatch.setattr(f"{module}.try_logins", lambda *_: looks.pop(0))
    known = LoginMap(pooled=(POOLED,), direct=(own,), bouncers={"pool": BOUNCER})
    monkeypatch.setattr(f"{module}.login_map", lambda *_: known)
    stage: Any = SimpleNamespace(scratch={}, facts_of=lambda *_: Server(ADMIN, cluster=Cluster(150000)))
    assert (try_all(stage, "db")[POOLED] == FINE) is waits
