"""What the kind postgres decides, of facts alone: recognition, logins, roles, rights, lookups, indexes."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders import container, project, service

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext, ServiceKinds
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres import address as place
from stackhand.kinds.postgres import auth_query as lookups
from stackhand.kinds.postgres import grants, roles
from stackhand.kinds.postgres import maintenance as indexes
from stackhand.kinds.postgres import prewarm as warmth
from stackhand.kinds.postgres.access import _remember, judge_grants
from stackhand.kinds.postgres.facts import (
    Cluster,
    Default,
    Function,
    Held,
    Index,
    Migrations,
    Rights,
    Role,
    Server,
    Space,
    Upkeep,
    parse,
    unread,
)
from stackhand.kinds.postgres.logins import (
    ATTEMPTS,
    Attempt,
    AuthQuery,
    Links,
    Login,
    attempt,
    connect,
    evidence,
    read,
    recovers,
    understand,
)
from stackhand.kinds.postgres.pgbouncer import PgBouncer
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, Mapped
from stackhand.kinds.postgres.postgres import Postgres
from stackhand.kinds.postgres.psql import Admin, NoAdministrator, accounts, first_answer
from stackhand.kinds.postgres.roles import Wanted
from stackhand.settings import Fixes
from stackhand.state.folder import StateFolder

ADMIN = Admin("postgres")
DATA = "7123"


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


def test_an_answer_is_read_section_by_section() -> None:
    text = """{"section" : "cluster", "version" : 150004, "settings" : {"max_connections" : "60"},
 "roles" : [{"name" : "app", "login" : true}], "databases" : ["app"]}
{"section" : "rights", "database" : "app", "owner" : "migrator", "held" : [{"role":"app","schema":"public",
 "kind":"r","privileges":["SELECT"],"names":["tasks"]}]}
{"section" : "migrations", "database" : "app", "schema" : "public", "table" : "schema_migrations", "rows" : []}
"""
    server = parse(text, ADMIN)
    assert server.available == 57
    assert server.role("app") is not None
    assert server.rights["app"].held == (Held("app", "public", "r", ("SELECT",), ("tasks",)),)
    assert [each.table for each in server.migrations] == ["schema_migrations"]


def test_nothing_is_missing_that_nobody_could_see() -> None:
    with pytest.raises(CannotAsk, match="canceling statement"):
        parse('{"section" : "rights", "database" : "app", "owner" : "x"}\n', ADMIN, ["app"], "canceling statement")


def test_a_section_that_did_not_come_is_told() -> None:
    """Its statement took too long, or the answer was cut off."""
    text = """{"section" : "cluster", "version" : 150004, "databases" : ["app", "shop"]}
{"section" : "rights", "database" : "app", "owner" : "migrator"}
{"section" : "upkeep", "database" : "app", "unanal"""
    found = parse(text, ADMIN, ["app", "shop", "not_made_yet"], "canceling statement due to statement timeout")
    assert [each.subject for each in unread("some", "db", "databases", found, found.rights)] == ["shop"]
    for judged in (indexes.judge_analyse, indexes.judge_indexes, indexes.judge_bloat):
        told = list(judged("db", found))
        assert [(each.status, each.subject) for each in told] == [("skip", "app"), ("skip", "shop")]
        assert "statement timeout" in told[0].evidence


@pytest.mark.parametrize(
    ("said", "trouble"),
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
        ("FATAL:  sorry, too many clients already", "full"),
        ("FATAL:  the database system is starting up", "starting"),
        ('connection to server at "db" failed: Connection refused', "silent"),
        ("FATAL:  server login failed: wrong password type", "other"),
    ],
)
def test_complaints_are_understood(said: str, trouble: str) -> None:
    assert understand(f"psql: error: {said}") == trouble


def test_what_came_of_a_login() -> None:
    assert read(ExecResult(0, "1")) == Attempt()
    assert read(ExecResult(2, "", 'psql: error: FATAL:  role "x" is not\npermitted to log in')).trouble == "nologin"
    assert read(ExecResult(None, "", "", 6.0)) == Attempt("silent", "no answer within 6 s")


BOUNCER = Bouncer(
    settings={"auth_user": "lookup", "auth_query": "SELECT u, p FROM auth.get($1)", "listen_port": "6432"},
    databases={"shop": Mapped("shop", "db", 5432, "shop_prod")},
    users={"lookup": "its password"},
)


def test_who_logs_in_where() -> None:
    clients = [
        Client("api", "pool", "pool", 6432, "DATABASE_HOST", "", "app", "shop", "", "s3cr3t"),
        Client("worker", "pool", "pool", 6432, "DATABASE_HOST", "", "app", "shop", "", "s3cr3t"),
        Client("migrate", "db", "db", None, "PGHOST", "", "migrator", "shop_prod", "", "other"),
        Client("api", "db", "db", 80, "SOME_URL", "http", "app", "", "", "x"),
    ]
    found = connect("db", clients, {"pool": BOUNCER}, {"db": "db", "pool": "pool"})
    assert found.pooled == (Login("app", "shop", "pool", 6432, "pool", "s3cr3t"),)
    assert found.pooled[0].clients == ("api", "worker")
    assert set(found.direct) == {
        Login("app", "shop_prod", "db", 5432, "", "s3cr3t"),
        Login("migrator", "shop_prod", "db", 5432, "", "other"),
        Login("lookup", "shop_prod", "db", 5432, "", "its password"),
    }
    assert [(each.role, each.database) for each in found.lookups] == [("lookup", "shop_prod")]
    assert found.pairs() == [("app", "shop_prod"), ("migrator", "shop_prod")]


def test_a_forced_user_is_who_logs_in() -> None:
    forced = Bouncer(databases={"shop": Mapped("shop", "db", 5432, "shop", user="owner", password="of the owner")})
    client = Client("api", "pool", "pool", None, "X", "", "anybody", "shop", "", "its own")
    found = connect("db", [client], {"pool": forced}, {"db": "db"})
    assert found.direct == (Login("owner", "shop", "db", 5432, "", "of the owner"),)
    assert found.pooled == (Login("anybody", "shop", "pool", 6432, "pool", "its own"),)


def test_an_entry_for_any_database_is_looked_up_for_those_that_clients_ask_for() -> None:
    settings = {"auth_user": "lookup", "auth_query": "SELECT u, p FROM auth.get($1)"}
    entries = {"*": Mapped("*", "db"), "named": Mapped("named", "db", 5432, "other", auth_user="second")}
    any_database = Bouncer(settings=settings, databases=entries)
    client = Client("api", "pool", "pool", None, "X", "", "app", "shop", "", "s3cr3t")
    found = connect("db", [client], {"pool": any_database}, {"db": "db"})
    assert {(each.role, each.database) for each in found.lookups} == {("lookup", "shop"), ("second", "other")}
    assert connect("db", [], {"pool": any_database}, {"db": "db"}).lookups == (
        AuthQuery("pool", "second", "other", "SELECT u, p FROM auth.get($1)"),
    )


def test_logins_are_tried_a_few_at_a_time() -> None:
    import threading
    import time

    lock, now, most = threading.Lock(), [0], [0]

    class Asked:
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
    assert len(attempt(context, "db", logins)) == 12
    assert 1 < most[0] <= 4


def test_without_psql_nobody_was_asked() -> None:
    class Bare:
        def shell(self, *_: Any, **__: Any) -> ExecResult:
            return ExecResult(127, "", "sh: psql: not found")

    context: Any = Bare()
    with pytest.raises(CannotAsk, match="no psql"):
        first_answer(context, "db", [ADMIN], "SELECT 1")


WHOLE = '{"section" : "cluster", "version" : 150004}'


class AskedServer:
    """A server as psql shows it: an answer to each way in, then to `SELECT 1`."""

    def __init__(self, *answers: ExecResult, health: str = "none") -> None:
        self.answers = list(answers)
        self.verified_healthy: list[str] = []
        self.health = health

    def shell(self, *_: Any, **__: Any) -> ExecResult:
        return self.answers.pop(0)

    def container(self, service: str) -> Any:
        return SimpleNamespace(health=self.health)

    def redact(self, text: str) -> str:
        return text


DEMOTED = ExecResult(0, '{"section" : "upkeep"}', "ERROR:  permission denied for table pg_authid")
SLOW = ExecResult(None, "", "", 10.0)
NOWHERE = ExecResult(2, "", "psql: error: connection to server on socket failed: No such file or directory")


@pytest.mark.parametrize("check", ["postgres.grants", "postgres.auth_query"])
def test_rights_that_could_not_be_read_are_told_by_the_checks_that_need_them(check: str, tmp_path: Path) -> None:
    """Otherwise a finding would count as gone after its fix."""
    shown = server(Role("app"))
    shown = msgspec.structs.replace(
        shown,
        cluster=msgspec.structs.replace(shown.cluster, databases=("shop_prod",)),
        asked=("shop_prod",),
        complaint="canceling statement due to statement timeout",
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
    judged = next(each for each in Postgres().checks() if each.id == check).judge(stage, "db")
    assert [(each.id, each.status, each.subject) for each in judged] == [(check, "skip", "shop_prod")]


def test_a_way_in_that_does_not_see_the_server_is_none() -> None:
    stage: Any = AskedServer(DEMOTED, ExecResult(0, WHOLE))
    second = Admin("other")
    assert first_answer(stage, "db", [ADMIN, second], "…")[0] is second
    stage = AskedServer(DEMOTED)
    with pytest.raises(NoAdministrator, match="permission denied for table pg_authid"):
        first_answer(stage, "db", [ADMIN], "…")


@pytest.mark.parametrize(
    ("answers", "health", "kind", "says"),
    [
        ([ExecResult(0, "", "ERROR:  function sha256(bytea) does not exist")], "none", CannotAsk, "function sha256"),
        ([SLOW, ExecResult(0, "1\n")], "none", CannotAsk, "it answers"),
        ([SLOW, SLOW], "none", NoAnswer, "no answer within 10 s"),
        ([NOWHERE], "none", NoAnswer, "No such file"),
        # Its own healthcheck is content: it listens somewhere else.
        ([NOWHERE], "healthy", CannotAsk, "No such file"),
        (
            [ExecResult(2, "", "psql: error: FATAL:  the database system is starting up")],
            "none",
            NoAnswer,
            "starting up",
        ),
    ],
)
def test_no_answer(answers: list[ExecResult], health: str, kind: type[Exception], says: str) -> None:
    stage: Any = AskedServer(*answers, health=health)
    with pytest.raises(NoAnswer, match=says) as caught:
        first_answer(stage, "db", [ADMIN], "…")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("raw", "environment", "expected"),
    [
        ({}, {}, {}),
        ({"command": ["postgres", "-p", "5433"]}, {}, {"PGPORT": "5433"}),
        ({"command": "-p5433"}, {}, {"PGPORT": "5433"}),
        ({"command": ["-c", "port=5433", "-k", "/run/pg"]}, {}, {"PGPORT": "5433", "PGHOST": "/run/pg"}),
        ({"command": ["-c", "unix_socket_directories=/a,/b"]}, {}, {"PGHOST": "/a"}),
        ({"command": ["postgres", "--port=5433", "-D", "/data"]}, {}, {"PGPORT": "5433", "PGDATA": "/data"}),
        ({}, {"PGPORT": "5433"}, {"PGPORT": "5433"}),
        ({"healthcheck": {"test": ["CMD", "pg_isready", "-p", "5433", "-h", "/a"]}}, {},
         {"PGPORT": "5433", "PGHOST": "/a"}),
        ({"healthcheck": {"test": ["CMD", "pg_isready", "-h", "127.0.0.1"]}}, {}, {}),
        # Another server's, for this container's clients: not the one to administer.
        ({}, {"PGHOST": "primary"}, {"PGHOST": ""}),
        ({}, {"PGHOST": "/a"}, {"PGHOST": "/a"}),
    ],
)  # fmt: skip
def test_where_a_server_listens(raw: dict[str, Any], environment: dict[str, str], expected: dict[str, str]) -> None:
    assert place.where(service("db", raw=raw, environment=environment)) == expected


POOLED = Login("app", "shop", "pool", 6432, "pool", "s3cr3t", ("api",))
DERIVED = Login("app", "shop", "db", 5432, "", "s3cr3t", ("api",), ("pool",))
OWN = Login("lookup", "shop", "db", 5432, "", "its password", ("pool",), ("pool",))
FINE, SHUT = Attempt(), Attempt("not_admitted", "no pg_hba.conf entry")
WRONG = Attempt("password", "password authentication failed")


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
    found = evidence({POOLED: pooled, login: direct}, [login.role] if protected else [])
    assert (login in found) is counts
    assert found[POOLED] == pooled


def test_who_logs_in_directly_has_to_be_admitted() -> None:
    tried = {POOLED: FINE, Login("app", "shop", "db", 5432, "", "s3cr3t", ("migrate",)): SHUT}
    assert evidence(tried, ["app"]) == tried


def test_a_direct_login_is_derived_only_where_nobody_makes_it_himself() -> None:
    api = Client("api", "pool", "pool", 6432, "X", "", "app", "shop", "", "s3cr3t")
    found = connect("db", [api], {"pool": BOUNCER}, {"db": "db"})
    assert {each.role: each.behind for each in found.direct} == {"app": ("pool",), "lookup": ("pool",)}
    job = Client("job", "db", "db", 5432, "X", "", "app", "shop_prod", "", "s3cr3t")
    found = connect("db", [api, job], {"pool": BOUNCER}, {"db": "db"})
    merged = next(each for each in found.direct if each.role == "app")
    assert (merged.clients, merged.behind) == (("api", "job"), ())


def test_who_only_asks_the_console_is_no_role_of_the_server() -> None:
    anything = Bouncer(databases={"*": Mapped("*", "db")}, settings={"auth_user": "lookup"})
    exporter = Client("exporter", "pool", "pool", 6432, "X", "postgres", "stats", "pgbouncer", "", "s3cr3t")
    assert connect("db", [exporter], {"pool": anything}, {"db": "db"}) == Links(bouncers={"pool": anything})


def test_a_pool_that_waits_after_a_failure_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the repair of a role, and only then: PgBouncer tries no login for server_login_retry seconds."""
    later = ExecResult(2, "", "FATAL:  server login has been failing, try again later (server_login_retry)")
    answers = [later, later, ExecResult(0, "1")]
    pauses: list[float] = []
    monkeypatch.setattr("stackhand.kinds.postgres.logins.time.sleep", pauses.append)
    monkeypatch.setattr(
        "stackhand.kinds.postgres.logins.links", lambda *_: Links(pooled=(POOLED,), bouncers={"pool": BOUNCER})
    )
    stage: Any = SimpleNamespace(
        scratch={}, ask=lambda *_, **__: answers.pop(0), facts_of=lambda *_: Server(ADMIN, cluster=Cluster(150000))
    )
    assert ATTEMPTS.collect(stage, "db")[POOLED].trouble == "later"
    recovers(stage, "db")
    assert ATTEMPTS.collect(stage, "db")[POOLED] == Attempt()
    assert len(pauses) == 1


LOGIN = Login("app", "shop", "db", 5432, "", "s3cr3t", ("api",))
OTHER = Login("app", "shop", "db", 5432, "", "another s3cr3t", ("worker",))
DENIED = Attempt("password", "password authentication failed")


def server(*known: Role, recovery: bool = False, **rights: Rights) -> Server:
    return Server(ADMIN, cluster=Cluster(150000, DATA, recovery, roles=known), rights=rights)


@pytest.mark.parametrize(
    ("known", "tried", "status", "fixable", "words"),
    [
        ([Role("app")], {LOGIN: Attempt()}, "ok", False, "it is there and may log in"),
        ([], {LOGIN: DENIED}, "fail", True, "is missing"),
        ([Role("app", login=False)], {LOGIN: Attempt("nologin")}, "fail", False, "may not log in"),
        ([Role("app", login=False, superuser=True)], {}, "fail", False, "may not log in"),
        ([Role("app", expired=True)], {LOGIN: DENIED}, "fail", False, "has expired"),
        ([Role("app")], {LOGIN: DENIED}, "fail", True, "another password"),
        ([Role("app", superuser=True)], {LOGIN: DENIED}, "fail", False, "another password"),
        ([Role("app")], {LOGIN: DENIED, OTHER: Attempt()}, "fail", False, "different passwords"),
        ([Role("app")], {LOGIN: DENIED, OTHER: DENIED}, "fail", False, "different passwords"),
        ([Role("app")], {LOGIN: Attempt("not_admitted", "no pg_hba.conf entry")}, "fail", False, "cannot log in"),
        ([Role("app")], {LOGIN: Attempt("no_database", "no such")}, "fail", False, "cannot log in"),
        # Told, and repaired, with the role's rights.
        ([Role("app")], {LOGIN: Attempt("no_connect", "permission denied")}, "ok", False, "it is there"),
    ],
)
def test_a_role(known: list[Role], tried: dict[Login, Attempt], status: str, fixable: bool, words: str) -> None:
    want = Wanted("app", ("api",), tuple(dict.fromkeys(each.password for each in tried)))
    finding = roles.judge("db", server(*known), want, tried)
    assert (finding.status, finding.fixable) == (status, fixable)
    assert words in finding.summary
    assert "s3cr3t" not in repr(finding)


@pytest.mark.parametrize(
    ("want", "fixable"),
    [
        (Wanted("app", ("api",), ("s3cr3t",), made_with="s3cr3t"), True),
        # The secrets do not agree, or not all of them are known.
        (Wanted("app", ("api",), ("s3cr3t",), made_with="another"), False),
        (Wanted("app", ("api",), ("s3cr3t", "another"), made_with="s3cr3t"), False),
        (Wanted("app", ("api", "job"), ("s3cr3t",), unknown=("job",), made_with="s3cr3t"), False),
        (Wanted("app", ("api",), ("s3cr3t",)), False),
    ],
)
def test_of_a_superuser_only_a_password_that_all_agree_on_is_put_right(want: Wanted, fixable: bool) -> None:
    about = server(Role("app", superuser=True, fingerprint="x"))
    finding = roles.judge("db", about, want, {LOGIN: DENIED})
    assert (finding.status, finding.fixable) == ("fail", fixable)
    assert ("not done" in finding.remedy) is not fixable
    assert "s3cr3t" not in repr(finding) + repr(want)

    done: list[str] = []

    class Hand(Admin):
        def execute(self, *words: Any, **_: Any) -> Any:
            done.append(words[2])

        def set_password(self, *words: Any) -> None:
            done.append("password")

    about = msgspec.structs.replace(about, admin=Hand("app"))
    stage: Any = SimpleNamespace()
    if fixable:
        roles.repair(stage, "db", about, want, None)
        assert done[-1] == "password"
        assert not any("CREATE" in each or "ALTER" in each for each in done)
    else:
        with pytest.raises(StackError, match="app is left alone"):
            roles.repair(stage, "db", about, want, None)
        assert done == []


def test_the_superuser_that_the_database_is_made_with() -> None:
    links = Links((LOGIN, Login("reader", "shop", "db", 5432, "", "r", ("api",))))
    made = [("app", "s3cr3t"), ("postgres", "s3cr3t")]
    found = {each.name: each.made_with for each in roles.wanted(links, {}, made)}
    assert found == {"app": "s3cr3t", "reader": ""}
    assert roles.wanted(links, {}, [*made, ("app", "another")])[0].made_with == ""
    raw = {"POSTGRES_USER": "app", "POSTGRES_PASSWORD": "s3cr3t"}
    stage: Any = SimpleNamespace(project=project(service("db", image="postgres:16", environment=raw)))
    assert set(accounts(stage, "db")) >= set(made)


def test_a_role_is_made_with_its_settings_or_not_at_all() -> None:
    text = roles.creation("app", ['ALTER ROLE "app" CONNECTION LIMIT 5;']).splitlines()
    assert (text[0], text[-1]) == ("BEGIN;", "COMMIT;")
    assert text[1].startswith("SELECT 'CREATE ROLE \"app\" LOGIN' WHERE NOT EXISTS")
    assert text[2] == 'ALTER ROLE "app" CONNECTION LIMIT 5;'


@pytest.mark.parametrize(("pooled", "says"), [(FINE, "it is there and may log in"), (WRONG, "it is there")])
def test_a_role_that_only_a_pgbouncer_logs_in_as(pooled: Attempt, says: str) -> None:
    finding = roles.judge("db", server(Role("app")), Wanted("app", ("api",), ("s3cr3t",)), {POOLED: pooled})
    assert (finding.status, finding.summary) == ("ok", says)


def test_nothing_is_changed_in_a_copy() -> None:
    finding = roles.judge("db", server(recovery=True), Wanted("app", ("api",), ("x",)), {})
    assert (finding.status, finding.fixable) == ("fail", False)


def test_a_missing_role_whose_password_nobody_knows_is_for_a_person() -> None:
    assert not roles.judge("db", server(), Wanted("app", ("api",)), {}).fixable
    assert roles.judge("db", server(), Wanted("reader", ("fixes.roles",)), {}).fixable


def test_a_missing_superuser_is_not_made() -> None:
    assert not roles.judge("db", server(), Wanted("app", ("api",), ("s3cr3t",), made_with="s3cr3t"), {}).fixable


def test_a_verifier_is_compared_without_being_told() -> None:
    want = Wanted("lookup", ("pool",), verifier="SCRAM-SHA-256$4096:x")
    right = Role("lookup", fingerprint=roles.fingerprint("SCRAM-SHA-256$4096:x"))
    assert roles.judge("db", server(right), want, {}).status == "ok"
    wrong = roles.judge("db", server(Role("lookup", fingerprint="another")), want, {})
    assert (wrong.status, wrong.fixable) == ("fail", True)
    assert "SCRAM" not in repr(wrong)
    assert "SCRAM" not in repr(want)


def test_wanted_roles_are_those_of_clients_and_settings() -> None:
    lookup = AuthQuery("pool", "lookup", "shop", "SELECT 1", "SCRAM-SHA-256$x")
    links = Links((LOGIN, Login("lookup", "shop", "db", 5432, "", "", ("pool",))), lookups=(lookup,))
    found = {each.name: each for each in roles.wanted(links, {"reader": "r", "app": "s3cr3t"})}
    assert found["app"] == Wanted("app", ("api",), ("s3cr3t",))
    assert found["lookup"].verifier == "SCRAM-SHA-256$x"
    assert found["reader"] == Wanted("reader", ("fixes.roles",), ("r",))


APP = Role("app")
ALL = ("DELETE", "INSERT", "SELECT", "UPDATE")
HELD = Held("app", "public", "r", ALL, ("results", "tasks"))
GIVEN = Default("app", "migrator", "public", "r", ALL)
THINGS = (Held("", "public", "r", (), ("results", "tasks")),)
RIGHTS = Rights(
    "shop", "migrator", ("app",), spaces=(Space("public", ("app",)),), held=(HELD,), defaults=(GIVEN,), things=THINGS
)


def lacking(rights: Rights, known: grants.Known | None = None, role: Role = APP, **more: Any) -> grants.Lack:
    found = Server(ADMIN, cluster=Cluster(150000, DATA, roles=(role,)), rights={"shop": rights}, **more)
    return grants.lack(found, rights, role, known)


def known(rights: Rights = RIGHTS, **more: Any) -> grants.Known:
    return grants.remember(Server(ADMIN, cluster=Cluster(150000, DATA), **more), rights, Role("app"))


def test_who_has_all_its_rights_lacks_none() -> None:
    assert lacking(RIGHTS) == lacking(RIGHTS, known()) == grants.Lack()


PARTLY = msgspec.structs.replace(
    RIGHTS,
    held=(
        Held("app", "public", "r", ("INSERT", "SELECT", "UPDATE"), ("results",)),
        Held("app", "public", "r", ALL, ("tasks",)),
    ),
    missing=(Held("app", "public", "r", ("DELETE",), ("results",)),),
)
NOTHING = msgspec.structs.replace(RIGHTS, held=(), missing=(HELD,))
DELETE = 'GRANT DELETE ON TABLE public.results TO "app"'
EVERYTHING = 'GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE public.results, public.tasks TO "app"'
MIGRATED = (Migrations("shop", "public", "schema_migrations", ({"version": "2"},)),)


def test_a_part_that_was_never_there_may_be_meant_so() -> None:
    assert lacking(PARTLY).doubtful == (DELETE,)
    assert lacking(PARTLY).certain == ()


def test_a_part_that_was_there_is_given_back() -> None:
    assert lacking(PARTLY, known()).certain == (DELETE,)


def test_a_part_that_went_with_a_migration_may_be_meant_so() -> None:
    assert lacking(PARTLY, known(), migrations=MIGRATED).certain == ()
    assert lacking(PARTLY, known(), migrations=MIGRATED).doubtful == (DELETE,)


def test_what_is_remembered_of_other_data_does_not_count() -> None:
    assert lacking(PARTLY, msgspec.structs.replace(known(), data="of another volume")).certain == ()


def test_a_whole_loss_is_given_back() -> None:
    assert lacking(NOTHING).certain == (EVERYTHING,)
    assert lacking(NOTHING, known()).certain == (EVERYTHING,)


def test_a_whole_loss_that_came_with_a_migration_may_be_meant_so() -> None:
    for before in (RIGHTS, msgspec.structs.replace(RIGHTS, defaults=())):
        now = msgspec.structs.replace(
            NOTHING, defaults=before.defaults, missing=NOTHING.missing if before.defaults else ()
        )
        found = lacking(now, known(before), migrations=MIGRATED)
        assert (found.certain, found.doubtful) == ((), (EVERYTHING,))


def test_what_another_role_lacks_as_well_is_older_than_the_default_privileges() -> None:
    both = msgspec.structs.replace(NOTHING, missing=(HELD, msgspec.structs.replace(HELD, role="reader")))
    assert (lacking(both).certain, lacking(both).doubtful) == ((), (EVERYTHING,))
    assert lacking(both, known()).certain == (EVERYTHING,)


def test_without_default_privileges_only_a_whole_loss_is_given_back() -> None:
    before = msgspec.structs.replace(RIGHTS, defaults=())
    partly = msgspec.structs.replace(before, held=(Held("app", "public", "r", ALL, ("tasks",)),))
    nothing = msgspec.structs.replace(before, held=())
    assert lacking(partly, known(before)).doubtful == (EVERYTHING.replace(", public.tasks", ""),)
    assert lacking(nothing, known(before)).certain == (EVERYTHING,)
    # A table that is gone has no rights to give.
    gone = msgspec.structs.replace(nothing, things=())
    assert lacking(gone, known(before)) == grants.Lack()


def test_ways_in_are_given_back() -> None:
    shut = msgspec.structs.replace(RIGHTS, connect=(), spaces=(Space("public"),))
    ways = ('GRANT CONNECT ON DATABASE "shop" TO "app"', 'GRANT USAGE ON SCHEMA public TO "app"')
    assert lacking(shut, known()).certain == ways
    # Nothing is remembered: who has its tables still may have been kept out of the schema on purpose.
    assert (lacking(shut).certain, lacking(shut).doubtful) == (ways[:1], ways[1:])
    assert lacking(msgspec.structs.replace(shut, held=(), missing=(HELD,))).certain == (*ways, EVERYTHING)
    # Something is remembered, of before a migration: that may have shut it.
    assert lacking(shut, known(), migrations=MIGRATED).certain == ()
    assert lacking(shut, known(), migrations=MIGRATED).doubtful == ways


def test_a_role_made_anew_gets_what_it_had() -> None:
    bare = Rights("shop", "migrator", spaces=(Space("public"),), things=THINGS)
    before = msgspec.structs.replace(known(), member_of=("readers",))
    assert lacking(bare, before).certain == (
        'GRANT CONNECT ON DATABASE "shop" TO "app"',
        'GRANT USAGE ON SCHEMA public TO "app"',
        EVERYTHING,
        'ALTER DEFAULT PRIVILEGES FOR ROLE "migrator" IN SCHEMA public GRANT DELETE, INSERT, SELECT, UPDATE ON TABLES '
        'TO "app"',
        'GRANT "readers" TO "app"',
    )


def test_a_superuser_needs_no_rights() -> None:
    assert lacking(NOTHING, role=Role("app", superuser=True)) == grants.Lack()


def test_findings_about_rights() -> None:
    about = server(Role("app"))

    def judged(rights: Rights, lack: grants.Lack) -> tuple[str, bool]:
        finding = judge_grants("db", about, rights, Role("app"), lack, None)
        return finding.status, finding.fixable

    assert judged(RIGHTS, grants.Lack()) == ("ok", False)
    assert judged(RIGHTS, grants.Lack(certain=("GRANT x",))) == ("fail", True)
    assert judged(RIGHTS, grants.Lack(configured=("GRANT x",))) == ("fail", True)
    assert judged(RIGHTS, grants.Lack(doubtful=("GRANT x",))) == ("warn", False)
    bare = Rights("shop", "migrator", ("app",), things=THINGS, closed=True)
    assert judged(bare, grants.Lack()) == ("warn", False)
    # Its tables are an extension's only, or everybody may use some of them.
    assert judged(msgspec.structs.replace(bare, closed=False), grants.Lack()) == ("ok", False)
    assert judged(msgspec.structs.replace(bare, owners=("app",)), grants.Lack()) == ("ok", False)


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        ("SELECT ON ALL TABLES IN SCHEMA public", "NOT EXISTS"),
        ("SELECT, INSERT ON tasks", "to_regclass('tasks')"),
        ("ALL PRIVILEGES ON ALL SEQUENCES IN SCHEMA public", "has_sequence_privilege"),
        ("USAGE ON SCHEMA public", "has_schema_privilege"),
        ("CONNECT ON DATABASE shop", "has_database_privilege"),
        ("pg_monitor", "pg_has_role"),
    ],
)
def test_a_configured_grant_can_be_checked(grant: str, words: str) -> None:
    assert words in (grants.expression("app", grant) or "")


@pytest.mark.parametrize(
    "grant", ["EXECUTE ON FUNCTION f(int)", "FLY ON tasks", "SELECT (a) ON tasks", "a; DROP TABLE b"]
)
def test_a_grant_that_cannot_be_told_is_not_guessed(grant: str) -> None:
    assert grants.expression("app", grant) is None


LOOKUP = AuthQuery("pool", "lookup", "shop", "SELECT u, p FROM auth.get($1)")
FUNCTION = Function("auth", "get", "auth.get(text)", ("lookup",))
AUTH = Rights("shop", "migrator", ("lookup",), spaces=(Space("auth", ("lookup",)),), functions=(FUNCTION,))


@pytest.mark.parametrize(
    ("query", "call"),
    [
        ("SELECT u, p FROM auth.get($1)", lookups.Call("auth", "get", ("u", "p"))),
        ("select Usename, PASSWD from Auth.Get ( $1 );", lookups.Call("auth", "get", ("usename", "passwd"))),
        ('SELECT "U", p FROM "my auth"."Get"($1::text)', lookups.Call("my auth", "Get", ("U", "p"))),
        ("SELECT * FROM get($1)", lookups.Call("", "get", ("uname", "phash"))),
        ("SELECT usename, passwd FROM pg_shadow WHERE usename=$1", None),
        ("SELECT u, p, 1 FROM auth.get($1)", None),
    ],
)
def test_an_auth_query_is_read(query: str, call: lookups.Call | None) -> None:
    assert lookups.parse(query) == call


@pytest.mark.parametrize(
    ("rights", "statements"),
    [
        (AUTH, []),
        (msgspec.structs.replace(AUTH, connect=()), ['GRANT CONNECT ON DATABASE "shop" TO "lookup"']),
        (msgspec.structs.replace(AUTH, spaces=(Space("auth"),)), ['GRANT USAGE ON SCHEMA "auth" TO "lookup"']),
        (
            msgspec.structs.replace(AUTH, functions=(Function("auth", "get", "auth.get(text)"),)),
            ['GRANT EXECUTE ON FUNCTION auth.get(text) TO "lookup"'],
        ),
    ],
)
def test_what_a_lookup_lacks(rights: Rights, statements: list[str]) -> None:
    call = lookups.parse(LOOKUP.query)
    assert call is not None
    assert [statement for _, statement in lookups.lacking(rights, LOOKUP, call)] == statements
    [finding] = lookups.judge("db", server(Role("lookup"), shop=rights), LOOKUP)
    assert (finding.status, finding.fixable) == (("fail", True) if statements else ("ok", False))


def test_a_function_made_anew_is_closed() -> None:
    text = lookups.create(lookups.Call("auth", "get", ("u", "p")))
    for words in (
        "SECURITY DEFINER",
        "SET search_path = pg_catalog",
        "NOT rolsuper",
        "FROM PUBLIC",
        '"u" text, "p" text',
    ):
        assert words in text


def test_a_function_without_schema_is_not_guessed() -> None:
    lookup = AuthQuery("pool", "lookup", "shop", "SELECT * FROM get($1)")
    [finding] = lookups.judge("db", server(Role("lookup"), shop=msgspec.structs.replace(AUTH, functions=())), lookup)
    assert (finding.status, finding.fixable) == ("fail", False)


def test_indexes() -> None:
    found = Upkeep(
        "shop",
        {"public.many": 3_000_000},
        (
            Index("public.a", "public.t", unique=True),
            Index("public.b", "public.t"),
            Index("public.a_ccnew", "public.t", unique=True),
        ),
        (Index("public.c", "public.t", size=50_000_000, expected=5_000_000),),
    )
    about = Server(ADMIN, upkeep={"shop": found})
    assert [(each.status, each.fixable, each.remedy) for each in indexes.judge_indexes("db", about)] == [
        ("fail", True, "REINDEX INDEX CONCURRENTLY public.a"),
        ("warn", True, "REINDEX INDEX CONCURRENTLY public.b"),
        ("warn", True, "DROP INDEX CONCURRENTLY public.a_ccnew"),
    ]
    assert [(each.status, each.fixable) for each in indexes.judge_bloat("db", about)] == [("warn", False)]
    assert [(each.status, each.remedy) for each in indexes.judge_analyse("db", about)] == [
        ("warn", "ANALYZE public.many")
    ]


def test_what_a_global_default_privilege_gives_is_not_certain() -> None:
    """It applies to what is made after it; what lies in this schema may never have been the role's."""
    everywhere = msgspec.structs.replace(
        NOTHING, defaults=tuple(msgspec.structs.replace(each, schema="") for each in NOTHING.defaults)
    )
    assert lacking(everywhere).certain == ()
    assert lacking(everywhere).doubtful


def test_what_the_role_did_not_have_when_all_was_well_is_not_given() -> None:
    bare = msgspec.structs.replace(known(), held=(), usage=())
    assert lacking(NOTHING, bare).certain == ()


def test_a_password_is_not_set_while_somebody_has_one_that_is_not_known() -> None:
    vault = Login("app", "shop", "db", 5432, "", "", ("api",))
    [want] = roles.wanted(Links((vault, Login("app", "shop", "db", 5432, "", "stale", ("report",)))), {})
    assert want.unknown == ("api",)
    found = roles.judge("db", server(Role("app")), want, {LOGIN: DENIED})
    assert (found.status, found.fixable) == ("fail", False)
    assert "api" in found.remedy


def test_a_database_made_on_demand_is_no_failure() -> None:
    tests = Login("app", "shop_test", "db", 5432, "", "s3cr3t", ("api",))
    want = Wanted("app", ("api",), ("s3cr3t",))
    found = roles.judge("db", server(Role("app")), want, {LOGIN: Attempt(), tests: Attempt("no_database", "no such")})
    assert (found.status, found.fixable) == ("warn", False)
    assert "shop_test" in found.summary
    assert found.remedy


def test_what_is_remembered_side_by_side_is_all_there(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(
        state=StateFolder(tmp_path), dry=False, container=lambda _: SimpleNamespace(run_key="r1")
    )
    threads = [Thread(target=_remember, args=(context, "db", "shop", f"app{n}", known())) for n in range(12)]
    threads += [Thread(target=warmth.load, args=(context, f"db{n}", Server(ADMIN), ADMIN)) for n in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(context.state.recall("grants")["db"]["shop"]) == len(context.state.recall("prewarmed")) == 12


def test_a_dry_run_remembers_nothing(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(state=StateFolder(tmp_path), dry=True)
    _remember(context, "db", "shop", "app", known())
    assert context.state.recall("grants") is None
