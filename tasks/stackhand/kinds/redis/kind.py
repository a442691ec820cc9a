"""The kind redis, and what speaks its protocol: Valkey, KeyDB."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from stackhand.checks.check import NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import Kind
from stackhand.checks.legacy import Check, Fix
from stackhand.checks.traits import Traits
from stackhand.errors import StackError
from stackhand.kinds.redis.acl import DEFAULT, User
from stackhand.kinds.redis.facts import Account, Login, RedisFacts, look, remember_in_vain
from stackhand.model import Finding, Status

_MEGABYTE = 1024 * 1024
# Copying on write while it saves, and buffers of clients, come on top of the data.
_SHARE = 0.75
# Redis refuses what needs more memory a little before the last byte is used.
_FULL = 0.98
# One command from the first argument on, so that neither a password nor its hash is on a command line.
_SAY = """
cli=$(command -v redis-cli || command -v valkey-cli || command -v keydb-cli) || exit 127
[ -n "$REDISCLI_AUTH" ] || unset REDISCLI_AUTH
printf '%s\\n' "$SAID" | "$cli" $OPTIONS ${ASKER:+--user "$ASKER"} --no-auth-warning --no-raw 2>&1
"""
_LOADING_PATIENCE = 120.0


class Redis(Kind[RedisFacts]):
    """Redis, Valkey, KeyDB: users can log in, memory is bounded, nothing that must stay is thrown away."""

    name = "redis"
    images = frozenset({"redis", "valkey", "keydb"})
    programs = frozenset({"redis-server", "valkey-server", "keydb-server"})
    probes = frozenset({"redis-cli", "valkey-cli", "keydb-cli"})
    ports = frozenset({6379})
    holds_data = True

    def matches(self, shown: Traits) -> bool:
        """Return whether it is a server; a sentinel is none."""
        if "--sentinel" in shown.argv or any(each.endswith("-sentinel") for each in shown.programs):
            return False
        return super().matches(shown)

    def collect(self, context: CheckContext, service: str) -> RedisFacts:
        """Log in as each client does; ask for memory, persistence and users."""
        return look(context, service)

    def checks(self) -> Sequence[Check]:
        """Return: does it answer, can its clients log in, can it write to disk, is its memory well set."""
        return (
            *super().checks(),
            Check(
                "redis.login", "databases", lambda context, service: judge_logins(service, context.facts(self, service))
            ),
            Check(
                "redis.disk", "databases", lambda context, service: judge_disk(service, context.facts(self, service))
            ),
            Check(
                "redis.memory", "tuning", lambda context, service: judge_memory(service, context.facts(self, service))
            ),
        )

    def fixes(self) -> Mapping[str, Fix]:
        """Return how a user comes back: from the file that declares it, or by a start that writes that file."""
        return {
            "redis.login": Fix("put back the user {subject} of", self._put_back),
            "redis.reload": Fix("restart", self._restart, patience=15.0),
        }

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Run one Redis command, as the first client that can log in."""
        words = " ".join(_quoted(word) for word in shlex.split(what))
        client = next((each for each in context.clients_of(service) if each.password), None)
        facts = context.facts(self, service)
        who = Account(client.user, client.password) if client else Account("", "")
        self._say(context, service, facts, words, who)

    def _put_back(self, context: CheckContext, finding: Finding) -> None:
        service = finding.service or ""
        facts = self.collect(context, service)
        user = facts.declared.get(finding.subject)
        if user is None or facts.admin is None or all(each.ok for each in facts.logins if each.user == user.name):
            return
        # This one user only: ACL LOAD would also drop what was changed in memory and not saved. Of a user that is
        # there only the password: its rights may have been narrowed since.
        there = facts.users is not None and user.name in facts.users
        rules = f"resetpass {' '.join(f'#{each}' for each in sorted(user.hashes))}" if there else user.rules
        command = f"ACL SETUSER {user.name} {rules}"
        self._say(context, service, facts, command, facts.admin)

    def _restart(self, context: CheckContext, finding: Finding) -> None:
        service = finding.service or ""
        facts = self.collect(context, service)
        if all(each.ok for each in facts.logins):
            return  # the restart for another user brought back this one, too
        with context.restarting(service):
            if facts.admin:
                # Writes out all data and ends, or refuses and goes on. A restart policy may have it back before we do.
                self._say(context, service, facts, "SHUTDOWN SAVE", facts.admin, ends=True)
            context.actions.restart(service)
        # Where it is still loading, nobody knows yet.
        with contextlib.suppress(NoAnswer):
            left = {each.user for each in self.collect(context, service).logins if not each.ok and each.certain}
            remember_in_vain(context, service, left)

    def _say(
        self, context: CheckContext, service: str, facts: RedisFacts, command: str, who: Account, *, ends: bool = False
    ) -> None:
        """Have Redis carry out one command. Raises StackError with the error that it answers."""
        environment = {
            "OPTIONS": " ".join(facts.options),
            "ASKER": "" if who.user == DEFAULT else who.user,
            "REDISCLI_AUTH": who.password,
            "SAID": command,
        }
        answer = context.shell(service, _SAY, environment=environment, timeout=_LOADING_PATIENCE)
        said = answer.stdout.strip()
        refused = re.search(r"^(\(error\).*|AUTH failed.*|NOAUTH.*|Could not connect.*)", said, re.MULTILINE)
        if refused and not (ends and refused[0].startswith("Could not connect")):
            raise StackError(f"{service}: {refused[0].removeprefix('(error) ')}")
        if not answer.ok and not ends:
            raise StackError(f"{service}: {context.redact(answer.last_error)}")


def judge_logins(service: str, facts: RedisFacts) -> Iterable[Finding]:
    """Judge whether all who connect can log in; one finding for each user."""
    for user in dict.fromkeys(login.user for login in facts.logins):
        logins = [each for each in facts.logins if each.user == user]
        wrong = next((each for each in logins if not each.ok and each.certain), None)
        if wrong:
            yield _judge_login(service, facts, wrong)
        elif any(each.ok for each in logins):
            who = " and ".join(sorted({name for each in logins if each.ok for name in each.services}))
            yield Finding("redis.login", service, "databases", "ok", f"{who} can log in as {user}", subject=user)


def _judge_login(service: str, facts: RedisFacts, login: Login) -> Finding:
    said = login.answer.splitlines()[0] if login.answer else "no answer"
    id, why, remedy, fixable = _diagnose(service, facts, login, said)
    summary = f"{' and '.join(login.services)} cannot log in as {login.user}: {why}"
    # Without a password in its environment, a client may have one from elsewhere.
    status: Status = "fail" if login.digest else "warn"
    return Finding(id, service, "databases", status, summary, said, remedy, fixable, login.user)


def _diagnose(service: str, facts: RedisFacts, login: Login, said: str) -> tuple[str, str, str, bool]:
    """Return the id of the finding, why the login fails, the remedy, and whether that can be done here."""
    who = " and ".join(login.services)
    in_memory = facts.users.get(login.user) if facts.users is not None else None
    declared = facts.declared.get(login.user)
    off = in_memory is not None and not in_memory.enabled
    unneeded = "without any password configured" in said
    if off or unneeded or not login.digest or not re.search(r"WRONGPASS|NOAUTH|invalid password|AUTH failed", said):
        why, remedy = "it is refused", f"`inv services.logs -s {service}` says more"
        if off:  # nobody turns off a user by accident
            why, remedy = "that user was turned off", f"if it is to be on: ACL SETUSER {login.user} on"
        elif unneeded:
            why = f"{service} has no password, and {who} sends one"
            remedy = f"give {service} that password (requirepass), or take it out of the environment of {who}"
        elif not login.digest:
            why, remedy = f"{service} wants a password", f"give {who} the password of {login.user}"
        return "redis.login", why, remedy, False
    why = _why(facts, in_memory)
    if declared and declared.takes(login.digest):
        if facts.admin and declared.rules:
            return "redis.login", why, f"ACL SETUSER {login.user} as {facts.aclfile or 'redis.conf'} has it", True
        return _restart(facts, service, login, f"{why}, though it is configured", "a restart reads the users again")
    if facts.written_at_start and login.given:
        why += f"; {facts.aclfile}, which every start writes anew, lacks it as well"
        return _restart(facts, service, login, why, "a restart writes the users anew")
    if login.digest and not login.given:
        why += f"; {who} has a password that {service} was not given"
    if login.user == DEFAULT:
        remedy = f"make the password of {who} and the one of {service} (requirepass) the same; `inv up.{service}`"
        return "redis.login", why, remedy, False
    place = facts.aclfile or f"the configuration of {service}"
    remedy = (
        f"if it is to be so: ACL SETUSER {login.user} on '>PASSWORD' '~*' '&*' +@all -@admin -@dangerous, or with "
        f"the rights that {who} needs; and the same in {place}"
    )
    return "redis.login", why, remedy, False


def _why(facts: RedisFacts, in_memory: User | None) -> str:
    if facts.users is None:
        return "unknown user or wrong password"
    return "the password is another one" if in_memory else "there is no such user"


def _restart(facts: RedisFacts, service: str, login: Login, why: str, what: str) -> tuple[str, str, str, bool]:
    """Return what `_diagnose` does, where a restart is the remedy: done once, and only where it loses no data."""
    if login.user in facts.in_vain:
        what = f"put {login.user} into what {service} makes its users from at its start, then `inv up.{service}`"
        return "redis.reload", f"{why}; a restart did not bring it back", what, False
    if facts.ephemeral:
        return "redis.login", why, f"{what}; not done: the data of {service} lies in memory and would be lost", False
    if not facts.admin and not facts.appends:
        return "redis.login", why, f"{what}; not done: nobody here may have {service} save its data first", False
    return "redis.reload", why, what, True


def judge_disk(service: str, facts: RedisFacts) -> Iterable[Finding]:
    """Judge whether it can write its data; a Redis that cannot refuses what its clients write."""
    if not facts.info:
        return
    broken = [
        f"{key}:{facts.info[key]}"
        for key in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if facts.info.get(key, "ok") != "ok"
    ]
    if broken:
        yield Finding(
            "redis.disk",
            service,
            "databases",
            "fail",
            "it could not write its data to disk",
            evidence=", ".join(broken),
            remedy=f"free space on its volume, or correct its owner; `inv services.logs -s {service}` says more",
        )
    else:
        yield Finding("redis.disk", service, "databases", "ok", "it writes its data")


def judge_memory(service: str, facts: RedisFacts) -> Iterable[Finding]:
    """Judge its memory limit against its container's, and what it does when that is reached."""
    info = facts.info
    if "maxmemory" not in info:
        return
    maxmemory, limit = int(info["maxmemory"]), facts.memory_limit
    wanted = max(1, int(limit * _SHARE) // _MEGABYTE)
    problems: list[tuple[str, str, str, str]] = []
    if limit and (maxmemory == 0 or maxmemory > limit * _SHARE):
        own = f"{maxmemory // _MEGABYTE} MB" if maxmemory else "no limit"
        problems.append(
            (
                "maxmemory",
                "it may use more memory than its container has, and be killed for that",
                f"maxmemory: {own}; the container's limit: {limit // _MEGABYTE} MB",
                f"{wanted}mb",
            )
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if facts.queue_of and policy != "noeviction":
        problems.append(
            (
                "maxmemory-policy",
                f"it throws away keys when its memory is full, tasks of {' and '.join(facts.queue_of)} among them",
                f"maxmemory-policy: {policy}",
                "noeviction",
            )
        )
    used = int(info.get("used_memory") or 0)
    full = maxmemory > 0 and policy == "noeviction" and used >= maxmemory * _FULL
    if full:
        yield Finding(
            "redis.memory",
            service,
            "tuning",
            "fail",
            "its memory is full: it refuses everything that writes",
            evidence=f"used: {used // _MEGABYTE} of {maxmemory // _MEGABYTE} MB, maxmemory-policy: noeviction",
            remedy="see what fills it (`redis-cli --bigkeys`, MEMORY STATS), remove that, or raise maxmemory",
            subject="full",
        )
    for setting, summary, evidence, value in problems:
        remedy = f"redis.conf: `{setting} {value}`; until the next start: `CONFIG SET {setting} {value}`"
        yield Finding("redis.memory", service, "tuning", "warn", summary, evidence, remedy, subject=setting)
    if not problems and not full:
        yield Finding("redis.memory", service, "tuning", "ok", "its memory is well set")


def _quoted(word: str) -> str:
    """Return a word as redis-cli reads it from its input."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
