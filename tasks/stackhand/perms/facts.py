"""Collects the facts that the rules of a project are made of: settings, compose file, engine, git, mounts."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stackhand.engine.compose.files import FILE_NAMES, OVERRIDE_NAMES, chosen_files
from stackhand.engine.compose.project import Project
from stackhand.engine.host import git, mounts
from stackhand.errors import Interrupted, StackError
from stackhand.model import Finding
from stackhand.perms.context import PermsContext
from stackhand.perms.policy import readers
from stackhand.perms.policy.content import BUNDLE, mode_by_content
from stackhand.perms.policy.mounts import PathFacts, uses
from stackhand.perms.policy.owner import is_person, target
from stackhand.perms.policy.rules import DATA_MARKS, PathRule, Rules
from stackhand.perms.policy.strict import program_at
from stackhand.perms.policy.users import User, declared, shifted
from stackhand.perms.tree.cursor import MOUNTED
from stackhand.perms.tree.entry import ACL
from stackhand.settings import Perms
from stackhand.state.folder import FOLDER

if TYPE_CHECKING:
    from stackhand.engine.api.client import Engine

# How many entries of a folder that a strict program reads are looked at, and named, at most.
_NAMED = 3
_GIT_NOT_ASKED = Finding(
    "perms.git",
    None,
    readers.PHASE,
    "skip",
    "git could not be asked which files it records as executable: executable files stay so",
    "there is a repository, and `git ls-files` fails in it, or there is no git",
    "see what `git status` says",
)
# What an entry of an access control list is about (acl_ea.h in Linux).
_ACL_USER, _ACL_GROUP, _ACL_MASK = 0x02, 0x08, 0x10
_TOP_FILES = (".env", "*.env", "run.sh", *FILE_NAMES, *OVERRIDE_NAMES)


@dataclass(frozen=True)
class ProjectFacts:
    """The rules of a project, and findings about who reads its files, with what a fix will make of them."""

    rules: Rules
    findings: tuple[Finding, ...]
    findings_after: Callable[[], tuple[Finding, ...]]
    """Reads the files again after a fix, and returns the findings with what has become of them."""


def collect_facts(context: PermsContext, settings: Perms, owner: str | None) -> ProjectFacts:
    """Collect the facts of a project whose files shall belong to `owner`, the text of `--owner`.

    If Compose, the engine or git can't be asked, the rules come from the settings alone, and a finding says what is
    missing. Raises UnknownUser, BadArgument.
    """
    owned_by = target(owner, context.environ)
    # The paths that Compose and the kernel give are without symbolic links, too.
    real = Path(os.path.realpath(context.root))
    compose_files = chosen_files(context.directory, context.environ)
    top_files = (*_TOP_FILES, *(name for name in compose_files if "/" not in name))
    recorded = git.executables(context.programs, context.root)
    make = partial(
        Rules,
        owned_by,
        settings.roots,
        settings.secrets,
        settings.executable,
        top_files,
        keeps_executable=recorded is None,
        is_person=is_person,
    )
    plain = make()
    special: dict[str, dict[str, PathRule]] = {}
    for path in recorded or ():
        if plain.zone(path, folder=False).file == 0o644:
            _add(special, path, PathRule(mode=0o755, plain=True))
    first = (_GIT_NOT_ASKED,) if recorded is None else ()
    try:
        used = _ComposeFacts.read(real, plain, context.project(), context.engine)
        exceptions, findings, again = used.known.special, used.known.findings, used.again
    except Interrupted:
        raise
    except StackError as error:
        unread = (_unread(error),)
        exceptions, findings, again = {}, unread, lambda: unread
    for folder, found in exceptions.items():
        special.setdefault(folder, {}).update(found)
    for path in mounts.below(real):
        _add(special, path, PathRule(leave=MOUNTED))
    # stackhand's own folder: `run.fix` looks after it.
    _add(special, FOLDER, PathRule(leave=""))
    return ProjectFacts(make(special=special), (*first, *findings), lambda: (*first, *again()))


def _add(special: dict[str, dict[str, PathRule]], path: str, exception: PathRule) -> None:
    folder, _, name = path.rpartition("/")
    special.setdefault(folder, {})[name] = exception


@dataclass(frozen=True)
class _ComposeFacts:
    """The files that the compose file names, their readers, and the rules that follow from both."""

    project: Project
    root: Path
    rules: Rules
    users: Mapping[str, User]
    before: Mapping[Path, PathFacts]
    known: readers.ComposeRules

    @classmethod
    def read(cls, root: Path, rules: Rules, project: Project, engine: Callable[[], Engine]) -> _ComposeFacts:
        before = _facts_of(project, rules)
        names = dict.fromkeys(use.service for use in uses(project) if use.path in before)
        users = _users(project, names, engine)
        known = readers.known(project, root, rules, users, before)
        return cls(project, root, rules, users, before, known)

    def again(self) -> tuple[Finding, ...]:
        after = _facts_of(self.project, self.rules)
        return readers.findings(self.project, self.root, self.rules.target, self.users, self.before, after)


def _facts_of(project: Project, rules: Rules) -> dict[Path, PathFacts]:
    found: dict[Path, PathFacts] = {}
    for use in uses(project):
        seen = _facts(use.path, rules)
        if seen is not None:
            program = program_at(use.target)
            inner = _inner(use.path) if seen.is_folder and program and program.only_roots else ()
            found[use.path] = replace(seen, inner=found[use.path].inner if use.path in found and not inner else inner)
    return found


def _inner(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return entries of a folder that do not belong to root, with their owners; some of them."""
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        owners = ((each.name, each.stat(follow_symlinks=False).st_uid) for each in listing)
        return tuple(islice((each for each in owners if each[1] != 0), _NAMED))
    return ()


def _users(project: Project, names: Iterable[str], engine: Callable[[], Engine]) -> dict[str, User]:
    """Return the users of services; where the engine can't be asked, those that the compose file names."""
    found = {name: declared(project.services[name].raw, None) for name in names}
    if not found:
        return {}
    try:
        asked = engine()
        shift = asked.user_shift()
    except Interrupted:
        raise
    except StackError:
        return found
    for name in tuple(found):
        service = project.services[name]
        own = (0, 0) if service.raw.get("userns_mode") == "host" else shift
        found[name] = shifted(found[name], own)
        try:
            image = asked.image(service.image)
            found[name] = shifted(declared(service.raw, image.user if image else None), own)
            # An engine without root gives numbers that mean nothing outside of it.
            running = _running(asked, project.name, name) if own is not None else frozenset()
        except Interrupted:
            raise
        except StackError:
            continue
        user, only = found[name], next(iter(running)) if len(running) == 1 else None
        found[name] = replace(user, running=running, uid=only if user.uid is None and user.name else user.uid)
    return found


def _running(engine: Engine, project: str, service: str) -> frozenset[int]:
    running = [each for each in engine.containers(project, service, brief=True) if each.running]
    return frozenset[int]().union(*(engine.uids(each.id) for each in running))


def _facts(path: Path, rules: Rules) -> PathFacts | None:
    try:
        seen = path.lstat()
    except OSError:
        return None
    owner = (seen.st_uid, seen.st_gid, seen.st_mode)
    if stat.S_ISDIR(seen.st_mode):
        mark = next((what for name, what in DATA_MARKS.items() if os.path.lexists(path / name)), "")
        return _with_list(path, PathFacts(*owner, mark))
    if not stat.S_ISREG(seen.st_mode):
        return PathFacts(*owner)
    mode, script = stat.S_IMODE(seen.st_mode), rules.is_executable(path.name)
    usual = mode_by_content(_head(path), mode, path.name, script=script)
    return _with_list(path, PathFacts(*owner, usual=usual))


def _with_list(path: Path, facts: PathFacts) -> PathFacts:
    """Return facts with the users and groups that the access control list of their path lets read it (acl(5))."""
    try:
        entries = list(struct.iter_unpack("<HHI", os.getxattr(path, ACL, follow_symlinks=False)[4:]))
    except (OSError, struct.error):
        return facts
    mask = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), 0o7)
    uids, gids = (
        frozenset(id for tag, rights, id in entries if tag == wanted and rights & mask & 0o4)
        for wanted in (_ACL_USER, _ACL_GROUP)
    )
    return replace(facts, listed_uids=uids, listed_gids=gids)


def _head(path: Path) -> bytes:
    """Return the first bytes of a file; none if it can't be read, or is no regular file any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, BUNDLE, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def _unread(error: StackError) -> Finding:
    return Finding(
        "perms.compose",
        None,
        readers.PHASE,
        "skip",
        "the compose file could not be read: which secrets and data folders it names is not known",
        error.message,
        error.hint or "",
    )
