"""Pending and half-applied migrations of the project's own.

All migrations are the files in the migrate service's container; the applied ones are in the table that its tool keeps;
without that table, none is applied. Pending ones are applied by running that service once more. A half-applied one is
left to a person, and nothing is run before it is settled. What cannot be read is skipped, with the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

from stackhand.checks.check import Check, Fix, NoAnswer, Verdict, fail, ok, skip, warn
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Project
from stackhand.errors import StackError, did_you_mean
from stackhand.kinds.postgres.facts import POSTGRES, Migrations, Server, server_facts
from stackhand.kinds.postgres.login_attempts import attempts
from stackhand.kinds.postgres.login_map import login_map
from stackhand.kinds.postgres.migration_tools import (
    TOOLS,
    Files,
    MigrationState,
    is_empty,
    pending_of,
    record_of_another,
    tool_of,
)
from stackhand.settings import Fixes

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


def check_migrations(context: CheckContext, service: str) -> Iterable[Verdict]:
    """Check that all migrations are applied."""
    name, command = migrator(context.project, context.settings)
    services = list(context.project.services)
    if name and name not in services and service == services[0]:
        remedy = did_you_mean(name, services, "services")
        verdict = warn(f"fixes.migrate names {name}, and there is no such service", remedy=remedy)
        yield replace(verdict, about_service=False)
    if service != name:
        return
    server, database = _target(context, service)
    if not server:
        yield _cannot_tell("it is not known which Postgres server they are for")
        return
    facts = server_facts(context, server)
    run = MigrationRun(service, command, server, partial(apply, context), ready=_can_log_in(context, server, service))
    tables = [each for each in facts.migrations if database in ("", each.database)]
    if not tables:
        yield _without_record(context, run, facts, database)
    for table in tables:
        files = _files(context, service, table.table)
        if files is None:
            yield skip(
                f"which migrations there are cannot be seen: no folder of them in the container of {service}",
                remedy="mount or copy them to migrations/ in its working directory",
                subject=_name(table),
            )
        else:
            yield evaluate(table, TOOLS[table.table].evaluate(table.rows, files), run)


@dataclass(frozen=True)
class MigrationRun:
    """How pending migrations are applied: the service, its command, and the server that they are for.

    It is offered as a fix where the service can log in to the server (`ready`); else once its role is put right.
    """

    service: str
    command: tuple[str, ...]
    server: str
    act: Callable[[], None]
    ready: bool = True

    @property
    def command_line(self) -> str:
        """The run as a person would type it."""
        return f"docker compose run --rm --no-deps {self.service} {shlex.join(self.command)}".strip()

    @property
    def fix(self) -> Fix | None:
        """The run as a fix, None where the service cannot log in."""
        return Fix("apply the migrations of", self.act) if self.ready else None

    @property
    def blames(self) -> tuple[str, ...]:
        """The server, where that does not let the service in."""
        return () if self.ready else (self.server,)


def evaluate(table: Migrations, state: MigrationState, run: MigrationRun) -> Verdict:
    """Return the verdict about the migrations that one table records."""
    where = _name(table)
    if state.partial:
        return fail(
            f"{_count(state.partial)} half-applied: {_some(state.partial)}",
            f"{where} says that it began and did not end; nothing is run while that is so",
            "see what of it is in the database, finish or undo that by hand, then correct its row",
            subject=where,
        )
    if state.pending:
        return fail(
            f"{_count(state.pending)} pending: {_some(state.pending)}",
            f"{where} does not have what is in the migrate service's files",
            f"`{run.command_line}`",
            subject=where,
            fix=run.fix,
            blames=run.blames,
        )
    if state.unknown:
        return warn(
            f"the database is ahead of the files: {_some(state.unknown)}",
            f"{where} has what no file names",
            "use the version of the project that has them",
            subject=where,
        )
    return ok(f"all migrations of {where} are applied", subject=where)


def _name(table: Migrations) -> str:
    return f"{table.schema}.{table.table} in {table.database}"


def _without_record(context: CheckContext, run: MigrationRun, facts: Server, database: str) -> Verdict:
    """Return the verdict about a database that has no table of a tool that is known here."""
    rights = facts.rights.get(database)
    if rights is None:
        return _cannot_tell(facts.denied or f"the database {database or 'that they are for'} is not known")
    tables = [f"{each.schema}.{name}" for each in rights.objects if each.kind == "r" for name in each.names]
    service = context.project.services[run.service]
    argv = run.command or traits(service).argv
    tool = tool_of(" ".join((run.service, service.image, *argv)))
    other = record_of_another(tables)
    if tool == "" or other:
        return _cannot_tell(f"their tool is not known here{f'; it may keep {other}' if other else ''}")
    known = tool or _in_program(context, run.service, argv)
    for table in [known] if known else TOOLS:
        pending = pending_of(table, _files(context, run.service, table) or {}, named=bool(tool))
        if pending and not known and not is_empty(tables):
            return _cannot_tell(f"no known table in {database} tells what is applied of {_some(pending)}")
        if pending:
            return evaluate_unrecorded(f"{table} in {database}", pending, run, empty=is_empty(tables))
    return _cannot_tell(f"no folder of migrations is in its container, and no table of them in {database}")


def evaluate_unrecorded(where: str, pending: Sequence[str], run: MigrationRun, *, empty: bool) -> Verdict:
    """Return the verdict about migrations without a record of what is applied.

    A database that has tables has lost its record of them: nothing is run there.
    """
    summary = f"{_count(pending)} pending: {_some(pending)}"
    if empty:
        evidence = f"there is no {where}, nor any other table"
        return fail(summary, evidence, f"`{run.command_line}`", subject=where, fix=run.fix, blames=run.blames)
    return fail(
        summary,
        f"there is no {where}, which tells what is applied, and there are other tables",
        "see which of them are in the database, and put back the record of those; nothing is run before that",
        subject=where,
    )


def _in_program(context: CheckContext, service: str, argv: Sequence[str]) -> str | None:
    """Return the table of a known tool that the project's own program mentions, where its text can be read."""
    for before, word in zip(("", *argv), argv, strict=False):
        path = PurePosixPath(f"{word.replace('.', '/')}.py" if before == "-m" else word)
        if path.suffix in _PROGRAMS and path.parent.name:
            files = _read(context, service, [str(path.parent)]) or {}
            found = next((table for table in TOOLS if table in files.get(path.name, "")), None)
            if found:
                return found
    return None


def _cannot_tell(why: str) -> Verdict:
    """Return the verdict where nothing can be said."""
    remedy = "its own command for that says it; `fixes.migrate` names the service, or another"
    return skip("whether its migrations are applied cannot be told", why, remedy)


def _count(names: Sequence[str]) -> str:
    return "1 migration is" if len(names) == 1 else f"{len(names)} migrations are"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def apply(context: CheckContext) -> None:
    """Run the project's own migrations. Raises StackError."""
    name, command = migrator(context.project, context.settings)
    if any(each.status == "fail" and each.fix is None for each in check_migrations(context, name)):
        raise StackError("what is applied is for a person to see first; nothing is run")
    # In a container of its own: a start would also bring up to date what the service depends on.
    context.actions.run(name, command)


def _target(context: CheckContext, service: str) -> tuple[str, str]:
    """Return the Postgres service and the database that a service migrates; ("", "") where that is not known."""
    servers = context.kinds.services(POSTGRES)
    for server in servers:
        for login in login_map(context, server).direct:
            if service in login.clients:
                return server, login.database
    return (servers[0], "") if len(servers) == 1 else ("", "")


def _can_log_in(context: CheckContext, server: str, service: str) -> bool:
    """Return whether no login of a service to a server failed; it is not known to fail where it cannot be tried."""
    try:
        tried = attempts(context, server)
    except NoAnswer:
        return True
    return not any(result.trouble for login, result in tried.items() if service in login.clients)


def _files(context: CheckContext, service: str, table: str) -> Files | None:
    """Return the migration files in the container of a service, which may have ended."""
    return _read(context, service, TOOLS[table].folders)


def _read(context: CheckContext, service: str, folders: Iterable[str]) -> Files | None:
    """Return the files of the first folder that exists, each tried below the homes of the program."""
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


CHECKS = (Check("databases.migrations", "databases", check_migrations),)
