"""Derives from the compose file who reads files of the project, and whose data they are.

Pure decisions on three kinds of facts: the Compose project, the users that its services run as, and the owner and
mode of the paths that it names.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stackhand.engine.compose.project import Project
from stackhand.model import Finding, Status
from stackhand.perms.policy import strict
from stackhand.perms.policy.content import PRIVATE
from stackhand.perms.policy.mounts import PathFacts, PathUse, mounted, uses
from stackhand.perms.policy.rules import PLAIN, REST, PathRule, Rules, Target
from stackhand.perms.policy.users import User

PHASE = "permissions"


@dataclass(frozen=True)
class ComposeRules:
    """What follows from the compose file: rules for single paths, and findings about readers."""

    special: Mapping[str, Mapping[str, PathRule]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def known(
    project: Project, root: Path, rules: Rules, users: Mapping[str, User], facts: Mapping[Path, PathFacts]
) -> ComposeRules:
    """Return the rules for the paths below `root`, and findings with what a fix will make of the paths.

    `root` and the paths are without symbolic links. `facts` has the paths that exist. `rules` are those of the
    settings.
    """
    special: dict[str, dict[str, PathRule]] = {}
    after: dict[Path, PathFacts] = {}
    by_path = _by_path(project, facts)
    for path, found in by_path.items():
        now, relative = facts[path], _below(path, root)
        data = mounted(_covering(path, by_path), users)
        exception = _exception(relative, now, found, data, rules, users) if relative else None
        if exception and relative:
            folder, _, name = relative.rpartition("/")
            special.setdefault(folder, {})[name] = exception
        after[path] = _after(now, exception, relative, rules)
    whole = mounted(_covering(root, by_path), users)
    if whole:
        special.setdefault("", {})["."] = whole
    return ComposeRules(special, findings(project, root, rules.target, users, facts, after))


def _covering(path: Path, by_path: Mapping[Path, list[PathUse]]) -> list[PathUse]:
    """Return the uses of a path, and those of the folders above it."""
    return [use for each in (path, *path.parents) for use in by_path.get(each, ())]


def findings(
    project: Project,
    root: Path,
    target: Target,
    users: Mapping[str, User],
    before: Mapping[Path, PathFacts],
    after: Mapping[Path, PathFacts],
) -> tuple[Finding, ...]:
    """Return findings about who reads the paths that exist, before and after a fix."""
    found: list[Finding] = []
    for path, used in _by_path(project, before).items():
        if path in after:
            name = _below(path, root) or str(path)
            found += _findings(name, before[path], after[path], used, users, target)
            found += _refused(name, before[path], used, users)
    return tuple(found)


def _by_path(project: Project, facts: Mapping[Path, PathFacts]) -> dict[Path, list[PathUse]]:
    by_path: dict[Path, list[PathUse]] = {}
    for use in uses(project):
        if use.path in facts:
            by_path.setdefault(use.path, []).append(use)
    return by_path


def _below(path: Path, root: Path) -> str | None:
    try:
        relative = path.relative_to(root)
    except ValueError:
        return None
    return str(relative) if relative.parts else None


def _exception(
    path: str,
    now: PathFacts,
    found: list[PathUse],
    data: PathRule | None,
    rules: Rules,
    users: Mapping[str, User],
) -> PathRule | None:
    program = next((program for use in found if (program := strict.program_at(use.target))), None)
    if program:
        return PathRule(strict=program.name)
    if now.is_folder:
        return _folder_exception(path, now, found, data, rules, users)
    reason = rules.reason_of_container(data, now.uid, now.gid, now.mode) if data else None
    if reason:
        return PathRule(leave=reason)
    zone = rules.zone(path, folder=False)
    key = now.usual == PRIVATE and zone is PLAIN
    private = any(use.what == "secret" for use in found) or key or rules.is_secret(path)
    if now.is_closed and (private or zone in (PLAIN, REST)):
        return _closed(path, now, found, rules, users, private=private)
    return _open_secret(path, now, _others(found, users, rules.target), rules) if private else None


def _open_secret(path: str, now: PathFacts, others: Mapping[str, User], rules: Rules) -> PathRule:
    """Return the rule for a secret or a private key that others can read now."""
    if others and _is_its_readers(now, others, rules.target):
        return PathRule(mode=PRIVATE, keep_owner=True)
    # A container gets the file itself. On this machine, the folder around it keeps others out.
    shared = rules.in_secret_folder(path) or any(now.readable_by(user) for user in others.values())
    return PathRule(mode=0o644 if others and shared else PRIVATE)


def _closed(
    path: str, now: PathFacts, found: list[PathUse], rules: Rules, users: Mapping[str, User], *, private: bool
) -> PathRule | None:
    """Return the rule for a file that others can't read now: it stays so, and its readers can read it, no one else."""
    target = rules.target
    others = {name: user for name, user in _others(found, users, target).items() if not now.lists(user)}
    if others and _is_its_readers(now, others, target):
        if private:
            return PathRule(mode=PRIVATE, keep_owner=True)
        return PathRule(leave=f"{', '.join(others)} reads it as uid {now.uid}, which owns it, and others may not")
    if not others or now.uid == 0:
        # The owner or the group that may read it is most probably one that a server goes on as after its start.
        uids = frozenset[int]().union(*(users.get(use.service, User()).uids for use in found))
        readers = PathRule(data=found[0].service, uids=uids, writes=False)
        reason = rules.reason_of_container(readers, now.uid, now.gid, now.mode)
        if reason:
            return PathRule(leave=reason)
    group = _group(now, others, target) if others else None
    if group is not None:
        return PathRule(mode=0o750 if now.usual == 0o755 else 0o640, gid=group)
    if others and rules.in_secret_folder(path):
        # Its readers are in no group that we know. The folder keeps others out, a container gets the file itself.
        return PathRule(mode=0o644)
    return PathRule(mode=PRIVATE) if private else None


def _is_its_readers(now: PathFacts, others: Mapping[str, User], target: Target) -> bool:
    """Return whether a file belongs to the only other user that reads it: then it can't be more private."""
    return now.uid not in (0, target.uid) and all(user.uid in (None, now.uid) for user in others.values())


def _group(now: PathFacts, others: Mapping[str, User], target: Target) -> int | None:
    """Return the group by which the readers of a closed file can read it; None if it is not known."""
    if now.mode & 0o040 and (now.gid not in (0, target.gid) or all(now.gid in user.gids for user in others.values())):
        return now.gid
    groups = {user.group for user in others.values()}
    return groups.pop() if len(groups) == 1 else None


def _folder_exception(
    path: str,
    now: PathFacts,
    found: list[PathUse],
    data: PathRule | None,
    rules: Rules,
    users: Mapping[str, User],
) -> PathRule | None:
    mounts = [use for use in found if use.what == "bind mount"]
    if mounts and now.mark:
        return PathRule(leave=f"it is the {now.mark} data of {mounts[0].service} (uid {now.uid})")
    for use in mounts:
        user = users.get(use.service, User())
        if use.writes and now.uid not in (0, rules.target.uid) and now.uid in user.uids:
            return PathRule(leave=f"{use.service} keeps its data there as uid {now.uid}")
        if use.writes and now.mode & 0o020 and now.gid not in (0, rules.target.gid) and now.gid in user.gids:
            return PathRule(leave=f"{use.service} keeps its data there as group {now.gid}")
    reason = rules.reason_of_container(data, now.uid, now.gid, now.mode) if data else None
    if reason:
        return PathRule(leave=reason)
    if rules.is_secret(path):
        others = _others(mounts, users, rules.target)
        if others:
            told = ", ".join(f"{name} ({user})" for name, user in others.items())
            return PathRule(leave=f"{told} reads the whole folder as another user; give it single files as secrets")
    return data


def _others(found: list[PathUse], users: Mapping[str, User], target: Target) -> dict[str, User]:
    """Return the services that read it as another user than the target user, as far as that is known."""
    readers = {use.service: users.get(use.service, User()) for use in found}
    return {
        name: user for name, user in readers.items() if user.is_known and not user.is_root and user.uid != target.uid
    }


def _after(now: PathFacts, exception: PathRule | None, relative: str | None, rules: Rules) -> PathFacts:
    """Return owner and mode as they will be after a fix."""
    if relative is None or (exception and exception.leave):
        return now
    zone = rules.zone(relative, folder=now.is_folder)
    kind = stat.S_IFMT(now.mode)
    uid, gid, mode = rules.desired(zone, kind, now.uid, now.gid, stat.S_IMODE(now.mode), now.usual, exception)
    return replace(now, uid=uid, gid=gid, mode=kind | mode)


def _findings(
    path: str, now: PathFacts, after: PathFacts, found: list[PathUse], users: Mapping[str, User], target: Target
) -> Iterator[Finding]:
    by_user: dict[tuple[str, str], list[str]] = {}
    unknown = []
    for use in found:
        user = users.get(use.service, User())
        if not user.is_known:
            unknown.append(use.service)
        elif not user.is_root and (user.uid is None or user.uid != after.uid or user.uid != now.uid):
            by_user.setdefault((str(user), use.what), []).append(use.service)
    for (whom, what), services in by_user.items():
        user = users[services[0]]
        before_ok, after_ok = now.readable_by(user), after.readable_by(user)
        if user.uid is None and now.uid == after.uid and now.uid not in (0, target.uid):
            before_ok = after_ok = True  # its owner stays, and is most probably that user
        yield Finding(
            "perms.reader",
            services[0] if len(services) == 1 else None,
            PHASE,
            _status(before_ok, after_ok),
            f"{path}: {', '.join(services)} {'reads' if len(services) == 1 else 'read'} this {what} as {whom}",
            f"before: owner {now.uid}:{now.gid}, mode {stat.S_IMODE(now.mode):03o}, {_can(before_ok)}; "
            f"after: owner {after.uid}:{after.gid}, mode {stat.S_IMODE(after.mode):03o}, {_can(after_ok)}",
            _remedy(path, after, after_ok),
        )
    if unknown and any(use.what == "secret" for use in found):
        yield Finding(
            "perms.reader",
            unknown[0] if len(unknown) == 1 else None,
            PHASE,
            "skip",
            f"{path}: the user that {', '.join(unknown)} {'reads' if len(unknown) == 1 else 'read'} it as is not known",
            "the image is not here, or the engine does not answer",
        )


def _refused(path: str, now: PathFacts, found: list[PathUse], users: Mapping[str, User]) -> Iterator[Finding]:
    """Yield findings about files that a strict program refuses now, for root does not own them."""
    for use in found:
        program = strict.program_at(use.target)
        if program is None or not program.only_roots:
            continue
        seen = [(f"{path}/{name}", uid) for name, uid in now.inner] if now.is_folder else [(path, now.uid)]
        # One that runs as another user may take what is its own; and so may root in a user namespace.
        own = users.get(use.service, User()).uids | {0}
        wrong = [f"{name} (uid {uid})" for name, uid in seen if uid not in own]
        if wrong:
            yield Finding(
                "perms.strict",
                use.service,
                PHASE,
                "warn",
                f"{path}: {program.name} in {use.service} refuses what root does not own",
                f"not root's: {', '.join(wrong)}",
                f"sudo chown -R root:root {shlex.quote(path)}, or copy it into the image",
            )


def _status(before: bool | None, after: bool | None) -> Status:
    if after is None:
        return "skip"
    if not after:
        return "fail"
    return "warn" if before is False else "ok"


def _can(yes: bool | None) -> str:
    if yes is None:
        return "can be read if that is its owner"
    return "can be read" if yes else "can NOT be read"


def _remedy(path: str, after: PathFacts, readable: bool | None) -> str:
    if readable is None:
        return "name the user by its number (`user:`), or start the service: its processes tell"
    return "" if readable else f"let it run as uid {after.uid} (`user:`), or make {path} readable to it by hand"
