"""Asking a PgBouncer: its files in the container, its console, and a query through it; and giving it orders."""

from __future__ import annotations

import re
from dataclasses import replace

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.address import content, silent
from stackhand.kinds.postgres.pgbouncer_facts import (
    CONSOLE,
    MARK,
    Bouncer,
    is_verifier,
    parse,
    parse_config,
    parse_databases,
)
from stackhand.kinds.postgres.psql import complaints

_LONG = 60.0
_READ = r"""
show() { if [ -r "$1" ]; then printf '\036%s %s\n' "$2" "$1"; cat "$1"; fi; }
setting() { sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" $files 2>/dev/null | tail -n 1; }
account() { sed -n 's/^Uid:[[:space:]]*[0-9]*[[:space:]]*\([0-9]*\).*/\1/p' "$1/status"; }
ini=
for process in /proc/[0-9]*; do
    command=$(tr '\000' '\n' < "$process/cmdline" 2>/dev/null) || continue
    case "$(printf '%s\n' "$command" | head -n 1)" in
        pgbouncer | */pgbouncer) ini=$(printf '%s\n' "$command" | tail -n 1); break ;;
    esac
done
[ -r "$ini" ] || { printf '\036none %s\n' "$ini"; exit 0; }
show "$ini" ini
files=$ini
for file in $(sed -n 's/^%include[[:space:]]*//p' "$ini"); do show "$file" ini; files="$files $file"; done
userlist=$(setting auth_file)
if [ -n "$userlist" ]; then
    show "$userlist" users
    [ -w "$userlist" ] && printf '\036writable %s\n' "$userlist"
fi
# Anybody else is looked up, as a user of the console: see _known.
if [ "$(account "$process")" != "$(account /proc/self)" ]; then
    printf '\036account %s\n' "$(account "$process")"
    exit 0
fi
folder=$(setting unix_socket_dir)
grep -q '^[[:space:]]*unix_socket_dir' $files || folder=/tmp
port=$(setting listen_port)
if [ -n "$folder" ] && command -v psql > /dev/null; then
    printf '\036console\n'
    PGHOST=$folder PGPORT=${port:-6432} PGUSER=pgbouncer PGDATABASE=pgbouncer PGCONNECT_TIMEOUT=3 \
        psql -XAqw -F '	' -P footer=off -c 'SHOW CONFIG' -c "\\echo $(printf '\036')databases" -c 'SHOW DATABASES' 2>&1
fi
true
"""
_SHOW = ("-c", "SHOW CONFIG", "-c", f"\\echo {MARK}databases", "-c", "SHOW DATABASES")
# Asks only whether TLS is spoken, and goes no further whatever comes: libpq then looks for a file that is not there.
# Whoever logs in to find out is looked up, and PgBouncer 1.18 ends with a FATAL when one is looked up for its console.
_GREETING = {
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nonexistent/stackhand",
    "PGGSSENCMODE": "disable",
    "PGUSER": "nobody",
    "PGDATABASE": "nobody",
    "LC_ALL": "C",
}
_GREETED = re.compile(r"does not support SSL|root certificate file", re.IGNORECASE)


def look(context: CheckContext, service: str) -> Bouncer:
    """Read a PgBouncer's files and ask its console. Raises NoAnswer."""
    answer = context.shell(service, _READ)
    if answer.not_found:
        raise CannotAsk(f"there is no shell in the container of {service}")
    if answer.exit_code is None:
        raise (CannotAsk if content(context, service) else NoAnswer)(answer.last_error)
    found = parse(answer.stdout)
    if found.account:
        # It lets in only who runs as the same account.
        again = parse(context.shell(service, _READ, user=found.account).stdout)
        found = replace(again, account=found.account) if again.running else found
    for secret in (*found.users.values(), *(each.password for each in found.databases.values())):
        if secret:
            context.register_secret(secret)
    if not found.running:
        found = _over_network(context, service, found)
    return found


def _over_network(context: CheckContext, service: str, found: Bouncer) -> Bouncer:
    """Ask from any container that has psql: the console as somebody whose password is known, else only for a sign."""
    port = found.in_file("listen_port")
    problem = found.console_problem
    for asker in context.neighbours(service, stores=True):
        address = {"PGHOST": "127.0.0.1" if asker == service else service, "PGPORT": port, "PGCONNECT_TIMEOUT": "3"}
        greeting = context.ask(asker, ["psql", "-XAtqw", "-c", ""], environment={**address, **_GREETING})
        if greeting.not_found:
            continue  # no psql here
        if not _GREETED.search(greeting.stderr):
            _not_greeted(context, service, found, greeting.last_error)
        for user, password in _known(context, service, found):
            environment = {**address, "PGUSER": user, "PGPASSWORD": password}
            argv = ["psql", "-XAqw", "-F", "\t", "-P", "footer=off", *_SHOW]
            answer = context.ask(asker, argv, environment={**environment, "PGDATABASE": CONSOLE})
            if running := parse_config(answer.stdout):
                # Orders are given inside its own container.
                orders = asker == service and user in _listed(found.in_file("admin_users"))
                return replace(
                    found,
                    running=running,
                    databases=parse_databases(answer.stdout.partition(f"{MARK}databases\n")[2], found.databases),
                    administered=orders,
                    console=environment if orders else {},
                    console_problem="",
                )
            problem = context.redact(answer.last_error)
        return replace(found, console_problem=problem)  # it answers, and lets nobody in
    if not found.ini:
        raise CannotAsk(f"its configuration cannot be read, and no container on its networks has psql: {problem}")
    return found


def _not_greeted(context: CheckContext, service: str, found: Bouncer, complaint: str) -> None:
    """Raise NoAnswer, or CannotAsk where it may well answer somebody else, or somewhere else."""
    said = context.redact(complaint)
    if silent(said) and found.ini and not content(context, service):
        raise NoAnswer(said)
    raise CannotAsk(said)


def _known(context: CheckContext, service: str, found: Bouncer) -> list[tuple[str, str]]:
    """Return users of the console that are in the auth_file, with their passwords, those who may only look first.

    Nobody else is to be tried there: PgBouncer 1.18 ends when it looks up a user for its console (put_in_order).
    """
    given = {each.user: each.password for each in context.clients_of(service) if each.password}
    passwords = {user: given.get(user, "") if is_verifier(entry) else entry for user, entry in found.users.items()}
    allowed = dict.fromkeys(name for which in ("stats_users", "admin_users") for name in _listed(found.in_file(which)))
    return [(user, passwords[user]) for user in allowed if passwords.get(user)]


def _listed(text: str) -> list[str]:
    return [name.strip().strip('"') for name in text.split(",") if name.strip()]


def order(context: CheckContext, service: str, facts: Bouncer, command: str) -> None:
    """Give the console an order. Raises StackError."""
    if not facts.console:
        raise StackError(f"the console of {service} takes no orders: {facts.console_problem}")
    environment = {**facts.console, "PGCONNECT_TIMEOUT": "3", "PGDATABASE": CONSOLE}
    argv = ["psql", "-XAtqw", "-c", command]
    context.act(service, argv, environment=environment, timeout=10, user=facts.account)


def query(context: CheckContext, service: str, client: Client, port: int, text: str) -> None:
    """Carry out a query as a client does, from any container that has psql, and change nothing. Raises StackError."""
    environment = {
        "PGPORT": str(port),
        "PGUSER": client.user,
        "PGPASSWORD": client.password,
        "PGDATABASE": client.database or client.user,
        "PGAPPNAME": "stackhand",
    }
    statements = ("BEGIN READ ONLY", text.strip().rstrip(";"), "ROLLBACK")
    argv = ["psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", *(word for each in statements for word in ("-c", each))]
    for asker in context.neighbours(service, stores=True):
        address = {"PGHOST": "127.0.0.1" if asker == service else service}
        answer = context.ask(asker, argv, environment={**environment, **address}, timeout=_LONG)
        if answer.not_found:
            continue  # no psql here
        if not answer.ok:
            raise StackError(f"psql in {asker}: {context.redact(complaints(answer.stderr) or answer.last_error)}")
        return
    raise StackError(f"no container on the networks of {service} has psql")
