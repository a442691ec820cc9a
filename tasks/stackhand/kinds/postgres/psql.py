"""psql inside containers: as the database's administrator through its own socket, and as anybody over the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import value_of
from stackhand.checks.context import CheckContext
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres import address as place

# The text goes through the environment and stdin: `\gexec`, `\if` and `\connect` work from there only, and a command
# line is seen by everybody.
#
# psql takes the place of the shell. In most containers of Postgres the postmaster is process 1, and so becomes the
# parent of whatever is left behind by a shell that was cut off; when such a process then ends in any other way than
# with 0 or 1, the postmaster takes it for a crashed backend and restarts all of them.
_FEED = f"""{place.FOUND}exec psql -XAtqw -U "$1" -d "$2" <<STACKHAND_END
$STACKHAND_SQL
STACKHAND_END"""
# Without a terminal psql reads the two answers to \password from stdin.
_PASSWORD = f"""{place.FOUND}exec psql -XAtqw -v ON_ERROR_STOP=1 -U "$1" -d "$2" -c "$3" <<STACKHAND_END
$STACKHAND_NEW
$STACKHAND_NEW
STACKHAND_END"""
# Nothing that has a verifier in it stands in the server's log, whatever that is configured to log.
_UNLOGGED = "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
_STATEMENT_LIMIT = 4  # seconds: a look must not hang behind somebody's lock
_SHORT = 3.0
# What the first look is to bring: without it nothing at all is known of the server.
_WHOLE = re.compile(r'^\{"section" ?: ?"cluster"', re.MULTILINE)
_FORBIDDEN = re.compile(r"ERROR:\s+(permission denied|must be superuser)")
_DENIED = re.compile(r"authentication failed|no password supplied|FATAL:.* does not exist|no pg_hba\.conf entry")


class NoAdministrator(StackError):
    """Nobody inside the container may administer the database."""


@dataclass(frozen=True)
class Admin:
    """As whom the database is administered: a superuser's role, and the account that psql runs under ("": its own)."""

    role: str
    account: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def query(
        self, context: CheckContext, service: str, text: str, database: str = "postgres", *, limit: float = 10
    ) -> ExecResult:
        """Read with a script; a statement that fails leaves the others."""
        options = f"-c statement_timeout={_STATEMENT_LIMIT}s -c lock_timeout=1s -c default_transaction_read_only=on"
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
        """Change something, and stop at the first error. `limit` is for all of it, `wait` for a lock, in seconds.

        Raises StackError when it fails.
        """
        options = f"-c statement_timeout={limit:.0f}s -c lock_timeout={wait:.0f}s"
        answer = self._psql(context, service, f"\\set ON_ERROR_STOP on\n{text}", database, options, limit + 5)
        return _done(context, service, answer)

    def set_password(self, context: CheckContext, service: str, role: str, password: str) -> None:
        """Give a role its password; psql hashes it, so the server gets only a verifier. Raises StackError."""
        environment = {**self.environment, "STACKHAND_NEW": password, "PGOPTIONS": _UNLOGGED}
        if re.search(r"[\r\n]", password):
            raise StackError("a password with a line break in it cannot be set")
        words = (self.role, "postgres", f"\\password {identifier(role)}")
        answer = context.shell(service, _PASSWORD, *words, environment=environment, user=self.account, timeout=20)
        _done(context, service, answer)

    def set_verifier(self, context: CheckContext, service: str, role: str, verifier: str) -> None:
        """Give a role a verifier that exists already. Raises StackError."""
        text = f"\\set ON_ERROR_STOP on\nALTER ROLE {identifier(role)} PASSWORD {literal(verifier)};"
        _done(context, service, self._psql(context, service, text, "postgres", _UNLOGGED, 20))

    def _psql(
        self, context: CheckContext, service: str, text: str, database: str, options: str, limit: float
    ) -> ExecResult:
        environment = {**self.environment, "STACKHAND_SQL": text, "PGOPTIONS": options, "PGCLIENTENCODING": "UTF8"}
        words = (self.role, database)
        return context.shell(service, _FEED, *words, environment=environment, user=self.account, timeout=limit)


def accounts(context: CheckContext, service: str) -> list[tuple[str, str]]:
    """Return the superusers that a Postgres service may have been made with, each with its password, "" for none."""
    made = context.project.services[service]

    def value(name: str) -> str:
        return value_of(context.project, made, name)

    # The names of the official image, then those of Bitnami's.
    known = (
        (value("POSTGRES_USER"), value("POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRESQL_POSTGRES_PASSWORD")),
        ("postgres", value("POSTGRESQL_PASSWORD")),
    )
    return [(role, password) for role, password in known if role]


def administrators(context: CheckContext, service: str) -> list[Admin]:
    """Return the ways to administer a Postgres service, the likeliest first."""
    ways: dict[str, str] = {}
    for role, password in accounts(context, service):
        ways[role] = ways.get(role) or password
    here = place.where(context.project.services[service])
    found = []
    for role, password in ways.items():
        environment = {**here, "PGPASSWORD": password} if password else here
        found += [Admin(role, account, environment) for account in ("", "postgres")]
    return found


def first_answer(context: CheckContext, service: str, ways: Iterable[Admin], text: str) -> tuple[Admin, ExecResult]:
    """Return the first way that lets us in and see the whole server, with the answer.

    Raises NoAdministrator; CannotAsk where there is no psql, or the server answers and could not say what it was asked;
    NoAnswer for no answer.
    """
    denied: list[str] = []
    for way in ways:
        answer = way.query(context, service, text)
        if _WHOLE.search(answer.stdout):
            return way, answer
        if not _refused(answer):
            raise _unanswered(context, service, way, answer)
        denied.append(answer.last_error)
    raise NoAdministrator(context.redact(denied[0]) if denied else "no superuser is known")


def _unanswered(context: CheckContext, service: str, way: Admin, answer: ExecResult) -> NoAnswer:
    """Return why nothing is known of a server that was asked."""
    if answer.not_found:
        return CannotAsk(f"there is no psql in the container of {service}")
    said = context.redact(complaints(answer.stderr) or answer.last_error)
    if "ERROR:" in answer.stderr:
        return CannotAsk(f"it answers, and does not say what was asked: {said}")
    if answer.exit_code is None and way.query(context, service, "SELECT 1;", limit=_SHORT).stdout.strip() == "1":
        return CannotAsk(f"it answers, and does not say all that was asked: {said}")
    if place.silent(said) and place.content(context, service):
        return CannotAsk(f"its healthcheck is content, and it was not to be found: {said}")
    return NoAnswer(said)


def complaints(stderr: str) -> str:
    """Return what the server refused to do, each once; "" for nothing.

    >>> complaints("ERROR:  canceling statement\\nERROR:  canceling statement\\nHINT:  none")
    'canceling statement'
    """
    return "; ".join(dict.fromkeys(re.findall(r"(?:ERROR|FATAL):\s+(.*)", stderr)))


def _refused(answer: ExecResult) -> bool:
    # "unable to find user postgres": the container has no such account.
    said = answer.stdout + answer.stderr
    return bool(_DENIED.search(answer.stderr) or _FORBIDDEN.search(answer.stderr)) or "unable to find user" in said


def _done(context: CheckContext, service: str, answer: ExecResult) -> ExecResult:
    if not answer.ok:
        raise StackError(f"psql in {service}: {context.redact(complaints(answer.stderr) or answer.last_error)}")
    return answer


def identifier(name: str) -> str:
    """Return a name as SQL has it. Always quoted: `user` and `order` are names that roles and tables have.

    >>> identifier('my "app')
    '"my ""app"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as SQL has it.

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
