"""The question to a Redis: the logins of its clients, the passwords that it was given, how it is reached."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from stackhand.checks.connections import Client, secret_file, secrets, value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.compose.project import Service
from stackhand.kinds.redis.acl import DEFAULT
from stackhand.kinds.redis.address import in_memory, option, options_for
from stackhand.output.secret_values import is_secret_name

_SCHEMES = frozenset({"", "redis", "rediss", "valkey", "valkeys"})
# `--requirepass "$(cat /run/secrets/password)"`
_FROM_FILE = re.compile(r"--requirepass\s+\$\(\s*(?:cat\s|<)\s*(?P<path>[^\s)]+)\s*\)")


@dataclass(frozen=True)
class Try:
    """A login to try, and the services that use it."""

    user: str
    password: str = field(repr=False)
    services: tuple[str, ...] = ()
    certain: bool = True


@dataclass(frozen=True)
class Question:
    """All that the script needs to ask a Redis.

    `tries` are the logins to try, `given` the passwords that the server has been given, `options` those of redis-cli.
    `password` is the default user's, as command line or environment have it; `requires_it` whether the command line
    has the option `--requirepass`; `in_memory` the folders that are empty at every start. `appends` and `directory`
    are what the command line says of `appendonly` and `dir`, None and "" where it says nothing.
    """

    tries: tuple[Try, ...] = ()
    given: tuple[str, ...] = field(default=(), repr=False)
    options: tuple[str, ...] = ()
    password: str = field(default="", repr=False)
    requires_it: bool = False
    in_memory: tuple[str, ...] = ()
    appends: bool | None = None
    directory: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The passwords that may be an administrator's."""
        return tuple(dict.fromkeys((*self.given, *(each.password for each in self.tries if each.password))))


def question_for(context: CheckContext, service: Service) -> Question:
    """Return what to ask a service with. Raises NoAnswer where no container of it runs."""
    found, shown = secrets(context.project, service).items(), traits(service)
    appends = shown.interpolate(option(shown, "--appendonly"))
    password = _own_password(context, service)
    return Question(
        tuple(_tries(context, service, password)),
        tuple(value for name, value in found if is_secret_name(name) or name in service.secrets),
        tuple(options_for(context, service)),
        password,
        "--requirepass" in shown.argv,
        tuple(in_memory(service)),
        {"yes": True, "no": False}.get(appends.lower()),
        shown.interpolate(option(shown, "--dir")),
    )


def _tries(context: CheckContext, service: Service, own_password: str) -> list[Try]:
    found: dict[tuple[str, str], Try] = {}
    for client in context.clients_of(service.name):
        if client.scheme not in _SCHEMES:
            continue
        key = (client.user if client.user != DEFAULT else "", client.password)
        before = found.get(key, Try(*key, certain=False))
        services = tuple(dict.fromkeys((*before.services, client.service)))
        found[key] = Try(*key, services, before.certain or _certain(client))
    # No client's login: the server's own, which may administer where there are no ACLs.
    own = ("", own_password)
    found.setdefault(own, Try(*own, certain=False))
    return list(found.values())


def _certain(client: Client) -> bool:
    """Return whether this is how the client logs in; a bare address may go with a password from elsewhere."""
    return bool(client.password) or bool(client.scheme and not client.user)


def _own_password(context: CheckContext, service: Service) -> str:
    """Return the password of the default user, as command line or environment have it."""
    shown = traits(service)
    told = option(shown, "--requirepass")
    file = _FROM_FILE.search(" ".join(shown.argv))
    if file:
        secret = secret_file(context.project, service, file["path"])
        with contextlib.suppress(OSError, UnicodeDecodeError):  # the start reports it: it needs the file, too
            return secret.read_text(encoding="utf-8").strip() if secret else ""
        return ""
    variable = re.match(r"\$\{?(\w+)", told)
    usual = () if told else ("REDIS_PASSWORD", "VALKEY_PASSWORD", "REQUIREPASS")
    for name in (variable[1],) if variable else usual:
        if value := value_of(context.project, service, name):
            return value
    filled = shown.interpolate(told)
    return "" if filled.startswith("$") else filled
