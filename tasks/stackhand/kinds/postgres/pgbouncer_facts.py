"""What is known of a PgBouncer: its files as they are in the container, and what its console says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stackhand.checks import scripts
from stackhand.checks.connections import Client
from stackhand.checks.context import CheckContext
from stackhand.kinds.postgres.psql import identifier

# PgBouncer's own defaults, as documented: https://www.pgbouncer.org/config.html
_DEFAULTS = {
    "listen_port": "6432",
    "unix_socket_dir": "/tmp",
    "default_pool_size": "20",
    "reserve_pool_size": "0",
    "auth_type": "md5",
    "server_login_retry": "15",
}
PGBOUNCER = "pgbouncer"
# The database that is its console.
CONSOLE = "pgbouncer"
# What a URL of a Postgres client begins with; "" for settings that are no URL.
SCHEMES = ("", "postgres", "postgresql")


@dataclass(frozen=True)
class DatabaseEntry:
    """One entry of [databases]: where it leads. `user` is the role that all its clients get, "" for their own.

    https://www.pgbouncer.org/config.html#section-databases
    """

    name: str
    host: str = ""
    port: int = 5432
    database: str = ""
    user: str = ""
    auth_user: str = ""
    pool_size: int | None = None
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Bouncer:
    """One PgBouncer: its settings in the file (`settings`) and those it runs with, its databases, its auth_file.

    `running` is empty where its console lets in no user that is known here. `administered` says that the console takes
    commands; `console` is the environment that psql needs for that. `account` is the one that PgBouncer runs under
    inside the container, "" where commands there run under the same.
    """

    ini: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    databases: Mapping[str, DatabaseEntry] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    userlist: str = ""
    userlist_writable: bool = False
    administered: bool = False
    console: Mapping[str, str] = field(default_factory=dict, repr=False)
    console_problem: str = ""
    account: str = ""

    def setting(self, name: str) -> str:
        """Return a setting as PgBouncer runs with it, as far as that is known."""
        return self.running.get(name) or self.in_file(name)

    def in_file(self, name: str) -> str:
        """Return a setting as the file has it, else PgBouncer's default."""
        return self.settings.get(name, _DEFAULTS.get(name, ""))

    def lookup(self, database: str) -> DatabaseEntry | None:
        """Return the entry of a database, that of `*` where it has none of its own, or None."""
        found = self.databases.get(database) or self.databases.get("*")
        if found is None:
            return None
        return found if found.database else DatabaseEntry(**{**vars(found), "database": database})

    def auth_user(self, entry: DatabaseEntry) -> str:
        """Return the role that looks up passwords for a database, "" for none."""
        return entry.auth_user or self.setting("auth_user")


def bouncer_facts(context: CheckContext, service: str) -> Bouncer:
    """Return the facts of a PgBouncer. Raises NoAnswer."""
    bouncer: Bouncer = context.facts_of(PGBOUNCER, service)
    return bouncer


def logs_in_through(client: Client) -> bool:
    """Return whether a client of a PgBouncer logs in through it, and does not only ask its console.

    A user of the console, an exporter's say, is no role of the server, and `pgbouncer` is no database.
    """
    return bool(client.user) and client.scheme in SCHEMES and (client.database or client.user) != CONSOLE


def parse(text: str) -> Bouncer:
    """Return what read_pgbouncer.sh printed."""
    settings: dict[str, str] = {}
    databases: dict[str, DatabaseEntry] = {}
    found: dict[str, str] = {}
    ini = userlist = account = ""
    for what, about, body in scripts.sections(text):
        if what == "ini":
            ini = ini or about
            own, entries = parse_ini(body)
            settings |= own
            databases |= entries
        elif what == "users":
            userlist = about
        elif what == "account":
            account = about
        found[what] = body
    console = found.get("console", "")
    running = parse_config(console)
    in_file = Bouncer(settings=settings).in_file
    socket = {
        "PGHOST": in_file("unix_socket_dir"),
        "PGPORT": in_file("listen_port"),
        "PGUSER": CONSOLE,
    }
    return Bouncer(
        ini=ini,
        settings=settings,
        databases=parse_databases(found.get("databases", ""), databases),
        running=running,
        users=parse_users(found.get("users", "")),
        userlist=userlist,
        userlist_writable="writable" in found,
        # The socket lets in its own account as the user pgbouncer, which may run commands.
        administered=bool(running),
        console=socket if running else {},
        account=account,
        console_problem="" if running else (console.strip().splitlines() or ["it has no unix socket"])[-1],
    )


def parse_ini(text: str) -> tuple[dict[str, str], dict[str, DatabaseEntry]]:
    """Return the settings and the databases of a configuration file.

    >>> parse_ini("[databases]\\napp = host=db dbname='the app'\\n")[1]["app"].database
    'the app'
    """
    settings: dict[str, str] = {}
    databases: dict[str, DatabaseEntry] = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in ";#%":
            continue
        if line.startswith("["):
            section = line.strip("[]").strip().lower()
            continue
        key, _, value = (word.strip() for word in line.partition("="))
        if section == "databases":
            name = key.strip('"').replace('""', '"')
            databases[name] = _entry(name, value)
        elif section == "pgbouncer":
            settings[key.lower()] = value
    return settings, databases


def _entry(name: str, value: str) -> DatabaseEntry:
    """Return the entry of a line `name = host=… port=… …`."""
    words = {
        found["key"].lower(): found["quoted"].replace("''", "'") if found["quoted"] is not None else found["plain"]
        for found in re.finditer(r"(?P<key>\w+)\s*=\s*(?:'(?P<quoted>(?:[^']|'')*)'|(?P<plain>[^\s;]*))", value)
    }
    size = words.get("pool_size", "")
    return DatabaseEntry(
        name,
        words.get("host", ""),
        _number(words.get("port", ""), 5432),
        words.get("dbname", "" if name == "*" else name),
        words.get("user", ""),
        words.get("auth_user", ""),
        int(size) if size.isdigit() else None,
        words.get("password", ""),
    )


def parse_users(text: str) -> dict[str, str]:
    """Return the passwords and verifiers of an auth_file, by user.

    >>> parse_users('"app" "it""s"\\n; a comment\\n')
    {'app': 'it"s'}
    """
    found = re.finditer(r'^\s*"((?:[^"]|"")*)"\s+"((?:[^"]|"")*)"', text, re.MULTILINE)
    return {each[1].replace('""', '"'): each[2].replace('""', '"') for each in found}


def parse_config(text: str) -> dict[str, str]:
    """Return the settings of SHOW CONFIG: key and value first, whatever newer versions append."""
    rows = [line.split("\t") for line in text.splitlines()]
    return {row[0]: row[1] for row in rows[1:] if len(row) > 1} if rows and rows[0][0] == "key" else {}


def parse_databases(text: str, known: Mapping[str, DatabaseEntry]) -> dict[str, DatabaseEntry]:
    """Return the entries as SHOW DATABASES has them; passwords and auth_user are in the file (`known`) only."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("name\t"):
        return dict(known)
    head = lines[0].split("\t")
    found = {name: each for name, each in known.items() if name == "*"}
    for line in lines[1:]:
        row = dict(zip(head, line.split("\t"), strict=False))
        name = row.get("name", "")
        if name in ("", CONSOLE):
            continue
        # A database that the file does not name came in by its `*`.
        in_file = known.get(name) or known.get("*") or DatabaseEntry(name)
        found[name] = DatabaseEntry(
            name,
            row.get("host") or in_file.host,
            _number(row.get("port", ""), in_file.port),
            row.get("database") or in_file.database or name,
            row.get("force_user") or in_file.user,
            in_file.auth_user,
            # The console gives every database a size: the default where it has none of its own.
            in_file.pool_size,
            in_file.password,
        )
    return found


def _number(text: str, default: int) -> int:
    return int(text) if text.isdigit() else default


def userlist_line(user: str, verifier: str) -> str:
    """Return a user's line of an auth_file. It is quoted as SQL quotes names."""
    return f"{identifier(user)} {identifier(verifier)}"


def is_verifier(text: str) -> bool:
    """Return whether an entry of an auth_file is a verifier, not a password."""
    return text.startswith("SCRAM-SHA-256$") or bool(re.fullmatch(r"md5[0-9a-f]{32}", text))
