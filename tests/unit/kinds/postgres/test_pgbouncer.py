"""The kind pgbouncer: how it is asked, who gets through it, and warm-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import container, healthy, service
from postgres_facts import INI, PGBOUNCER_FACTS, POOLED

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import Client
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres import pgbouncer_console
from stackhand.kinds.postgres.login_attempts import Attempt
from stackhand.kinds.postgres.pgbouncer import PgBouncer, evaluate_login
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer
from stackhand.kinds.registry import kinds_of


def test_a_login_through_it() -> None:
    alone = evaluate_login(POOLED, Attempt("silent", "no answer"), {}, "db")
    assert (alone.evidence, alone.blames) == ("no answer", ("db",))
    directly = replace(POOLED, host="db", via="", port=5432)
    tried = {POOLED: Attempt("other", "server login failed"), directly: Attempt()}
    finding = evaluate_login(POOLED, tried[POOLED], tried, "db")
    assert (finding.status, finding.fix is not None) == ("fail", False)
    assert finding.evidence == "server login failed; logging in directly works"
    assert finding.blames == ()
    assert evaluate_login(POOLED, Attempt(), tried, "db").status == "ok"


@pytest.mark.parametrize(
    ("image", "raw", "kinds"),
    [
        ("edoburu/pgbouncer", {"healthcheck": {"test": ["CMD", "pg_isready", "-h", "localhost"]}}, ["pgbouncer"]),
        ("bitnami/pgbouncer:1", {"expose": ["5432", "6432"]}, ["pgbouncer"]),
        ("mine", {"command": ["pgbouncer", "/a.ini"], "healthcheck": {"test": ["CMD", "pg_isready"]}}, ["pgbouncer"]),
        ("bitnami/pgpool:4", {"healthcheck": {"test": ["CMD", "pg_isready"]}, "expose": ["5432"]}, []),
        ("pgpool/pgpool", {"expose": ["5432"]}, []),
        ("ghcr.io/postgresml/pgcat", {"expose": ["5432"]}, []),
    ],
)
def test_what_stands_before_a_server_is_no_server(image: str, raw: dict[str, Any], kinds: list[str]) -> None:
    assert [kind.name for kind in kinds_of(service("it", image=image, raw=raw))] == kinds


def client(user: str, database: str, password: str = "s3cr3t", scheme: str = "postgres", name: str = "api") -> Client:
    return Client(name, "pool", "pool", 6432, "URL", scheme, user, database, "", password)


NO_TLS = "psql: error: connection to server failed: server does not support SSL, but SSL was required"
GREETED = ExecResult(2, "", NO_TLS)
READ = f"\x1eini /etc/pgbouncer.ini\n{INI}unix_socket_dir =\nstats_users = stats, other\nadmin_users = boss\n"
CONFIG = (
    "key\tvalue\ndefault_pool_size\t20\n\x1edatabases\nname\thost\tport\tdatabase\tforce_user\nshop\tdb\t5432\tshop\t\n"
)


class Stage:
    """The check context of one PgBouncer: what its shell prints, what psql says where, and all that was asked."""

    def __init__(
        self,
        *printed: str,
        psql: Mapping[str, ExecResult] | ExecResult = GREETED,
        console: ExecResult | None = None,
        known: Sequence[Client] = (),
        about: Container | None = None,
        shell: bool = True,
    ) -> None:
        self.printed = list(printed)
        self.psql = psql
        self.console = console
        self.known = list(known)
        self.about = about or container("pool")
        self.asked: list[tuple[str, list[str], dict[str, str]]] = []
        self.users: list[str] = []
        self.verified_healthy: list[str] = []
        self.has_shell = shell

    def within(self, seconds: float) -> float:
        return seconds

    def shell(self, service: str, script: str, user: str = "") -> ExecResult:
        self.users.append(user)
        return ExecResult(0, self.printed.pop(0)) if self.has_shell else ExecResult(127, "", "sh: not found")

    def ask(self, asker: str, argv: list[str], *, environment: dict[str, str], timeout: float = 5) -> ExecResult:
        self.asked.append((asker, argv, environment))
        if environment["PGDATABASE"] == "pgbouncer":
            assert self.console is not None, "the console was asked"
            return self.console
        return self.psql if isinstance(self.psql, ExecResult) else self.psql[asker]

    def neighbours(self, service: str, *, stores: bool = False) -> list[str]:
        return [service, "db"]

    def container(self, service: str) -> Container:
        return self.about

    def clients_of(self, service: str) -> list[Client]:
        return self.known

    def facts(self, kind: Any, service: str) -> Bouncer:
        return PGBOUNCER_FACTS

    facts_of = facts

    def register_secret(self, secret: str) -> None:
        pass

    def redact(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    "message",
    [NO_TLS, 'psql: error: connection to server failed: root certificate file "/nonexistent/stackhand" does not exist'],
)
def test_nobody_logs_in_to_the_console_to_see_whether_it_answers(message: str) -> None:
    """PgBouncer 1.18 ends when it looks up who is not in its auth_file for its console."""
    stage: Any = Stage(READ, psql=ExecResult(2, "", message))
    found = pgbouncer_console.collect(stage, "pool")
    assert (found.running, found.administered) == ({}, False)
    assert [env["PGDATABASE"] for _, _, env in stage.asked] == ["nobody"]
    # That is never sent: libpq stops before it, whatever it is told about TLS.
    assert stage.asked[0][2]["PGSSLMODE"] == "verify-full"


@pytest.mark.parametrize(
    ("entries", "known", "as_whom", "orders"),
    [
        ('"stats" "its password"', [], "stats", False),
        ('"boss" "its password"', [], "boss", True),
        ('"stats" "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"', [client("stats", "pgbouncer")], "stats", False),
        # In the auth_file with a verifier only; not in it at all, whatever a client has.
        ('"stats" "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"', [], None, False),
        ("", [client("stats", "pgbouncer")], None, False),
        ('"app" "its password"', [client("app", "shop")], None, False),
    ],
)
def test_only_who_is_in_the_auth_file_logs_in_to_the_console(
    entries: str, known: list[Client], as_whom: str | None, orders: bool
) -> None:
    stage: Any = Stage(
        f"{READ}\x1eusers /etc/users.txt\n{entries}\n", console=ExecResult(0, CONFIG) if as_whom else None, known=known
    )
    found = pgbouncer_console.collect(stage, "pool")
    assert [env["PGUSER"] for _, _, env in stage.asked[1:]] == ([as_whom] if as_whom else [])
    assert (bool(found.running), found.administered) == (bool(as_whom), orders)
    assert not any("password" in word for _, argv, _ in stage.asked for word in argv)
    assert "its password" not in repr(found)


REFUSED = ExecResult(2, "", "psql: error: connection to server failed: Connection refused")


@pytest.mark.parametrize(
    ("printed", "psql", "about", "kind"),
    [
        (READ, REFUSED, container("pool"), NoAnswer),
        # Its own healthcheck is content: it was asked in the wrong place.
        (READ, REFUSED, healthy("pool"), CannotAsk),
        # Where it listens is a guess.
        ("\x1enone \n", REFUSED, container("pool"), CannotAsk),
        (READ, ExecResult(2, "", 'psql: error: sslmode value "verify-full" invalid'), container("pool"), CannotAsk),
        ("\x1enone \n", ExecResult(127, ""), container("pool"), CannotAsk),
    ],
)
def test_silence(printed: str, psql: ExecResult, about: Container, kind: type[Exception]) -> None:
    stage: Any = Stage(printed, psql=psql, about=about)
    with pytest.raises(NoAnswer) as caught:
        pgbouncer_console.collect(stage, "pool")
    assert type(caught.value) is kind


def test_without_a_shell_it_cannot_be_asked() -> None:
    stage: Any = Stage(shell=False)
    with pytest.raises(CannotAsk, match="no shell in the container of pool"):
        pgbouncer_console.collect(stage, "pool")


@pytest.mark.parametrize(("about", "kind"), [(container("pool"), NoAnswer), (healthy("pool"), CannotAsk)])
def test_a_script_that_takes_too_long(about: Container, kind: type[Exception]) -> None:
    stage: Any = Stage(about=about)
    stage.shell = lambda *_, **__: ExecResult(None, "", "", 5.0)
    with pytest.raises(NoAnswer, match="no answer within 5 s") as caught:
        pgbouncer_console.collect(stage, "pool")
    assert type(caught.value) is kind


def test_psql_of_a_neighbour_will_do() -> None:
    stage: Any = Stage(READ, psql={"pool": ExecResult(127, ""), "db": ExecResult(2, "", NO_TLS)})
    assert pgbouncer_console.collect(stage, "pool").ini
    assert [(asker, env["PGHOST"]) for asker, _, env in stage.asked] == [("pool", "127.0.0.1"), ("db", "pool")]


def test_the_socket_is_asked_as_the_account_that_it_runs_under() -> None:
    read = "\x1eini /etc/pgbouncer.ini\n[pgbouncer]\nunix_socket_dir = /run\n"
    stage: Any = Stage(f"{read}\x1eaccount 70\n", f"{read}\x1econsole\n{CONFIG}")
    found = pgbouncer_console.collect(stage, "pool")
    assert stage.users == ["", "70"]
    assert (found.administered, found.account) == (True, "70")
    assert dict(found.console) == {"PGHOST": "/run", "PGPORT": "6432", "PGUSER": "pgbouncer"}


def test_who_only_asks_its_console_is_no_client_of_a_database() -> None:
    known = [client("stats", "pgbouncer", name="exporter"), client("pgbouncer", ""), client("app", "shop")]
    stage: Any = Stage(known=known)
    kind = PgBouncer()
    checks = {each.id: each for each in kind.checks()}
    assert [(each.status, each.subject) for each in checks["pgbouncer.database"].run(stage, "pool")] == [("ok", "shop")]
    assert list(checks["pgbouncer.userlist"].run(stage, "pool")) == []


def test_what_cannot_be_read_is_not_judged() -> None:
    stage: Any = Stage(known=[client("app", "shop")])
    stage.facts = stage.facts_of = lambda *_: Bouncer()
    checks = {each.id: each for each in PgBouncer().checks()}
    assert [each.status for each in checks["pgbouncer.database"].run(stage, "pool")] == ["skip"]


def test_warm_ups_go_through_the_pool() -> None:
    stage: Any = Stage(psql={"pool": ExecResult(127, ""), "db": ExecResult(0, "5")}, known=[client("app", "shop")])
    PgBouncer().warm(stage, "pool", "SELECT count(*) FROM products;")
    asker, argv, environment = stage.asked[-1]
    assert (asker, environment["PGHOST"], environment["PGPORT"]) == ("db", "pool", "6432")
    assert (environment["PGUSER"], environment["PGDATABASE"], environment["PGPASSWORD"]) == ("app", "shop", "s3cr3t")
    assert argv[-6:] == ["-c", "BEGIN READ ONLY", "-c", "SELECT count(*) FROM products", "-c", "ROLLBACK"]
    assert not any("s3cr3t" in word for word in argv)


def test_a_warm_up_names_its_database_where_there_are_several() -> None:
    known = [client("app", "shop"), client("app", "stock"), client("reader", "log", password="")]
    stage: Any = Stage(psql=ExecResult(0, "5"), known=known)
    PgBouncer().warm(stage, "pool", "stock: SELECT 1")
    assert stage.asked[-1][2]["PGDATABASE"] == "stock"
    with pytest.raises(StackError, match="which database") as caught:
        PgBouncer().warm(stage, "pool", "SELECT 1")
    assert caught.value.hint == "write it as DATABASE: QUERY"
    assert "shop, stock" in caught.value.message


def test_a_warm_up_that_fails_says_why() -> None:
    failed = ExecResult(1, "", 'ERROR:  relation "products" does not exist\nLINE 1: ...')
    stage: Any = Stage(psql=failed, known=[client("app", "shop")])
    with pytest.raises(StackError, match=r'psql in pool: relation "products" does not exist'):
        PgBouncer().warm(stage, "pool", "SELECT 1")


def test_orders_are_given_only_where_they_are_taken() -> None:
    stage: Any = Stage()
    with pytest.raises(StackError, match="the console of pool takes no commands: not allowed"):
        pgbouncer_console.run_command(stage, "pool", replace(PGBOUNCER_FACTS, console_problem="not allowed"), "RELOAD")
