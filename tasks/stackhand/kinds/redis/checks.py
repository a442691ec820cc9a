"""What is wrong with a Redis, decided from its facts: logins, writing to disk, memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from stackhand.checks.check import Fix, Verdict, fail, ok, skip, warn
from stackhand.kinds.redis.acl import DEFAULT, User
from stackhand.kinds.redis.facts import Login, RedisFacts

_MEGABYTE = 1024 * 1024
# Copying on write while it saves, and buffers of clients, come on top of the data.
_SHARE = 0.75
# Redis refuses what needs more memory a little before the last byte is used.
_FULL = 0.98
# Seconds in which a replica finds its master after a start of either.
_CONNECTS = 10
_SLOTS = 16384
_WRONG_PASSWORD = re.compile(r"WRONGPASS|NOAUTH|invalid password|AUTH failed")


class LoginFixes(NamedTuple):
    """How users come back: from the file that declares them, or by a start that reads or writes that file."""

    put_back: Callable[[str], Fix]
    restart: Fix


@dataclass(frozen=True)
class Diagnosis:
    """Why a login fails, and what to do about it. With `reload` the users have to be read again by a restart."""

    why: str
    remedy: str
    fix: Fix | None = None
    reload: bool = False


def evaluate_logins(
    service: str, facts: RedisFacts, fixes: LoginFixes, ineffective: Collection[str] = ()
) -> Iterable[Verdict]:
    """Yield a verdict for each user that clients log in as.

    `ineffective` are the users whom a restart has not brought back: it is not tried again.
    """
    if facts.refusal:
        yield from _unreachable(service, facts)
        return
    for user in dict.fromkeys(login.user for login in facts.logins):
        logins = [login for login in facts.logins if login.user == user]
        wrong = next((login for login in logins if not login.ok and login.certain), None)
        if wrong:
            yield _failed_login(wrong, _diagnose(service, facts, wrong, fixes, ineffective))
        elif any(login.ok for login in logins):
            who = " and ".join(sorted({name for login in logins if login.ok for name in login.services}))
            yield ok(f"{who} can log in as {user}", subject=user)


def _unreachable(service: str, facts: RedisFacts) -> Iterable[Verdict]:
    """Yield the verdict about a Redis that answers inside its container only, a failure where others connect to it."""
    who = " and ".join(sorted({name for login in facts.logins for name in login.services}))
    if "DENIED" in facts.refusal:
        # https://redis.io/docs/latest/operate/oss_and_stack/management/security/#protected-mode
        remedy = f"give {service} a password (`requirepass`) and its clients the same, or set `protected-mode no`"
        if who:
            yield fail(f"{who} cannot connect: it is in protected mode, without a password", facts.refusal, remedy)
        else:
            yield warn("no other container can connect: it is in protected mode", facts.refusal, remedy)
    elif who:
        remedy = f"`bind * -::*` in the configuration of {service}"
        yield fail(f"{who} cannot connect: it does not listen on its networks", facts.refusal, remedy)


def _failed_login(login: Login, diagnosis: Diagnosis) -> Verdict:
    # Without a password in its environment, a client may have one from elsewhere.
    verdict = fail if login.digest else warn
    return verdict(
        f"{' and '.join(login.services)} cannot log in as {login.user}: {diagnosis.why}",
        _said(login),
        diagnosis.remedy,
        subject=login.user,
        fix=diagnosis.fix,
        id="redis.reload" if diagnosis.reload else "",
    )


def _said(login: Login) -> str:
    return login.answer.splitlines()[0] if login.answer else "no answer"


def _diagnose(
    service: str, facts: RedisFacts, login: Login, fixes: LoginFixes, ineffective: Collection[str]
) -> Diagnosis:
    in_memory = facts.users.get(login.user) if facts.users is not None else None
    return _refusal(service, login, in_memory) or _wrong_password(service, facts, login, in_memory, fixes, ineffective)


def _refusal(service: str, login: Login, in_memory: User | None) -> Diagnosis | None:
    """Return why a login is refused for another reason than its password, None where the password is the reason."""
    who, user = " and ".join(login.services), login.user
    if in_memory is not None and not in_memory.enabled:  # nobody turns off a user by accident
        return Diagnosis("that user was turned off", f"if it is to be on: ACL SETUSER {user} on")
    if "without any password configured" in _said(login):
        remedy = f"give {service} that password (requirepass), or take it out of the environment of {who}"
        return Diagnosis(f"{service} has no password, and {who} sends one", remedy)
    if not login.digest:
        return Diagnosis(f"{service} wants a password", f"give {who} the password of {user}")
    if not _WRONG_PASSWORD.search(_said(login)):
        return Diagnosis("it is refused", f"`inv services.logs -s {service}` says more")
    return None


def _wrong_password(
    service: str,
    facts: RedisFacts,
    login: Login,
    in_memory: User | None,
    fixes: LoginFixes,
    ineffective: Collection[str],
) -> Diagnosis:
    who, user = " and ".join(login.services), login.user
    declared = facts.declared.get(user)
    why = _why(facts, in_memory)
    if declared and declared.takes(login.digest):
        if facts.admin and declared.rules:
            remedy = f"ACL SETUSER {user} as {facts.aclfile or 'redis.conf'} has it"
            return Diagnosis(why, remedy, fixes.put_back(user))
        why = f"{why}, though it is configured"
        return _by_restart(service, facts, login, why, "a restart reads the users again", fixes.restart, ineffective)
    if facts.written_at_start and login.given:
        why += f"; {facts.aclfile}, which every start writes again, lacks it as well"
        return _by_restart(service, facts, login, why, "a restart writes the users again", fixes.restart, ineffective)
    if not login.given:
        why += f"; {who} has a password that {service} was not given"
    if user == DEFAULT:
        remedy = f"make the password of {who} and the one of {service} (requirepass) the same; `inv up.{service}`"
        return Diagnosis(why, remedy)
    place = facts.aclfile or f"the configuration of {service}"
    remedy = (
        f"if it is to be so: ACL SETUSER {user} on '>PASSWORD' '~*' '&*' +@all -@admin -@dangerous, or with "
        f"the rights that {who} needs; and the same in {place}"
    )
    return Diagnosis(why, remedy)


def _why(facts: RedisFacts, in_memory: User | None) -> str:
    if facts.users is None:
        return "unknown user or wrong password"
    return "the password is another one" if in_memory else "there is no such user"


def _by_restart(
    service: str, facts: RedisFacts, login: Login, why: str, remedy: str, restart: Fix, ineffective: Collection[str]
) -> Diagnosis:
    """Return the diagnosis where a restart is the remedy: made once, and only where it loses no data."""
    if login.user in ineffective:
        remedy = f"put {login.user} into what {service} makes its users from at its start, then `inv up.{service}`"
        return Diagnosis(f"{why}; a restart did not bring it back", remedy, reload=True)
    if facts.ephemeral:
        return Diagnosis(why, f"{remedy}; not done: the data of {service} lies in memory and would be lost")
    if not facts.admin and not facts.appends:
        return Diagnosis(why, f"{remedy}; not done: nobody here may have {service} save its data first")
    return Diagnosis(why, remedy, restart, reload=True)


def evaluate_disk(service: str, facts: RedisFacts) -> Iterable[Verdict]:
    """Yield whether it can write its data; a Redis that cannot refuses what its clients write."""
    if not facts.info:
        return
    broken = [
        f"{key}:{facts.info[key]}"
        for key in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if facts.info.get(key, "ok") != "ok"
    ]
    if broken:
        remedy = f"free space on its volume, or correct its owner; `inv services.logs -s {service}` says more"
        yield fail("it could not write its data to disk", ", ".join(broken), remedy)
    else:
        yield ok("it writes its data")


def evaluate_replication(facts: RedisFacts, masters: Collection[str] = ()) -> Iterable[Verdict]:
    """Yield whether a replica is connected to its master; nothing for what is no replica.

    `masters` are the services that the master's name leads to.
    """
    info = facts.info
    if info.get("role") != "slave":
        return
    master = f"{info.get('master_host', '')}:{info.get('master_port', '')}"
    if info.get("master_link_status") == "up":
        yield ok(f"it follows {master}")
        return
    # The second is -1 where the link was never up.
    told = [info.get(key, "") for key in ("uptime_in_seconds", "master_link_down_since_seconds")]
    down = min((int(each) for each in told if each.isdecimal()), default=_CONNECTS)
    evidence = f"master_link_status:{info.get('master_link_status', '')}, for {down} s"
    if info.get("master_sync_in_progress") == "1":
        yield skip(f"it copies the data of {master}", evidence)
    elif down < _CONNECTS:
        yield skip(f"it is still connecting to {master}", evidence)
    else:
        remedy = f"see that {master} runs and lets it in (`masterauth`, `masteruser`); its log says why it does not"
        yield fail(f"it has lost its master {master}: what it holds is old", evidence, remedy, blames=tuple(masters))


def evaluate_cluster(service: str, facts: RedisFacts) -> Iterable[Verdict]:
    """Yield whether a cluster serves; nothing for a server that is part of none."""
    state = facts.cluster.get("cluster_state")
    if state == "ok":
        yield ok("its cluster serves")
    elif state:
        assigned = int(facts.cluster.get("cluster_slots_assigned", "0"))
        known = facts.cluster.get("cluster_known_nodes", "1")
        evidence = f"cluster_state:{state}, cluster_slots_assigned:{assigned}, cluster_known_nodes:{known}"
        if assigned < _SLOTS:
            what = f"{_SLOTS - assigned} of its {_SLOTS} slots belong to no server"
            fix = f"`redis-cli --cluster fix {service}:PORT` gives an existing one its slots"
            remedy = f"`redis-cli --cluster create HOST:PORT …` makes a cluster of servers; {fix}"
        else:
            what, remedy = "servers of it are gone", f"`redis-cli --cluster check {service}:PORT` names them"
        yield fail(f"its cluster does not serve: {what}", evidence, remedy)


def evaluate_memory(facts: RedisFacts, queue_of: Collection[str] = ()) -> Iterable[Verdict]:
    """Yield whether its memory limit fits its container's, and what it does when its memory is full.

    `queue_of` are the workers whose tasks it holds: those must not be evicted.
    """
    info = facts.info
    if "maxmemory" not in info:
        return
    maxmemory, limit = int(info["maxmemory"]), facts.memory_limit
    policy = info.get("maxmemory_policy", "noeviction")
    used = int(info.get("used_memory") or 0)
    verdicts: list[Verdict] = []
    if maxmemory > 0 and policy == "noeviction" and used >= maxmemory * _FULL:
        verdicts.append(
            fail(
                "its memory is full: it refuses everything that writes",
                f"used: {used // _MEGABYTE} of {maxmemory // _MEGABYTE} MB, maxmemory-policy: noeviction",
                "see what fills it (`redis-cli --bigkeys`, MEMORY STATS), remove that, or raise maxmemory",
                subject="full",
            )
        )
    if limit and (maxmemory == 0 or maxmemory > limit * _SHARE):
        own = f"{maxmemory // _MEGABYTE} MB" if maxmemory else "no limit"
        fitting = f"{max(1, int(limit * _SHARE) // _MEGABYTE)}mb"
        summary = "it may use more memory than its container has, and be killed for that"
        evidence = f"maxmemory: {own}; the container's limit: {limit // _MEGABYTE} MB"
        verdicts.append(_setting("maxmemory", fitting, summary, evidence))
    if queue_of and policy != "noeviction":
        # https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html (Key eviction)
        summary = f"it throws away keys when its memory is full, tasks of {' and '.join(queue_of)} among them"
        verdicts.append(_setting("maxmemory-policy", "noeviction", summary, f"maxmemory-policy: {policy}"))
    yield from verdicts or [ok("its memory is well set")]


def _setting(setting: str, value: str, summary: str, evidence: str) -> Verdict:
    remedy = f"redis.conf: `{setting} {value}`; until the next start: `CONFIG SET {setting} {value}`"
    return warn(summary, evidence, remedy, subject=setting)
