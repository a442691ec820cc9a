"""What is known of a Postgres server: the answer to one script, section by section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stackhand.checks.check import CannotAsk, NoAnswer, Verdict, skip
from stackhand.checks.context import CheckContext
from stackhand.errors import StackError
from stackhand.kinds.postgres.psql import Admin

POSTGRES = "postgres"

_DOCUMENT = re.compile(r'^(?=\{"section")', re.MULTILINE)


class Role(msgspec.Struct, frozen=True):
    """A role that may log in, or that a client, a PgBouncer or `fixes.roles` names.

    `fingerprint` is a hash of its password's verifier, "" where it has no password.
    """

    name: str
    login: bool = True
    superuser: bool = False
    expired: bool = False
    fingerprint: str = ""
    limit: int = -1
    settings: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()


class Cluster(msgspec.Struct, frozen=True, tag_field="section", tag="cluster"):
    """The server as a whole.

    `identifier` names its data (system_identifier of pg_control_system); `databases` are those that allow connections;
    `orphans` counts the idle sessions of roles that were dropped.
    """

    version: int
    identifier: str = ""
    recovery: bool = False
    settings: dict[str, str] = {}
    roles: tuple[Role, ...] = ()
    databases: tuple[str, ...] = ()
    orphans: int = 0


class Grant(msgspec.Struct, frozen=True, order=True):
    """Privileges of a role on objects of one schema. Names are as SQL has them, quoted where they have to be.

    `kind` is that of pg_default_acl (https://www.postgresql.org/docs/current/catalog-pg-default-acl.html): r tables and
    views, S sequences, f functions.
    """

    role: str
    schema: str
    kind: str
    privileges: tuple[str, ...]
    names: tuple[str, ...] = ()


class Default(msgspec.Struct, frozen=True, order=True):
    """What a role is given on each object that `owner` will create in a schema, or in any schema where that is ""."""

    role: str
    owner: str
    schema: str
    kind: str
    privileges: tuple[str, ...]


class SchemaInfo(msgspec.Struct, frozen=True):
    """A schema: which of the roles that were asked about may use it, and what each was given on it directly."""

    name: str
    usage: tuple[str, ...] = ()
    granted: dict[str, tuple[str, ...]] = {}


class Function(msgspec.Struct, frozen=True):
    """A function that an auth_query calls. `name` and `schema` are plain, not quoted."""

    schema: str
    name: str
    signature: str
    execute: tuple[str, ...] = ()


class Rights(msgspec.Struct, frozen=True, tag_field="section", tag="rights"):
    """What the roles that were asked about may do in one database.

    `missing` is what default privileges give and the role does not have. `configured` says of each configured grant
    whether it is in effect. `objects` lists all objects, without a role. `closed` says that there are tables or
    sequences that no extension brought, and that PUBLIC has no right on any of them.
    """

    database: str
    owner: str
    connect: tuple[str, ...] = ()
    schemas: tuple[SchemaInfo, ...] = ()
    held: tuple[Grant, ...] = ()
    defaults: tuple[Default, ...] = ()
    missing: tuple[Grant, ...] = ()
    owners: tuple[str, ...] = ()
    functions: tuple[Function, ...] = ()
    configured: dict[str, bool] = {}
    objects: tuple[Grant, ...] = ()
    closed: bool = False

    def schema(self, name: str) -> SchemaInfo:
        """Return the schema of this name, one that no role may use where it does not exist."""
        return next((each for each in self.schemas if each.name == name), SchemaInfo(name))


class Index(msgspec.Struct, frozen=True):
    """An index; sizes in bytes, `expected` being an estimate."""

    name: str
    table: str
    unique: bool = False
    size: int = 0
    expected: int = 0


class Maintenance(msgspec.Struct, frozen=True, tag_field="section", tag="maintenance"):
    """What the tables and indexes of one database need. `warmable` says that pg_prewarm is installed.

    `unanalysed` has the sizes of tables without statistics, in bytes.
    """

    database: str
    unanalysed: dict[str, int] = {}
    invalid: tuple[Index, ...] = ()
    bloated: tuple[Index, ...] = ()
    warmable: bool = False


class Migrations(msgspec.Struct, frozen=True, tag_field="section", tag="migrations"):
    """A table in which a migration tool keeps what it has applied."""

    database: str
    schema: str
    table: str
    rows: tuple[dict[str, Any], ...] = ()


Section = Cluster | Rights | Maintenance | Migrations


class Server(msgspec.Struct, frozen=True):
    """One Postgres server. `admin` is None where there is no way in as administrator; `denied` says why.

    `asked` are the databases that were asked about; `error` says which of the questions failed, and why.
    """

    admin: Admin | None = None
    denied: str = ""
    cluster: Cluster = Cluster(0)
    rights: Mapping[str, Rights] = {}
    maintenance: Mapping[str, Maintenance] = {}
    migrations: tuple[Migrations, ...] = ()
    asked: tuple[str, ...] = ()
    error: str = ""

    @property
    def administrator(self) -> Admin:
        """The way in as its administrator. Raises StackError where there is none."""
        if self.admin is None:
            raise StackError(self.denied)
        return self.admin

    def role(self, name: str) -> Role | None:
        """Return the role of this name, or None."""
        return next((each for each in self.cluster.roles if each.name == name), None)

    @property
    def available(self) -> int:
        """The number of connections for roles that are no superusers."""
        settings = self.cluster.settings
        reserved = int(settings.get("superuser_reserved_connections", 3)) + int(settings.get("reserved_connections", 0))
        return int(settings.get("max_connections", 0)) - reserved


def server_facts(context: CheckContext, service: str) -> Server:
    """Return the facts of a Postgres service. Raises NoAnswer."""
    server: Server = context.facts_of(POSTGRES, service)
    return server


def administered_servers(context: CheckContext) -> Iterable[tuple[str, Server]]:
    """Yield the project's Postgres services that answer an administrator, and their facts."""
    for name in context.kinds.services(POSTGRES):
        try:
            server = server_facts(context, name)
        except NoAnswer:
            continue  # its own check says so
        if server.admin is not None and server.available > 0:
            yield name, server


def unread(server: Server, sections: Mapping[str, Rights] | Mapping[str, Maintenance]) -> Iterable[Verdict]:
    """Yield a verdict for each database that exists and was asked about, and whose section did not come."""
    for database in server.asked:
        if database in server.cluster.databases and database not in sections:
            why = server.error or "the answer ended before it"
            yield skip(f"{database} could not be read", why, subject=database)


def parse(text: str, admin: Admin, asked: Sequence[str] = (), error: str = "") -> Server:
    """Read the answer to the script of `queries`: JSON documents, each of which begins a line.

    Raises CannotAsk without the section of the server as a whole: a role that could not be seen is not a missing one.
    """
    sections = [section for document in _DOCUMENT.split(text)[1:] if (section := _section(document))]
    cluster = next((each for each in sections if isinstance(each, Cluster)), None)
    if cluster is None:
        raise CannotAsk(error or "it answers, and does not say what was asked")
    return Server(
        admin,
        cluster=cluster,
        rights={each.database: each for each in sections if isinstance(each, Rights)},
        maintenance={each.database: each for each in sections if isinstance(each, Maintenance)},
        migrations=tuple(each for each in sections if isinstance(each, Migrations)),
        asked=tuple(asked),
        error=error,
    )


def _section(document: str) -> Section | None:
    """Return one section, None where the time limit has cut it off. Raises ValidationError for an unknown one."""
    try:
        section: Section = msgspec.json.decode(document, type=Section)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return None
    return section
