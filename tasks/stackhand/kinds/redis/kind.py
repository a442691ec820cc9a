"""The kind redis, and what speaks its protocol: Valkey, KeyDB."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

from stackhand.checks import scripts
from stackhand.checks.check import Check, Fix, Verdict
from stackhand.checks.connections import names
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import NoAnswer
from stackhand.checks.kind import Kind
from stackhand.checks.traits import Traits
from stackhand.errors import StackError
from stackhand.kinds.redis import facts as redis_facts
from stackhand.kinds.redis.acl import DEFAULT
from stackhand.kinds.redis.checks import (
    LoginFixes,
    evaluate_cluster,
    evaluate_disk,
    evaluate_logins,
    evaluate_memory,
    evaluate_replication,
)
from stackhand.kinds.redis.facts import Account, RedisFacts
from stackhand.state.document import Document

# Seconds: after a restart it reads its data, and answers nothing else meanwhile.
_LOAD_TIMEOUT = 120.0
_RESTART_SETTLE = 15.0
# How much longer than a check a fix waits for an answer: what it asks decides whether it acts.
_FIX_STRETCH = 4.0
_PAUSE = 0.1
_REWRITING = re.compile(r"aof_rewrite_(in_progress|scheduled):1")
_REFUSED = re.compile(r"^(\(error\).*|AUTH failed.*|NOAUTH.*|Could not connect.*)", re.MULTILINE)


# By service: the run of its container, and the users whom the restart that it began with did not bring back.
_Ineffective = dict[str, tuple[str, frozenset[str]]]


def _decode(value: Any) -> _Ineffective:
    return {name: (str(entry["run"]), frozenset(entry["users"])) for name, entry in value.items()}


def _encode(known: _Ineffective) -> Any:
    return {name: {"run": run, "users": sorted(users)} for name, (run, users) in known.items()}


_INEFFECTIVE: Document[_Ineffective] = Document("redis_in_vain", _decode, dict, _encode)


class Redis(Kind[RedisFacts]):
    """Redis, Valkey, KeyDB: users can log in, memory is bounded, nothing that must stay is thrown away."""

    name = "redis"
    images = frozenset({"redis", "valkey", "keydb"})
    programs = frozenset({"redis-server", "valkey-server", "keydb-server"})
    probes = frozenset({"redis-cli", "valkey-cli", "keydb-cli"})
    ports = frozenset({6379})
    holds_data = True

    def matches(self, shown: Traits) -> bool:
        """Return whether it is a server, and not a sentinel."""
        if "--sentinel" in shown.argv or any(each.endswith("-sentinel") for each in shown.programs):
            return False
        return super().matches(shown)

    def collect(self, context: CheckContext, service: str) -> RedisFacts:
        """Log in as each client does; ask for memory, persistence and users."""
        return redis_facts.collect(context, service)

    def checks(self) -> Sequence[Check]:
        """Return: does it answer, can its clients log in, has it its master and its slots, can it write, its memory."""
        return (
            *super().checks(),
            Check("redis.login", "databases", self.check_logins),
            Check("redis.replica", "databases", self.check_replication),
            Check("redis.cluster", "databases", self.check_cluster),
            Check("redis.disk", "databases", self.check_disk),
            Check("redis.memory", "tuning", self.check_memory),
        )

    def check_logins(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that all who connect can log in."""

        def put_back(user: str) -> Fix:
            return Fix(f"put back the user {user} of", partial(self._put_back, context, service, user))

        restart = Fix("restart", partial(self._restart, context, service), "restart", _RESTART_SETTLE)
        facts = context.facts(self, service)
        return evaluate_logins(service, facts, LoginFixes(put_back, restart), _ineffective(context, service))

    def check_replication(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that a replica has its master."""
        facts = context.facts(self, service)
        master = names(context.project).get(facts.info.get("master_host", "").lower())
        return evaluate_replication(facts, [master] if master else [])

    def check_cluster(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that the cluster that it is part of serves."""
        return evaluate_cluster(service, context.facts(self, service))

    def check_disk(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that it can write its data."""
        return evaluate_disk(service, context.facts(self, service))

    def check_memory(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check its memory limit, and that it keeps the tasks of workers."""
        workers = context.kinds.services("celery")
        queue_of = dict.fromkeys(each.service for each in context.clients_of(service) if each.service in workers)
        return evaluate_memory(context.facts(self, service), queue_of)

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Run one Redis command, as the first client that can log in."""
        words = " ".join(_quoted(word) for word in shlex.split(what))
        client = next((each for each in context.clients_of(service) if each.password), None)
        facts = context.facts(self, service)
        who = Account(client.user, client.password) if client else Account("", "")
        self._command(context, service, facts, words, who)

    def _put_back(self, context: CheckContext, service: str, name: str) -> None:
        # Asked again: what another fix did may have brought it back.
        facts = self.collect(context.with_more_time(_FIX_STRETCH), service)
        user = facts.declared.get(name)
        if user is None or facts.admin is None or all(each.ok for each in facts.logins if each.user == name):
            return
        # This one user only: ACL LOAD would also drop what was changed in memory and not saved. Of a user that is
        # there only the password: its rights may have been narrowed since.
        there = facts.users is not None and name in facts.users
        rules = f"resetpass {' '.join(f'#{each}' for each in sorted(user.hashes))}" if there else user.rules
        self._command(context, service, facts, f"ACL SETUSER {name} {rules}", facts.admin)

    def _restart(self, context: CheckContext, service: str) -> None:
        facts = self.collect(context.with_more_time(_FIX_STRETCH), service)
        if all(each.ok for each in facts.logins):
            return  # the restart for another user brought back this one, too
        with context.restarting(service):
            if facts.admin:
                self._rewrite(context, service, facts, facts.admin)
                # Writes out all data and ends, or refuses and goes on. A restart policy may have it back before we do.
                self._command(context, service, facts, "SHUTDOWN SAVE", facts.admin, ends=True)
            context.actions.restart(service)
        # Where it is still loading, nobody knows yet.
        with contextlib.suppress(NoAnswer):
            left = {each.user for each in self.collect(context, service).logins if not each.ok and each.certain}
            _remember_ineffective(context, service, left)

    def _rewrite(self, context: CheckContext, service: str, facts: RedisFacts, admin: Account) -> None:
        """Have a Redis that appends write all its data into a new base file. Raises StackError where it does not.

        Redis 8.0 carries out what it appended as the user `default`: where that is off, it drops transactions at its
        start, and what follows them. A base file is only read.
        """
        if facts.info.get("aof_enabled") != "1":
            return
        self._command(context, service, facts, "BGREWRITEAOF", admin)
        deadline = time.monotonic() + _LOAD_TIMEOUT
        while _REWRITING.search(said := self._command(context, service, facts, "INFO persistence", admin)):
            if time.monotonic() > deadline:
                raise StackError(f"{service}: its data was not written within {_LOAD_TIMEOUT:.0f} s")
            time.sleep(_PAUSE)
        if "aof_last_bgrewrite_status:err" in said:
            raise StackError(f"{service}: its data could not be written: aof_last_bgrewrite_status:err")

    def _command(
        self, context: CheckContext, service: str, facts: RedisFacts, command: str, who: Account, *, ends: bool = False
    ) -> str:
        """Have Redis carry out one command, and return its answer. Raises StackError with the error that it answers."""
        environment = {
            "OPTIONS": " ".join(facts.options),
            "ASKER": "" if who.user == DEFAULT else who.user,
            "REDISCLI_AUTH": who.password,
            "SAID": command,
        }
        script = scripts.read(__package__, "command.sh")
        answer = context.shell(service, script, environment=environment, timeout=_LOAD_TIMEOUT)
        refused = _REFUSED.search(answer.stdout.strip())
        if refused and not (ends and refused[0].startswith("Could not connect")):
            raise StackError(f"{service}: {refused[0].removeprefix('(error) ')}")
        if not answer.ok and not ends:
            raise StackError(f"{service}: {context.redact(answer.last_error)}")
        return answer.stdout


def _remember_ineffective(context: CheckContext, service: str, users: Collection[str]) -> None:
    """Remember that the restart which the container's run began with did not bring back these users."""
    containers = context.engine.containers(context.project.name)
    runs = [each.run_key for each in containers if each.service == service and each.running]
    if users and runs:
        _INEFFECTIVE.update(context.state, lambda known: {**known, service: (runs[0], frozenset(users))})


def _ineffective(context: CheckContext, service: str) -> frozenset[str]:
    container = context.running(service)
    run, users = _INEFFECTIVE.read(context.state).get(service, ("", frozenset()))
    return users if container and container.run_key == run else frozenset()


def _quoted(word: str) -> str:
    """Return a word as redis-cli reads it from its input."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
