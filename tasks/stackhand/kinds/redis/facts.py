"""What Redis says of itself, asked with one script inside its container: logins, users, memory, persistence."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.connections import Client, secret_file, secrets, value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult
from stackhand.engine.compose.project import Service
from stackhand.kinds.redis.acl import DEFAULT, User, digest, users_of
from stackhand.kinds.redis.address import config_of, in_memory, option, places, reached
from stackhand.kinds.redis.script import SCRIPT
from stackhand.output.redact import is_secret_name

_SCHEMES = frozenset({"", "redis", "rediss", "valkey", "valkeys"})
_MEMORY = "redis_in_vain"
_REFUSED = re.compile(r"could not connect|connection refused|connection reset|server closed", re.IGNORECASE)
_BUSY = re.compile(r"LOADING|MASTERDOWN")
# `--requirepass "$(cat /run/secrets/password)"`
_FROM_FILE = re.compile(r"--requirepass\s+\$\(\s*(?:cat\s|<)\s*(?P<path>[^\s)]+)\s*\)")


@dataclass(frozen=True)
class Login:
    """What came of logging in as clients do. `certain` is whether their password is known here at all."""

    user: str
    services: tuple[str, ...]
    answer: str
    digest: str = field(default="", repr=False)
    certain: bool = True
    given: bool = False
    """Whether the server has been given this password, too, by a secret or a variable."""

    @property
    def ok(self) -> bool:
        """Whether it is logged in; it need not be allowed to PING."""
        return self.answer == "PONG" or self.answer.startswith("NOPERM")


@dataclass(frozen=True)
class Account:
    """A user with its password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class RedisFacts:
    """What Redis said.

    `users` are those in its memory, None where nobody may see them; `declared` those that its ACL file or its
    configuration has, as they will be after a start; `aclfile` is "" where there is none. `written_at_start` is
    whether that file is made anew at every start, `ephemeral` whether its data is gone with a restart, `in_vain` those
    users whom the restart that this run of it began with did not bring back; `options` are those of redis-cli by which
    it is reached.
    """

    logins: tuple[Login, ...] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, User] | None = None
    declared: Mapping[str, User] = field(default_factory=dict)
    aclfile: str = ""
    written_at_start: bool = False
    admin: Account | None = None
    ephemeral: bool = False
    in_vain: frozenset[str] = frozenset()
    appends: bool = False
    memory_limit: int = 0
    queue_of: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def look(context: CheckContext, service: str) -> RedisFacts:
    """Ask Redis. Raises NoAnswer where it does not speak Redis' protocol or is still loading, CannotAsk."""
    about = context.project.services[service]
    tries = _tries(context, about)
    known = [
        value
        for name, value in secrets(context.project, about).items()
        if is_secret_name(name) or name in about.secrets
    ]
    keys = list(dict.fromkeys([*known, *(each.password for each in tries if each.password)]))
    shown, options = traits(about), reached(context, about)
    environment = {
        "OPTIONS": " ".join(options),
        "LOGINS": str(len(tries)),
        "KEYS": str(len(keys)),
        "ACLFILE": option(shown, "--aclfile"),
        "CONFIG": config_of(shown),
        "PLACES": " ".join(places(about)),
    }
    for number, each in enumerate(tries):
        environment |= {f"USER_{number}": each.user, f"PASS_{number}": each.password}
    environment |= {f"KEY_{number}": key for number, key in enumerate(keys)}
    parts = _parts(_ask(context, service, environment))
    return replace(read(context, about, tries, keys, frozenset(known), parts), options=tuple(options))


@dataclass(frozen=True)
class Try:
    """A login to try: who uses it, and with what."""

    user: str
    password: str = field(repr=False)
    services: tuple[str, ...] = ()
    certain: bool = True


def _tries(context: CheckContext, service: Service) -> list[Try]:
    found: dict[tuple[str, str], Try] = {}
    for client in context.clients_of(service.name):
        if client.scheme not in _SCHEMES:
            continue
        key = (client.user if client.user != DEFAULT else "", client.password)
        before = found.get(key, Try(*key, certain=False))
        services = tuple(dict.fromkeys((*before.services, client.service)))
        found[key] = Try(*key, services, before.certain or _certain(client))
    own = ("", _own_password(context, service))
    # Nobody's login: the server's own, which may administer where there are no ACLs.
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
        with contextlib.suppress(OSError, UnicodeDecodeError):  # told by the start, which needs it as well
            return secret.read_text(encoding="utf-8").strip() if secret else ""
        return ""
    variable = re.match(r"\$\{?(\w+)", told)
    usual = () if told else ("REDIS_PASSWORD", "VALKEY_PASSWORD", "REQUIREPASS")
    for name in (variable[1],) if variable else usual:
        if value := value_of(context.project, service, name):
            return value
    filled = shown.filled(told)
    return "" if filled.startswith("$") else filled


def _ask(context: CheckContext, service: str, environment: Mapping[str, str]) -> str:
    answer = context.shell(service, SCRIPT, environment=environment)
    if answer.not_found:
        answer = _ask_from_beside(context, service, environment)
    if answer.exit_code is None:
        raise NoAnswer(f"no answer within {answer.seconds:.0f} s")
    if not answer.ok:
        raise CannotAsk(f"it could not be asked: {answer.last_error}")
    return answer.stdout


def _ask_from_beside(context: CheckContext, service: str, environment: Mapping[str, str]) -> ExecResult:
    for neighbour in context.neighbours(service)[1:]:
        options = f"-h {service} {environment['OPTIONS']}".strip()
        answer = context.shell(neighbour, SCRIPT, environment={**environment, "OPTIONS": options, "PLACES": "/nowhere"})
        if not answer.not_found:
            return answer
    raise CannotAsk("neither its container nor one on its networks has a redis-cli", "put redis-cli into its image")


def _parts(text: str) -> list[tuple[str, str]]:
    """Return the parts of the script's output, each with its title."""
    pieces = re.split(r"^@@ (.*)$", text.replace("\r", ""), flags=re.MULTILINE)
    return [(title, body.strip("\n")) for title, body in zip(pieces[1::2], pieces[2::2], strict=True)]


def read(
    context: CheckContext,
    service: Service,
    tries: Sequence[Try],
    keys: Sequence[str],
    known: frozenset[str],
    parts: Iterable[tuple[str, str]],
) -> RedisFacts:
    """Return the facts of what the script printed. Raises NoAnswer where no server answered."""
    logins: list[Login] = []
    one: dict[str, str] = {}
    files: dict[str, str] = {}
    configs: dict[str, str] = {}
    admin: Account | None = None
    for title, body in parts:
        word, _, rest = title.partition(" ")
        if word == "login":
            each = tries[int(rest)]
            given = each.password in known
            logins.append(Login(each.user or DEFAULT, each.services, body, digest(each.password), each.certain, given))
        elif word == "admin":
            which, _, number = rest.partition(" ")
            password = tries[int(number)].password if which == "login" else keys[int(number)]
            admin = Account(body, password)
        elif word in ("file", "config"):
            (files if word == "file" else configs)[rest] = body
        else:
            one[word] = body
    container = context.running(service.name)
    silent = [login.answer for login in logins if _REFUSED.search(login.answer) or _BUSY.search(login.answer)]
    if silent and len(silent) == len(logins):
        said = silent[0].splitlines()[0]
        if container and container.health == "healthy" and not any(_BUSY.search(each) for each in silent):
            raise CannotAsk(
                f"where it listens is not known: its healthcheck is content, and there is no answer here: {said}",
                "a healthcheck with `redis-cli -p PORT`, or `--port PORT` in its command, says where",
            )
        raise NoAnswer(said)
    directives = [line.split(None, 1) for body in configs.values() for line in body.splitlines() if " " in line]
    aclfile = _second(one.get("aclfile", "")) if admin else next(iter(files), "")
    directory = _second(one.get("dir", "")) or next((value for key, value in directives if key == "dir"), "")
    declared = users_of(files[aclfile] if aclfile in files else "\n".join(configs.values()))
    for key, value in directives:
        if key == "requirepass":
            context.register_secret(value.strip("\"'"))
            declared.setdefault(DEFAULT, _by_password(value.strip("\"'")))
    if "--requirepass" in traits(service).argv:
        declared.setdefault(DEFAULT, _by_password(_own_password(context, service)))
    memory = in_memory(service)
    info = dict(line.split(":", 1) for line in one.get("info", "").splitlines() if ":" in line)
    listed = one.get("users", "")
    return RedisFacts(
        logins=tuple(login for login in logins if login.services),
        info=info,
        users=users_of(listed) if listed.startswith("user ") else None,
        declared=declared,
        aclfile=aclfile,
        written_at_start=_below(aclfile, memory),
        admin=admin,
        ephemeral=_below(directory, memory),
        in_vain=_in_vain(context, service.name, container.run_key if container else ""),
        # Of several configurations that were found it is not known which one is used.
        appends=info.get("aof_enabled") == "1"
        or (not info and len(configs) == 1 and ["appendonly", "yes"] in directives),
        memory_limit=container.memory_limit if container else 0,
        queue_of=tuple(
            dict.fromkeys(
                client.service
                for client in context.clients_of(service.name)
                if client.service in context.kinds.services("celery")
            )
        ),
    )


def remember_in_vain(context: CheckContext, service: str, users: Collection[str]) -> None:
    """Remember that the restart which the container's run began with did not bring back these users."""
    everybody = context.engine.containers(context.project.name)
    runs = [each.run_key for each in everybody if each.service == service and each.running]
    if users and runs:
        mark = {"run": runs[0], "users": sorted(users)}
        context.state.update(_MEMORY, lambda known: {**(known or {}), service: mark})


def _in_vain(context: CheckContext, service: str, run: str) -> frozenset[str]:
    known = (context.state.recall(_MEMORY) or {}).get(service) or {}
    return frozenset(known.get("users") or ()) if known.get("run") == run else frozenset()


def _by_password(password: str) -> User:
    return User(DEFAULT, hashes=frozenset({digest(password)} - {""}))


def _second(answer: str) -> str:
    """Return the value of a CONFIG GET answer, which has two lines."""
    lines = answer.splitlines()
    return lines[1].strip() if len(lines) > 1 else ""


def _below(path: str, folders: Iterable[str]) -> bool:
    return bool(path) and any(PurePosixPath(path).is_relative_to(folder) for folder in folders)
