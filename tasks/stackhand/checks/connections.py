"""Which service connects to which, as which user: read from the environment that the compose file gives each one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from stackhand.checks.traits import own_names
from stackhand.engine.compose.project import Project, Service

SECRETS = "/run/secrets"
# DATABASE_HOST, REDIS_HOSTNAME, PGHOST, BROKER_ADDR, database__host: what stands before the word groups the variables
# of one server.
_HOST = re.compile(r"^(?P<prefix>\w*?)_?(?P<word>HOST|HOSTNAME|SERVER|ADDR|ADDRESS)$", re.IGNORECASE)
_WORDS = {
    "port": ("PORT",),
    "user": ("USER", "USERNAME"),
    "database": ("NAME", "DB", "DATABASE", "DBNAME"),
    "password": ("PASSWORD", "PASS", "AUTH"),
}
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BETWEEN_URLS = re.compile(r"[;,]\s*(?=(?:jdbc:)?[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_ENDS_LIKE_A_URL = re.compile(r"_?(URL|URI|DSN)$", re.IGNORECASE)
_PAIRS = re.compile(r"^[\w.-]+:\d{1,5}(,\s*[\w.-]+:\d{1,5})*$")
# libpq's `host=db user=app` and .NET's `Server=db;User Id=app`.
_SETTINGS = {
    "host": "host", "server": "host", "data source": "host", "port": "port", "user": "user", "username": "user",
    "user id": "user", "uid": "user", "password": "password", "pwd": "password", "dbname": "database",
    "database": "database", "initial catalog": "database",
}  # fmt: skip
_DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "valkey": 6379, "valkeys": 6379,
                  "postgres": 5432, "postgresql": 5432, "postgis": 5432, "pgsql": 5432, "amqp": 5672, "amqps": 5671,
                  "mysql": 3306, "mariadb": 3306, "mongodb": 27017, "nats": 4222, "clickhouse": 9000}  # fmt: skip


@dataclass(frozen=True)
class Client:
    """One service's connection to another, as its environment has it. `variable` is where that is said."""

    service: str
    server: str
    host: str
    port: int | None
    variable: str
    scheme: str = ""
    user: str = ""
    database: str = ""
    path: str = ""
    password: str = field(default="", repr=False)


def clients(project: Project) -> list[Client]:
    """Return all connections between services that their environments name."""
    places = names(project)
    found: list[Client] = []
    for service in project.services.values():
        environment = {key: value for key, value in service.environment.items() if value}
        read = _reader(project, service)
        linked = {**places, **_links(service)}
        for way in (_from_urls, _from_settings, _from_pairs, _from_parts):
            for each in way(environment, read):
                server = linked.get(each.host.lower())
                if server and server != service.name:
                    found.append(Client(service.name, server, **vars(each)))
    return found


def secret_file(project: Project, service: Service, path: str) -> Path | None:
    """Return the file on this machine that is mounted at a path into the service's containers, where it is a secret."""
    for entry in service.raw.get("secrets") or ():
        target = entry.get("target") or entry["source"]
        if path == (target if target.startswith("/") else f"{SECRETS}/{target}"):
            return project.secret_files.get(entry["source"])
    return None


def secrets(project: Project, service: Service) -> dict[str, str]:
    """Return the values of a service's variables and secrets, by name. Variables that only name a file are left out."""
    read = _reader(project, service)
    found = {key: value for key, value in service.environment.items() if value and not key.endswith("_FILE")}
    for entry in service.raw.get("secrets") or ():
        target = entry.get("target") or entry["source"]
        value = read(target if target.startswith("/") else f"{SECRETS}/{target}")
        if value:
            found[entry["source"]] = value
    return found


def value_of(project: Project, service: Service, variable: str) -> str:
    """Return the value of a variable, of the file that `VARIABLE_FILE` names where there is one; "" for neither."""
    return _value({k: v for k, v in service.environment.items() if v}, variable, _reader(project, service))


_Read = Callable[[str], str]


@dataclass(frozen=True)
class _Parts:
    """A connection as one variable, or a group of them, describes it."""

    host: str
    port: int | None
    variable: str
    scheme: str = ""
    user: str = ""
    database: str = ""
    path: str = ""
    password: str = field(default="", repr=False)


def _reader(project: Project, service: Service) -> _Read:
    def read(path: str) -> str:
        file = secret_file(project, service, path)
        try:
            return file.read_text(encoding="utf-8").strip() if file else ""
        except (OSError, UnicodeDecodeError):
            return ""  # the start reports it: it needs the file, too

    return read


def _value(environment: Mapping[str, str], variable: str, read: _Read) -> str:
    return environment.get(variable) or read(environment.get(f"{variable}_FILE", ""))


def _texts(environment: Mapping[str, str], read: _Read) -> Iterable[tuple[str, str]]:
    """Yield each variable with its value, that of the file where it is only named."""
    for name in environment:
        variable = name.removesuffix("_FILE")
        if text := _value(environment, variable, read).strip():
            yield variable, text


def _group(environment: Mapping[str, str], prefix: str, read: _Read, *, lower: bool = False) -> dict[str, str]:
    """Return port, user, database and password from the variables that begin alike."""
    return {
        which: next(filter(None, (_value(environment, prefix + (w.lower() if lower else w), read) for w in words)), "")
        for which, words in _WORDS.items()
    }


def _from_urls(environment: Mapping[str, str], read: _Read) -> Iterable[_Parts]:
    for variable, text in _texts(environment, read):
        for each in _BETWEEN_URLS.split(text):
            plain = each.removeprefix("jdbc:")
            if not _URL.match(plain):
                continue
            try:
                url = urlsplit(plain)
                user, password = unquote(url.username or ""), unquote(url.password or "")
            except ValueError:
                continue  # no URL after all
            scheme = url.scheme.partition("+")[0].lower()
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            # Many clients are given the URL without a password, and the password in a variable beside it.
            beside = _group(environment, _ENDS_LIKE_A_URL.sub("_", variable), read)
            for address in (url.netloc.rpartition("@")[2] or query.get("host", "")).split(","):
                host, port = _address(address)
                yield _Parts(
                    host,
                    port or _DEFAULT_PORTS.get(scheme),
                    variable,
                    scheme,
                    user or query.get("user", "") or ("" if password else beside["user"]),
                    unquote(url.path.lstrip("/")),
                    url.path,
                    password or query.get("password", "") or beside["password"],
                )


def _from_settings(environment: Mapping[str, str], read: _Read) -> Iterable[_Parts]:
    for variable, text in _texts(environment, read):
        if "=" not in text or _URL.match(text):
            continue
        try:
            words = text.split(";") if ";" in text else shlex.split(text)
        except ValueError:
            continue  # a quote that is never closed
        pairs = (word.partition("=") for word in words if "=" in word)
        said = {_SETTINGS.get(key.strip().lower(), ""): value.strip() for key, _, value in pairs}
        for address in said.get("host", "").split(","):
            host, port = _address(address.removeprefix("tcp:"))
            user, database, password = (said.get(which, "") for which in ("user", "database", "password"))
            yield _Parts(host, port or _number(said.get("port", "")), variable, "", user, database, "", password)


def _from_pairs(environment: Mapping[str, str], read: _Read) -> Iterable[_Parts]:
    for variable, text in _texts(environment, read):
        if _PAIRS.match(text) and not _HOST.match(variable):
            for address in text.split(","):
                yield _Parts(*_address(address), variable)


def _from_parts(environment: Mapping[str, str], read: _Read) -> Iterable[_Parts]:
    for name, given in environment.items():
        found = _HOST.match(name)
        if not found or _URL.match(given):
            continue
        joint = "_" if name[: -len(found["word"])].endswith("_") else ""
        said = _group(environment, found["prefix"] + joint, read, lower=found["word"].islower())
        for address in given.split(","):
            host, port = _address(address)
            number = port or _number(said["port"])
            yield _Parts(host, number, name, "", said["user"], said["database"], "", said["password"])


def _address(text: str) -> tuple[str, int | None]:
    """Return host and port of `db`, `db:5432`, `::1` or `[::1]:5432`."""
    text = text.strip()
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, _number(port.lstrip(":"))
    if text.count(":") > 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _number(port)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def names(project: Project) -> dict[str, str]:
    """Return the service behind each name in the project's networks; a service's own name comes first."""
    found = {name.lower(): name for name in project.services}
    for service in project.services.values():
        own = own_names(service)
        # As the engine's name service has it: with the network's name behind, too.
        full = [f"{name}.{network}" for name in own for network in project.networks.values()]
        for name in (*own, *full, f"{project.name}-{service.name}-1"):
            found.setdefault(name.lower(), service.name)
    return found


def _links(service: Service) -> dict[str, str]:
    """Return the names that a service gives others by itself: `links: ["db:database"]`."""
    pairs = (str(link).partition(":") for link in service.raw.get("links") or ())
    return {(alias or name).lower(): name for name, _, alias in pairs}
