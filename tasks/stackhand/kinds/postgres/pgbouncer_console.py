"""Asks a PgBouncer: its files in the container, its console, a query through it. Runs commands on its console."""

from __future__ import annotations

import re
from dataclasses import replace

from stackhand.checks import scripts
from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.checks.exec import first_able
from stackhand.checks.scripts import MARK
from stackhand.engine.api.exec import ExecResult
from stackhand.errors import StackError
from stackhand.kinds.postgres.address import healthcheck_passes, is_no_answer
from stackhand.kinds.postgres.pgbouncer_facts import (
    CONSOLE,
    Bouncer,
    is_verifier,
    parse,
    parse_config,
    parse_databases,
)
from stackhand.kinds.postgres.psql import server_errors

_CONNECT_TIMEOUT, _QUERY_TIMEOUT = 3.0, 60.0
_SHOW = ("-c", "SHOW CONFIG", "-c", f"\\echo {MARK}databases", "-c", "SHOW DATABASES")
# For psql: asks only whether the other side speaks TLS. libpq goes no further, as there is no such root certificate.
# A login would be looked up, and PgBouncer 1.18 ends with a FATAL when it looks up a user for its console.
_GREETING = {
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nonexistent/stackhand",
    "PGGSSENCMODE": "disable",
    "PGUSER": "nobody",
    "PGDATABASE": "nobody",
    "LC_ALL": "C",
}
_GREETED = re.compile(r"does not support SSL|root certificate file", re.IGNORECASE)


def collect(context: CheckContext, service: str) -> Bouncer:
    """Read a PgBouncer's files and ask its console. Raises NoAnswer."""
    script = scripts.read(__package__, "read_pgbouncer.sh")
    answer = context.shell(service, script)
    if answer.not_found:
        raise CannotAsk(f"there is no shell in the container of {service}")
    if answer.exit_code is None:
        raise (CannotAsk if healthcheck_passes(context, service) else NoAnswer)(answer.last_error)
    found = parse(answer.stdout)
    if found.account:
        # Its socket lets in its own account only.
        again = parse(context.shell(service, script, user=found.account).stdout)
        found = replace(again, account=found.account) if again.running else found
    for secret in (*found.users.values(), *(each.password for each in found.databases.values())):
        if secret:
            context.register_secret(secret)
    if not found.running:
        found = _over_network(context, service, found)
    return found


def _over_network(context: CheckContext, service: str, found: Bouncer) -> Bouncer:
    """Ask from any container that has psql: whether it answers at all, and then its console as a user of the auth_file.

    Raises NoAnswer, and CannotAsk where nothing can be said.
    """
    port = found.in_file("listen_port")

    def greet(place: str) -> ExecResult:
        environment = {**_address(context, service, place, port), **_GREETING}
        return context.ask(place, ["psql", "-XAtqw", "-c", ""], environment=environment)

    greeting = first_able(context.neighbours(service, stores=True), greet)
    if greeting is None:
        if found.ini:
            return found
        problem = found.console_problem
        raise CannotAsk(f"its configuration cannot be read, and no container on its networks has psql: {problem}")
    if not _GREETED.search(greeting.result.stderr):
        _raise_no_greeting(context, service, found, greeting.result.last_error)
    return _ask_console(context, service, found, greeting.place)


def _ask_console(context: CheckContext, service: str, found: Bouncer, place: str) -> Bouncer:
    """Ask the console from a container, as one user after another that may be tried, and add what it says."""
    problem = found.console_problem
    address = _address(context, service, place, found.in_file("listen_port"))
    for user, password in _console_users(context, service, found):
        environment = {**address, "PGUSER": user, "PGPASSWORD": password}
        argv = ["psql", "-XAqw", "-F", "\t", "-P", "footer=off", *_SHOW]
        answer = context.ask(place, argv, environment={**environment, "PGDATABASE": CONSOLE})
        if running := parse_config(answer.stdout):
            # Commands are run inside its own container only.
            administered = place == service and user in _names_in(found.in_file("admin_users"))
            return replace(
                found,
                running=running,
                databases=parse_databases(answer.stdout.partition(f"{MARK}databases\n")[2], found.databases),
                administered=administered,
                console=environment if administered else {},
                console_problem="",
            )
        problem = context.redact(answer.last_error)
    return replace(found, console_problem=problem)


def _address(context: CheckContext, service: str, place: str, port: str) -> dict[str, str]:
    """Return the environment by which psql finds a PgBouncer from the container of a service, its own or another."""
    host, limit = "127.0.0.1" if place == service else service, context.within(_CONNECT_TIMEOUT)
    return {"PGHOST": host, "PGPORT": port, "PGCONNECT_TIMEOUT": f"{limit:.0f}"}


def _raise_no_greeting(context: CheckContext, service: str, found: Bouncer, error: str) -> None:
    """Raise NoAnswer, or CannotAsk where it may answer other clients, or at another address."""
    message = context.redact(error)
    if is_no_answer(error) and found.ini and not healthcheck_passes(context, service):
        raise NoAnswer(message)
    raise CannotAsk(message)


def _console_users(context: CheckContext, service: str, found: Bouncer) -> list[tuple[str, str]]:
    """Return the console's users whose password is known from the auth_file, those that may only read first.

    No other user may be tried: PgBouncer 1.18 ends when it looks up a user for its console (FATAL in put_in_order).
    """
    given = {each.user: each.password for each in context.clients_of(service) if each.password}
    passwords = {user: given.get(user, "") if is_verifier(entry) else entry for user, entry in found.users.items()}
    allowed = dict.fromkeys(
        name for which in ("stats_users", "admin_users") for name in _names_in(found.in_file(which))
    )
    return [(user, passwords[user]) for user in allowed if passwords.get(user)]


def _names_in(text: str) -> list[str]:
    """Return the names of a list such as that of `admin_users`."""
    return [name.strip().strip('"') for name in text.split(",") if name.strip()]


def run_command(context: CheckContext, service: str, facts: Bouncer, command: str) -> None:
    """Run a command on the console. Raises StackError."""
    if not facts.console:
        raise StackError(f"the console of {service} takes no commands: {facts.console_problem}")
    environment = {**facts.console, "PGDATABASE": CONSOLE}
    argv = ["psql", "-XAtqw", "-c", command]
    context.act(service, argv, environment=environment, timeout=10, user=facts.account)


def run_query(context: CheckContext, service: str, client: Client, port: int, text: str) -> None:
    """Run a query as a client does, from any container that has psql, and change nothing. Raises StackError."""
    environment = {
        "PGPORT": str(port),
        "PGUSER": client.user,
        "PGPASSWORD": client.password,
        "PGDATABASE": client.database or client.user,
        "PGAPPNAME": "stackhand",
    }
    statements = ("BEGIN READ ONLY", text.strip().rstrip(";"), "ROLLBACK")
    argv = ["psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", *(word for each in statements for word in ("-c", each))]

    def ask(place: str) -> ExecResult:
        host = "127.0.0.1" if place == service else service
        return context.ask(place, argv, environment={**environment, "PGHOST": host}, timeout=_QUERY_TIMEOUT)

    answer = first_able(context.neighbours(service, stores=True), ask)
    if answer is None:
        raise StackError(f"no container on the networks of {service} has psql")
    if not answer.result.ok:
        problem = server_errors(answer.result.stderr) or answer.result.last_error
        raise StackError(f"psql in {answer.place}: {context.redact(problem)}")
