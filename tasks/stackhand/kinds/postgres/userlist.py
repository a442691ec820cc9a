"""PgBouncer's auth_file: it has an entry for each client whose password is not looked up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from stackhand.checks import scripts
from stackhand.checks.check import Fix, Verdict, fail
from stackhand.checks.context import CheckContext
from stackhand.checks.exec import shell_argv
from stackhand.errors import StackError
from stackhand.kinds.postgres import pgbouncer_console
from stackhand.kinds.postgres.facts import administered_servers
from stackhand.kinds.postgres.login_map import login_map
from stackhand.kinds.postgres.pgbouncer_facts import Bouncer, bouncer_facts, logs_in_through, userlist_line
from stackhand.kinds.postgres.psql import literal

# With these PgBouncer needs no entry, or does not ask for a password: https://www.pgbouncer.org/config.html#auth_type
_WITHOUT_ENTRIES = ("any", "trust", "hba", "pam", "cert", "ldap")


def check_userlist(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that PgBouncer knows the password of each client, or looks it up."""
    facts = bouncer_facts(context, service)
    if not facts.ini or facts.setting("auth_type") in _WITHOUT_ENTRIES:
        return
    for client in {each.user: each for each in context.clients_of(service) if logs_in_through(each)}.values():
        entry = facts.lookup(client.database or client.user)
        if client.user not in facts.users and entry is not None and not facts.auth_user(entry):
            act = partial(add_user, context, service, facts, client.user)
            yield evaluate_missing_user(facts, client.user, Fix(f"add {client.user} to the auth_file of", act))


def evaluate_missing_user(facts: Bouncer, user: str, fix: Fix) -> Verdict:
    """Return the verdict about a client that PgBouncer does not know."""
    userlist = facts.userlist or "auth_file"
    # auth_type = plain needs the password itself, which is not written to a file.
    can = facts.userlist_writable and facts.administered and facts.setting("auth_type") != "plain"
    return fail(
        f"its auth_file has no entry for {user}, and passwords are not looked up",
        f"{userlist}: {', '.join(facts.users) or 'no entry'}",
        f'add the line "{user}" "VERIFIER" with rolpassword of pg_authid to {userlist}, then RELOAD on its console',
        subject=user,
        fix=fix if can else None,
    )


def add_user(context: CheckContext, service: str, facts: Bouncer, user: str) -> None:
    """Add a user with the verifier that the server has for it. Raises StackError."""
    text = f"SELECT rolpassword FROM pg_authid WHERE rolname = {literal(user)} AND rolcanlogin AND NOT rolsuper;"
    for name, server in administered_servers(context):
        if service not in login_map(context, name).bouncers:
            continue
        verifier = server.administrator.query(context, name, text).stdout.strip()
        if verifier:
            context.register_secret(verifier)
            environment = {"STACKHAND_LINE": userlist_line(user, verifier)}
            argv = shell_argv(scripts.read(__package__, "append_line.sh"), [facts.userlist])
            context.act(service, argv, environment=environment, user=facts.account)
            pgbouncer_console.run_command(context, service, facts, "RELOAD")
            return
    raise StackError(f"no server has a password for {user}")
