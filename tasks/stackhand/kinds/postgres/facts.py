"""What is known of a Postgres server: the answer to one script, section by section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stackhand.checks.check import CannotAsk
from stackhand.kinds.postgres.psql import Admin
from stackhand.model import Finding

_DOCUMENT = re.compile(r'^(?=\{"section")', re.MULTILINE)


class Role(msgspec.Struct, frozen=True):
    """A role that may log in, or that somebody is interested in.

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

    `identifier` is that of its data, made with it; `databases` are those that let somebody in; `orphans` are idle
    sessions of roles that were dropped.
    """

    version: int
    identifier: str = ""
    recovery: bool = False
    settings: dict[str, str] = {}
    roles: tuple[Role, ...] = ()
    databases: tuple[str, ...] = ()
    orphans: int = 0


class Held(msgspec.Struct, frozen=True, order=True):
    """Privileges of a role on things of one schema. Names are as SQL has them, quoted where they have to be.

    `kind` is that of pg_default_acl: r tables and views, S sequences, f functions.
    """

    role: str
    schema: str
    kind: str
    privileges: tuple[str, ...]
    names: tuple[str, ...] = ()


class Default(msgspec.Struct, frozen=True, order=True):
    """What a role is given on everything that `owner` will make in a schema, or in all of them where that is ""."""

    role: str
    owner: str
    schema: str
    kind: str
    privileges: tuple[str, ...]


class Space(msgspec.Struct, frozen=True):
    """A schema: which roles of interest may use it, and what each was given on it directly."""

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
    """Who may do what in one database, as far as the roles of interest go.

    `missing` is what the database's default privileges give and the role does not have; `configured` says of each
    configured grant whether it is in effect; `things` are all there are, of no role; `closed` says that
    some of them are tables or sequences of no extension's, and none of those is open to everybody.
    """

    database: str
    owner: str
    connect: tuple[str, ...] = ()
    spaces: tuple[Space, ...] = ()
    held: tuple[Held, ...] = ()
    defaults: tuple[Default, ...] = ()
    missing: tuple[Held, ...] = ()
    owners: tuple[str, ...] = ()
    functions: tuple[Function, ...] = ()
    configured: dict[str, bool] = {}
    things: tuple[Held, ...] = ()
    closed: bool = False

    def space(self, name: str) -> Space:
        """Return the schema of this name, one that nobody may use where there is none."""
        return next((each for each in self.spaces if each.name == name), Space(name))


class Index(msgspec.Struct, frozen=True):
    """An index; sizes in bytes, `expected` being an estimate."""

    name: str
    table: str
    unique: bool = False
    size: int = 0
    expected: int = 0


class Upkeep(msgspec.Struct, frozen=True, tag_field="section", tag="upkeep"):
    """What one database lacks in care. `warmable` says that pg_prewarm is installed."""

    database: str
    unanalysed: dict[str, int] = {}
    invalid: tuple[Index, ...] = ()
    bloated: tuple[Index, ...] = ()
    warmable: bool = False


class Migrations(msgspec.Struct, frozen=True, tag_field="section", tag="migrations"):
    """The rows of a table that some migration tool keeps."""

    database: str
    schema: str
    table: str
    rows: tuple[dict[str, Any], ...] = ()


Section = Cluster | Rights | Upkeep | Migrations


class Server(msgspec.Struct, frozen=True):
    """One Postgres server. `admin` is None where nobody may administer it, `denied` says why.

    `asked` are the databases that were asked about, `complaint` is what the server refused to say.
    """

    admin: Admin | None = None
    denied: str = ""
    cluster: Cluster = Cluster(0)
    rights: Mapping[str, Rights] = {}
    upkeep: Mapping[str, Upkeep] = {}
    migrations: tuple[Migrations, ...] = ()
    asked: tuple[str, ...] = ()
    complaint: str = ""

    def role(self, name: str) -> Role | None:
        """Return the role of this name, or None."""
        return next((each for each in self.cluster.roles if each.name == name), None)

    @property
    def available(self) -> int:
        """How many connections there are for everybody who is no superuser."""
        settings = self.cluster.settings
        kept = int(settings.get("superuser_reserved_connections", 3)) + int(settings.get("reserved_connections", 0))
        return int(settings.get("max_connections", 0)) - kept


def unread(
    id: str, service: str, phase: str, server: Server, sections: Mapping[str, Rights] | Mapping[str, Upkeep]
) -> Iterable[Finding]:
    """Return the findings about databases that are there and were asked about, and of which these did not come."""
    for database in server.asked:
        if database in server.cluster.databases and database not in sections:
            said = server.complaint or "the answer ended before it"
            yield Finding(id, service, phase, "skip", f"{database} could not be read", said, subject=database)


def parse(text: str, admin: Admin, asked: Sequence[str] = (), complaint: str = "") -> Server:
    """Return the server of a script's answer: JSON documents, each beginning a line of its own.

    Raises CannotAsk where nothing came of the server as a whole: no role is missing because nobody could see it.
    """
    found = [section for each in _DOCUMENT.split(text)[1:] if (section := _section(each))]
    cluster = next((each for each in found if isinstance(each, Cluster)), None)
    if cluster is None:
        raise CannotAsk(complaint or "it answers, and does not say what was asked")
    return Server(
        admin,
        cluster=cluster,
        rights={each.database: each for each in found if isinstance(each, Rights)},
        upkeep={each.database: each for each in found if isinstance(each, Upkeep)},
        migrations=tuple(each for each in found if isinstance(each, Migrations)),
        asked=tuple(asked),
        complaint=complaint,
    )


def _section(document: str) -> Section | None:
    try:
        found: Section = msgspec.json.decode(document, type=Section)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return None  # cut off: the limit of time has passed while it was told
    return found
