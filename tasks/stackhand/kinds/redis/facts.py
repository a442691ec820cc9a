"""Facts of a Redis, asked with one script inside its container: logins, users, memory, persistence.

`collect` asks. All else here is pure: `parse` reads what the script printed, `require_answer` says whether a server
answered at all, and `derive` makes the facts that the checks judge.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.exec import first_able
from stackhand.checks.traits import traits
from stackhand.engine.api.containers import Container
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.redis.acl import DEFAULT, User, digest, users_of
from stackhand.kinds.redis.address import config_of, option, places
from stackhand.kinds.redis.question import Question, question_for

_REFUSED = re.compile(r"could not connect|connection refused|connection reset|server closed", re.IGNORECASE)
_BUSY = re.compile(r"LOADING|MASTERDOWN")
_DENIED = re.compile(r"\bDENIED\b")


@dataclass(frozen=True)
class Login:
    """The result of a login as clients do it.

    `certain` is whether their password is known here at all; `given` whether the server has been given it as well, by
    a secret or a variable.
    """

    user: str
    services: tuple[str, ...]
    answer: str
    digest: str = field(default="", repr=False)
    certain: bool = True
    given: bool = False

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
class RawAnswers:
    """The output of the script: the answer to each try, texts by path, and other answers as they came.

    `admin` is the user who may administer, and where the password is: "login 2" or "key 0".
    """

    logins: Mapping[int, str] = field(default_factory=dict)
    admin: tuple[str, str] | None = None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    configs: Mapping[str, str] = field(default_factory=dict, repr=False)
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RedisFacts:
    """The facts of a Redis.

    `users` are those in its memory, None where nobody may see them; `declared` those that its ACL file or its
    configuration has, as they will be after a start; `aclfile` is "" where there is none. `written_at_start` is
    whether every start writes that file again, `ephemeral` whether a restart loses its data, `appends` whether it
    writes each change to disk. `options` are those of redis-cli by which it is reached.
    `refusal` is what it says to all clients over the network, where it lets none in. `cluster` is what
    CLUSTER INFO says, of a server that is part of one.
    """

    logins: tuple[Login, ...] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, User] | None = None
    declared: Mapping[str, User] = field(default_factory=dict)
    aclfile: str = ""
    written_at_start: bool = False
    admin: Account | None = None
    ephemeral: bool = False
    appends: bool = False
    memory_limit: int = 0
    options: tuple[str, ...] = ()
    refusal: str = ""
    cluster: Mapping[str, str] = field(default_factory=dict)


def collect(context: CheckContext, service: str) -> RedisFacts:
    """Ask Redis. Raises NoAnswer where it does not speak Redis' protocol or is still loading, CannotAsk."""
    question = question_for(context, context.project.services[service])
    raw = parse(_ask(context, service, question))
    container = context.running(service)
    require_answer(raw, container)
    facts, passwords = derive(raw, question, container)
    for password in passwords:
        context.register_secret(password)
    return facts


def _ask(context: CheckContext, service: str, question: Question) -> str:
    """Return what the script prints in the service's container or, where that has no redis-cli, in a neighbour's."""
    definition = context.project.services[service]
    shown = traits(definition)
    environment = {
        "LOGINS": str(len(question.tries)),
        "KEYS": str(len(question.keys)),
        "ACLFILE": option(shown, "--aclfile"),
        "CONFIG": config_of(shown),
    }
    for number, each in enumerate(question.tries):
        environment |= {f"USER_{number}": each.user, f"PASS_{number}": each.password}
    environment |= {f"KEY_{number}": key for number, key in enumerate(question.keys)}

    def ask(place: str) -> ExecResult:
        options, folders, network = " ".join(question.options), " ".join(places(definition)), _network(context, service)
        if place != service:
            # The files there are not the server's.
            options, folders, network = f"-h {service} {options}".strip(), "/nowhere", ""
        if "-s" in question.options:
            network = ""
        variables = {**environment, "OPTIONS": options, "PLACES": folders, "NETWORK": network}
        return context.shell(place, scripts.read(__package__, "probe.sh"), environment=variables)

    found = first_able(context.neighbours(service), ask)
    if found is None:
        raise CannotAsk("neither its container nor one on its networks has a redis-cli", "put redis-cli into its image")
    answer = found.result
    if answer.exit_code is None:
        raise NoAnswer(answer.last_error)
    if not answer.ok:
        raise CannotAsk(f"it could not be asked: {answer.last_error}")
    return answer.stdout


def _network(context: CheckContext, service: str) -> str:
    """Return the option of redis-cli by which the container is reached at its own address, "" where it has none."""
    addresses = (each.address for each in context.container(service).attachments.values())
    return next((f"-h {address}" for address in addresses if address), "")


def parse(text: str) -> RawAnswers:
    """Return what the script printed.

    >>> parse("\\036login 0\\nPONG\\n\\036dir\\ndir\\n/data").others
    {'dir': 'dir\\n/data'}
    """
    logins: dict[int, str] = {}
    files: dict[str, str] = {}
    configs: dict[str, str] = {}
    others: dict[str, str] = {}
    admin: tuple[str, str] | None = None
    for name, about, body in scripts.sections(text):
        if name == "login":
            logins[int(about)] = body
        elif name == "admin":
            admin = (body, about)
        elif name == "file":
            files[about] = body
        elif name == "config":
            configs[about] = body
        else:
            others[name] = body
    return RawAnswers(logins, admin, files, configs, others)


def require_answer(raw: RawAnswers, container: Container | None) -> None:
    """Raise NoAnswer where no login got an answer of Redis; CannotAsk where it may listen elsewhere."""
    silent = [answer for answer in raw.logins.values() if _REFUSED.search(answer) or _BUSY.search(answer)]
    if not silent or len(silent) < len(raw.logins):
        return
    said = silent[0].splitlines()[0]
    if container and container.health == "healthy" and not any(_BUSY.search(answer) for answer in silent):
        raise CannotAsk(
            f"where it listens is not known: its healthcheck passes, and there is no answer here: {said}",
            "a healthcheck with `redis-cli -p PORT`, or `--port PORT` in its command, says where",
        )
    raise NoAnswer(said)


def derive(raw: RawAnswers, question: Question, container: Container | None) -> tuple[RedisFacts, list[str]]:
    """Return the facts that follow from raw answers, and passwords that were found in a configuration."""
    settings = [line.split(None, 1) for text in raw.configs.values() for line in text.splitlines() if " " in line]
    passwords = [value.strip("\"'") for key, value in settings if key == "requirepass"]
    admin = _admin(raw, question)
    aclfile = _second(raw.others.get("aclfile", "")) if admin else next(iter(raw.files), "")
    directory = _second(raw.others.get("dir", "")) or question.directory
    directory = directory or next((value for key, value in settings if key == "dir"), "")
    info, cluster = _pairs(raw.others.get("info", "")), _pairs(raw.others.get("cluster", ""))
    listed = raw.others.get("users", "")
    # Of several configurations that were found it is not known which one is used.
    configured_to_append = question.appends
    if configured_to_append is None:
        configured_to_append = len(raw.configs) == 1 and ["appendonly", "yes"] in settings
    facts = RedisFacts(
        logins=tuple(login for login in _logins(raw, question) if login.services),
        info=info,
        users=users_of(listed) if listed.startswith("user ") else None,
        declared=_declared(raw, question, aclfile, passwords),
        aclfile=aclfile,
        written_at_start=_below(aclfile, question.in_memory),
        admin=admin,
        ephemeral=_below(directory, question.in_memory),
        appends=info.get("aof_enabled") == "1" or (not info and configured_to_append),
        memory_limit=container.memory_limit if container else 0,
        options=question.options,
        refusal=_refusal(raw),
        cluster=cluster,
    )
    return facts, passwords


def _pairs(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines()) if value}


def _refusal(raw: RawAnswers) -> str:
    """Return what it says over the network to everybody, whatever the password; "" where that gets in."""
    said = raw.others.get("network", "")
    if not _REFUSED.search(said):
        said = next((each for each in (said, *raw.logins.values()) if _DENIED.search(each)), "")
    # Redis explains its protected mode at length.
    return said.partition("\n")[0].partition(" because ")[0]


def _logins(raw: RawAnswers, question: Question) -> Iterable[Login]:
    for number, answer in raw.logins.items():
        tried = question.tries[number]
        given = tried.password in question.given
        yield Login(tried.user or DEFAULT, tried.services, answer, digest(tried.password), tried.certain, given)


def _admin(raw: RawAnswers, question: Question) -> Account | None:
    if raw.admin is None:
        return None
    user, place = raw.admin
    which, _, number = place.partition(" ")
    return Account(user, question.tries[int(number)].password if which == "login" else question.keys[int(number)])


def _declared(raw: RawAnswers, question: Question, aclfile: str, passwords: Sequence[str]) -> Mapping[str, User]:
    """Return the users that there will be after a start."""
    declared = users_of(raw.files[aclfile] if aclfile in raw.files else "\n".join(raw.configs.values()))
    for password in (*passwords, *([question.password] if question.requires_it else ())):
        declared.setdefault(DEFAULT, User(DEFAULT, hashes=frozenset({digest(password)} - {""})))
    return declared


def _second(answer: str) -> str:
    """Return the value of a CONFIG GET answer, which has two lines."""
    lines = answer.splitlines()
    return lines[1].strip() if len(lines) > 1 else ""


def _below(path: str, folders: Collection[str]) -> bool:
    return bool(path) and any(PurePosixPath(path).is_relative_to(folder) for folder in folders)
