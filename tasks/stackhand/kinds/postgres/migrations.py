"""Pending and half-applied migrations of the project's own.

Which there are is read from the files in the migrate service's container, which are applied from the table that its
tool keeps; without that table, none are. What is pending is left to that service itself, run once more; what is
half-applied is for a person, and as long as there is any, nothing is run. What cannot be read is told, and skipped.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.legacy import Check, Fix
from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError, did_you_mean
from stackhand.kinds.postgres.facts import Migrations, Server
from stackhand.kinds.postgres.logins import ATTEMPTS, POSTGRES, links
from stackhand.kinds.postgres.migration_tools import (
    TOOLS,
    Files,
    State,
    is_empty,
    pending_of,
    record_of_another,
    tool_of,
)
from stackhand.model import Finding
from stackhand.settings import Fixes

ID = "databases.migrations"
_WORDS = re.compile(
    r"(^|[^a-z])(migrate|migration|migrations|migrator|alembic|flyway|liquibase|goose|dbmate|sqitch|prisma|sqlx)([^a-z]|$)"
)
_ROOTS = ("/app", "/srv", "/flyway", "/")
_PROGRAMS = frozenset({".py", ".sh", ".js", ".mjs", ".ts", ".rb"})


def migrator(project: Project, settings: Fixes) -> tuple[str, tuple[str, ...]]:
    """Return the service that applies migrations and the command to run in it; ("", ()) where there is none.

    An empty command is the service's own, as at its start.
    """
    if settings.migrate:
        name, _, command = settings.migrate.partition(":")
        return name.strip(), tuple(shlex.split(command))
    for name, service in project.services.items():
        words = " ".join((name, *traits(service).argv)).lower()
        if project.is_one_shot(name) and _WORDS.search(words):
            return name, ()
    return "", ()


def check(context: CheckContext, service: str) -> Iterable[Finding]:
    """Check that all migrations are applied."""
    name, command = migrator(context.project, context.settings)
    if name and name not in context.project.services and service == next(iter(context.project.services)):
        yield _misnamed(context.project, name)
    if service != name:
        return
    server, database = _target(context, service)
    if not server:
        yield _unread(service, "it is not known which Postgres server they are for")
        return
    facts = _facts(context, server)
    tables = [each for each in facts.migrations if database in ("", each.database)]
    ready = _can_log_in(context, server, service)
    if not tables:
        yield _without_record(context, service, command, facts, database, ready=ready)
    for table in tables:
        files = _files(context, service, table.table)
        if files is None:
            yield _unseen(service, table)
        else:
            state = TOOLS[table.table].judge(table.rows, files)
            yield judge(service, table, state, command, ready=ready)


def judge(service: str, table: Migrations, state: State, command: Sequence[str], *, ready: bool) -> Finding:
    """Return the finding about the migrations that one table tells of."""
    where = f"{table.schema}.{table.table} in {table.database}"
    if state.half:
        return Finding(
            ID,
            service,
            "databases",
            "fail",
            f"{_count(state.half)} half-applied: {_some(state.half)}",
            evidence=f"{where} says that it began and did not end; nothing is run while that is so",
            remedy="see what of it is in the database, finish or undo that by hand, then correct its row",
            subject=where,
        )
    if state.pending:
        return Finding(
            ID,
            service,
            "databases",
            "fail",
            f"{_count(state.pending)} pending: {_some(state.pending)}",
            evidence=f"{where} does not have what is in the migrate service's files",
            remedy=f"`{_run(service, command)}`",
            # Otherwise it is run once its role can log in again.
            fixable=ready,
            subject=where,
        )
    if state.ahead:
        return Finding(
            ID,
            service,
            "databases",
            "warn",
            f"the database is ahead of the files: {_some(state.ahead)}",
            evidence=f"{where} has what no file names",
            remedy="use the version of the project that has them",
            subject=where,
        )
    return Finding(ID, service, "databases", "ok", f"all migrations of {where} are applied", subject=where)


def _without_record(
    context: CheckContext, service: str, command: Sequence[str], facts: Server, database: str, *, ready: bool
) -> Finding:
    """Return the finding about a database that has no table of a tool that is known here."""
    rights = facts.rights.get(database)
    if rights is None:
        return _unread(service, facts.denied or f"the database {database or 'that they are for'} is not known")
    tables = [f"{each.schema}.{name}" for each in rights.things if each.kind == "r" for name in each.names]
    argv = tuple(command) or traits(context.project.services[service]).argv
    tool = tool_of(" ".join((service, context.project.services[service].image, *argv)))
    other = record_of_another(tables)
    if tool == "" or other:
        return _unread(service, f"their tool is not known here{f'; it may keep {other}' if other else ''}")
    known = tool or _in_program(context, service, argv)
    for table in [known] if known else TOOLS:
        pending = pending_of(table, _files(context, service, table) or {}, named=bool(tool))
        if pending and not known and not is_empty(tables):
            return _unread(service, f"no known table in {database} tells what is applied of {_some(pending)}")
        if pending:
            where = f"{table} in {database}"
            return judge_unrecorded(service, where, pending, command, empty=is_empty(tables), ready=ready)
    return _unread(service, f"no folder of migrations is in its container, and no table of them in {database}")


def judge_unrecorded(
    service: str, where: str, pending: Sequence[str], command: Sequence[str], *, empty: bool, ready: bool
) -> Finding:
    """Return the finding about migrations of which nothing says that any is applied.

    A database with tables in it has had some before its record was lost: nothing is run there.
    """
    summary = f"{_count(pending)} pending: {_some(pending)}"
    if empty:
        evidence, remedy = f"there is no {where}, nor any other table", f"`{_run(service, command)}`"
    else:
        evidence = f"there is no {where}, which tells what is applied, and there are other tables"
        remedy = "see which of them are in the database, and put back the record of those; nothing is run before that"
    return Finding(ID, service, "databases", "fail", summary, evidence, remedy, empty and ready, where)


def _in_program(context: CheckContext, service: str, argv: Sequence[str]) -> str | None:
    """Return the table of a tool that the project's own program names in its text, where that can be read."""
    for before, word in zip(("", *argv), argv, strict=False):
        path = PurePosixPath(f"{word.replace('.', '/')}.py" if before == "-m" else word)
        if path.suffix in _PROGRAMS and path.parent.name:
            files = _read(context, service, [str(path.parent)]) or {}
            found = next((table for table in TOOLS if table in files.get(path.name, "")), None)
            if found:
                return found
    return None


def _unread(service: str, why: str) -> Finding:
    summary = "whether its migrations are applied cannot be told"
    remedy = "its own command for that says it; `fixes.migrate` names the service, or another"
    return Finding(ID, service, "databases", "skip", summary, why, remedy)


def _run(service: str, command: Sequence[str]) -> str:
    return f"docker compose run --rm --no-deps {service} {shlex.join(command)}".strip()


def _count(names: Sequence[str]) -> str:
    return "1 migration is" if len(names) == 1 else f"{len(names)} migrations are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _misnamed(project: Project, name: str) -> Finding:
    return Finding(
        ID,
        None,
        "databases",
        "warn",
        f"fixes.migrate names {name}, and there is no such service",
        remedy=did_you_mean(name, list(project.services), "services"),
    )


def _unseen(service: str, table: Migrations) -> Finding:
    return Finding(
        ID,
        service,
        "databases",
        "skip",
        f"which migrations there are cannot be seen: no folder of them in the container of {service}",
        remedy="mount or copy them to migrations/ in its working directory",
        subject=f"{table.schema}.{table.table} in {table.database}",
    )


def _apply(context: CheckContext, finding: Finding) -> None:
    """Run the project's own migrations. Raises StackError."""
    name, command = migrator(context.project, context.settings)
    if any(each.status == "fail" and not each.fixable for each in check(context, name)):
        raise StackError("what is applied is for a person to see first; nothing is run")
    # In a container of its own: a start would also bring up to date what the service depends on.
    context.actions.run(name, command)


def _target(context: CheckContext, service: str) -> tuple[str, str]:
    """Return the Postgres service and the database whose migrations a service applies; ("", "") where that is open."""
    servers = context.kinds.services(POSTGRES)
    for server in servers:
        for login in links(context, server).direct:
            if service in login.clients:
                return server, login.database
    return (servers[0], "") if len(servers) == 1 else ("", "")


def _facts(context: CheckContext, server: str) -> Server:
    facts: Server = context.facts_of(POSTGRES, server)
    return facts


def _can_log_in(context: CheckContext, server: str, service: str) -> bool:
    try:
        tried = context.facts(ATTEMPTS, server)
    except NoAnswer:
        return True
    return not any(result.trouble for login, result in tried.items() if service in login.clients)


def _files(context: CheckContext, service: str, table: str) -> Files | None:
    """Return the migration files of a service, out of its container, which may have ended."""
    return _read(context, service, TOOLS[table].folders)


def _read(context: CheckContext, service: str, folders: Iterable[str]) -> Files | None:
    """Return the files of the first of some folders that there is: each as it stands, below the program's own."""
    container = next((each for each in context.containers() if each.service == service), None)
    if container is None:
        return None
    roots = list(dict.fromkeys([*context.engine.code_folders(container.id), *_ROOTS]))
    for folder in folders:
        for root in roots:
            found = context.engine.read_folder(container.id, str(PurePosixPath(root, folder)))
            if found:
                return found
    return None


CHECKS = (Check(ID, "databases", check),)
FIXES = {ID: Fix("apply the migrations of", _apply)}
