"""psql inside containers: as the database's administrator through its own socket, and as anybody over the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stackhand.checks import scripts
from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import value_of
from stackhand.checks.context import CheckContext
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres import address

# Keeps statements with a verifier out of the server's log, whatever it is configured to log.
# https://www.postgresql.org/docs/current/runtime-config-logging.html
_UNLOGGED = "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
# Seconds. A check must not hang behind a lock.
_STATEMENT_TIMEOUT = 4
_PING_TIMEOUT = 3.0
# The section without which nothing is known of the server.
_CLUSTER = re.compile(r'^\{"section" ?: ?"cluster"', re.MULTILINE)
_FORBIDDEN = re.compile(r"ERROR:\s+(permission denied|must be superuser)")
_DENIED = re.compile(r"authentication failed|no password supplied|FATAL:.* does not exist|no pg_hba\.conf entry")


class NoAdministrator(StackError):
    """Nobody inside the container may administer the database."""


@dataclass(frozen=True)
class Admin:
    """A way in as administrator: the superuser's role, and the account inside the container that psql runs under.

    An `account` of "" is the container's own. `environment` tells psql where the server listens, and the password.
    """

    role: str
    account: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def query(
        self, context: CheckContext, service: str, text: str, database: str = "postgres", *, limit: float = 10
    ) -> ExecResult:
        """Run a script that reads. A statement that fails does not stop the next one. `limit` is in seconds."""
        statement = context.within(_STATEMENT_TIMEOUT)
        options = f"-c statement_timeout={statement:.0f}s -c lock_timeout=1s -c default_transaction_read_only=on"
        return self._psql(context, service, text, database, options, limit)

    def execute(
        self,
        context: CheckContext,
        service: str,
        text: str,
        database: str = "postgres",
        *,
        limit: float = 60,
        wait: float = 5,
    ) -> ExecResult:
        """Run a script that changes something; it stops at the first error. Raises StackError.

        `limit` is for all of it, `wait` for each lock, both in seconds.
        """
        options = f"-c statement_timeout={limit:.0f}s -c lock_timeout={wait:.0f}s"
        answer = self._psql(context, service, f"\\set ON_ERROR_STOP on\n{text}", database, options, limit + 5)
        return _done(context, service, answer)

    def set_password(self, context: CheckContext, service: str, role: str, password: str) -> None:
        """Give a role a password. psql hashes it, so that the server gets a verifier only. Raises StackError.

        https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-META-COMMAND-PASSWORD
        """
        environment = {**self.environment, "STACKHAND_NEW": password, "PGOPTIONS": _UNLOGGED}
        if re.search(r"[\r\n]", password):
            raise StackError("a password with a line break in it cannot be set")
        words = (self.role, "postgres", f"\\password {identifier(role)}")
        script = _script("set_password.sh")
        answer = context.shell(service, script, *words, environment=environment, user=self.account, timeout=20)
        _done(context, service, answer)

    def set_verifier(self, context: CheckContext, service: str, role: str, verifier: str) -> None:
        """Give a role the password that a verifier belongs to. Raises StackError."""
        text = f"\\set ON_ERROR_STOP on\nALTER ROLE {identifier(role)} PASSWORD {literal(verifier)};"
        _done(context, service, self._psql(context, service, text, "postgres", _UNLOGGED, 20))

    def _psql(
        self, context: CheckContext, service: str, text: str, database: str, options: str, limit: float
    ) -> ExecResult:
        environment = {**self.environment, "STACKHAND_SQL": text, "PGOPTIONS": options, "PGCLIENTENCODING": "UTF8"}
        words = (self.role, database)
        script = _script("run_sql.sh")
        return context.shell(service, script, *words, environment=environment, user=self.account, timeout=limit)


def _script(name: str) -> str:
    """Return a script that runs psql, after the one that finds the server."""
    return scripts.read(__package__, "server_address.sh") + scripts.read(__package__, name)


def superusers(context: CheckContext, service: str) -> list[tuple[str, str]]:
    """Return the superusers that a service's image may have created, each with its password, "" for none."""
    definition = context.project.services[service]

    def value(name: str) -> str:
        return value_of(context.project, definition, name)

    # Variables of the official image (https://hub.docker.com/_/postgres), then those of Bitnami's.
    known = (
        (value("POSTGRES_USER"), value("POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRESQL_POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRESQL_PASSWORD")),
    )
    return [(role, password) for role, password in known if role]


def administrators(context: CheckContext, service: str) -> list[Admin]:
    """Return the ways to administer a Postgres service, the likeliest first."""
    passwords: dict[str, str] = {}
    for role, password in superusers(context, service):
        passwords[role] = passwords.get(role) or password
    server = address.server_address(context.project.services[service])
    ways = []
    for role, password in passwords.items():
        environment = {**server, "PGPASSWORD": password} if password else server
        ways += [Admin(role, account, environment) for account in ("", "postgres")]
    return ways


def first_answer(context: CheckContext, service: str, ways: Iterable[Admin], text: str) -> tuple[Admin, ExecResult]:
    """Return the first way that is let in and sees the whole server, with the answer to `text`.

    Raises NoAdministrator where none is let in; CannotAsk where there is no psql, or the server answers other questions
    than this one; NoAnswer where it does not answer.
    """
    denied: list[str] = []
    for way in ways:
        answer = way.query(context, service, text)
        if _CLUSTER.search(answer.stdout):
            return way, answer
        if not _refused(answer):
            raise _no_answer(context, service, way, answer)
        denied.append(answer.last_error)
    raise NoAdministrator(context.redact(denied[0]) if denied else "no superuser is known")


def _no_answer(context: CheckContext, service: str, way: Admin, answer: ExecResult) -> NoAnswer:
    """Return the error for a server of which nothing is known: NoAnswer, or CannotAsk where it is up all the same."""
    if answer.not_found:
        return CannotAsk(f"there is no psql in the container of {service}")
    message = context.redact(server_errors(answer.stderr) or answer.last_error)
    if "ERROR:" in answer.stderr:
        return CannotAsk(f"it answers, and does not say what was asked: {message}")
    if answer.exit_code is None and way.query(context, service, "SELECT 1;", limit=_PING_TIMEOUT).stdout.strip() == "1":
        return CannotAsk(f"it answers, and does not say all that was asked: {message}")
    if address.is_no_answer(message) and address.healthcheck_passes(context, service):
        return CannotAsk(f"its healthcheck passes, and it was not found: {message}")
    return NoAnswer(message)


def server_errors(stderr: str) -> str:
    """Return the errors of the server in psql's output, each once, or "".

    >>> server_errors("ERROR:  canceling statement\\nERROR:  canceling statement\\nHINT:  none")
    'canceling statement'
    """
    return "; ".join(dict.fromkeys(re.findall(r"(?:ERROR|FATAL):\s+(.*)", stderr)))


def _refused(answer: ExecResult) -> bool:
    """Return whether this administrator was refused: by the server, or by the engine for want of such an account."""
    message = answer.stdout + answer.stderr
    return bool(_DENIED.search(answer.stderr) or _FORBIDDEN.search(answer.stderr)) or "unable to find user" in message


def _done(context: CheckContext, service: str, answer: ExecResult) -> ExecResult:
    """Return the answer of psql. Raises StackError where it failed."""
    if not answer.ok:
        raise StackError(f"psql in {service}: {context.redact(server_errors(answer.stderr) or answer.last_error)}")
    return answer


def identifier(name: str) -> str:
    """Return a name as an SQL identifier, always quoted: roles and tables may be called `user` or `order`.

    >>> identifier('my "app')
    '"my ""app"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL string constant.

    >>> literal("it's"), literal("a\\\\b")
    ("'it''s'", "E'a\\\\\\\\b'")
    """
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def names(values: Sequence[str]) -> str:
    """Return names as an SQL array of type name[].

    >>> names(["a", "b"])
    "ARRAY['a', 'b']::name[]"
    """
    return f"ARRAY[{', '.join(map(literal, values))}]::name[]"
