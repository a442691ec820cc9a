"""Pending and half-applied migrations of the project's own.

Which there are is read from the files in the migrate service's container, which are applied from the table that its
tool keeps. What is pending is left to that service itself, run once more; what is half-applied is for a
person, and as long as there is any, nothing is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from stackhand.engine.project import Project
from stackhand.errors import StackError, did_you_mean
from stackhand.kinds.kind import Check, Fix, Kind, Unanswered, traits
from stackhand.kinds.pg.facts import Migrations, Server
from stackhand.kinds.pg.logins import ATTEMPTS, POSTGRES, links
from stackhand.kinds.scene import Scene
from stackhand.model import Finding
from stackhand.services.fixes.applied import TOOLS, Files, State
from stackhand.settings import Fixes

ID = "databases.migrations"
_WORDS = re.compile(
    r"(^|[^a-z])(migrate|migration|migrations|migrator|alembic|flyway|liquibase|goose|dbmate|sqitch|prisma|sqlx)([^a-z]|$)"
)
_ROOTS = ("/app", "/srv", "/flyway", "/")


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


def check(scene: Scene, service: str) -> Iterable[Finding]:
    """Check that all migrations are applied."""
    name, command = migrator(scene.project, scene.settings)
    if name and name not in scene.project.services and service == next(iter(scene.project.services)):
        yield _misnamed(scene.project, name)
    if service != name:
        return
    server, database = _target(scene, service)
    if not server:
        return
    tables = [each for each in _facts(scene, server).migrations if database in ("", each.database)]
    if not tables:
        return  # a tool that is not known here, or its first run is to come
    ready = _can_log_in(scene, server, service)
    for table in tables:
        files = _files(scene, service, table.table)
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
        run = f"docker compose run --rm --no-deps {service} {shlex.join(command)}".strip()
        return Finding(
            ID,
            service,
            "databases",
            "fail",
            f"{_count(state.pending)} pending: {_some(state.pending)}",
            evidence=f"{where} does not have what is in the migrate service's files",
            remedy=f"`{run}`",
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


def _apply(scene: Scene, finding: Finding) -> None:
    """Run the project's own migrations. Raises StackError."""
    name, command = migrator(scene.project, scene.settings)
    if any(each.status == "fail" and not each.fixable for each in check(scene, name)):
        raise StackError("a migration is half-applied; nothing is run")
    # In a container of its own: a start would also bring up to date what the service depends on.
    scene.hands.run(name, command)


def _target(scene: Scene, service: str) -> tuple[str, str]:
    """Return the Postgres service and the database whose migrations a service applies; ("", "") where that is open."""
    servers = scene.kinds.services(POSTGRES)
    for server in servers:
        for login in links(scene, server).direct:
            if service in login.clients:
                return server, login.database
    return (servers[0], "") if len(servers) == 1 else ("", "")


def _facts(scene: Scene, server: str) -> Server:
    kind: Kind[Any] = next(kind for kind in scene.kinds.of(server) if kind.name == POSTGRES)
    facts: Server = scene.facts(kind, server)
    return facts


def _can_log_in(scene: Scene, server: str, service: str) -> bool:
    try:
        tried = scene.facts(ATTEMPTS, server)
    except Unanswered:
        return True
    return not any(result.trouble for login, result in tried.items() if service in login.clients)


def _files(scene: Scene, service: str, table: str) -> Files | None:
    """Return the migration files of a service, out of its container, which may have ended."""
    container = next((each for each in scene.containers() if each.service == service), None)
    if container is None:
        return None
    tool = TOOLS[table]
    roots = dict.fromkeys([*scene.engine.homes(container.id), *_ROOTS])
    for folder in tool.folders:
        for root in roots:
            found = scene.engine.read_folder(container.id, f"{root.rstrip('/')}/{folder}")
            if found:
                return found
    return None


CHECKS = (Check(ID, "databases", check),)
FIXES = {ID: Fix("apply the migrations of", _apply)}
