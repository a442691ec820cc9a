"""Reads the facts that the rules are made of: settings, the compose file, the engine, git, mounts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackhand.engine import git, mounts
from stackhand.engine.command import Commands
from stackhand.engine.files import FILE_NAMES, OVERRIDE_NAMES
from stackhand.engine.project import Project
from stackhand.errors import Interrupted, StackError
from stackhand.model import Finding
from stackhand.perms import readers
from stackhand.perms.rules import DATA_MARKS, Rules, Special, Target
from stackhand.settings import Perms
from stackhand.state import FOLDER

if TYPE_CHECKING:
    from stackhand.engine.client import Engine

_TOP_FILES = (".env", "*.env", "run.sh", *FILE_NAMES, *OVERRIDE_NAMES)


def survey(
    root: Path,
    settings: Perms,
    target: Target,
    commands: Commands,
    project: Callable[[], Project],
    engine: Callable[[], Engine],
    compose_files: Iterable[str] = (),
) -> tuple[Rules, tuple[Finding, ...]]:
    """Return the rules for a project, and what is to be said about who reads its files.

    Where Compose or the engine can't be asked, the rules are those of the settings, and a finding says what is missing.
    """
    top_files = (*_TOP_FILES, *(each for each in compose_files if "/" not in each))
    plain = Rules(target, settings.roots, settings.secrets, settings.executable, top_files)
    special: dict[str, dict[str, Special]] = {}
    for path in git.executables(commands, root):
        if plain.area(path, folder=False).file == 0o644:
            _add(special, path, Special(mode=0o755, plain=True))
    try:
        found, findings = _of_compose(root, plain, project(), engine)
    except Interrupted:
        raise
    except StackError as error:
        found, findings = {}, (_unread(error),)
    for path, exception in found.items():
        _add(special, path, exception)
    for path in mounts.below(root):
        _add(special, path, Special(leave="another file system is mounted there"))
    # stackhand's own; a fix looks after it by itself.
    _add(special, FOLDER, Special(leave=""))
    return Rules(target, settings.roots, settings.secrets, settings.executable, top_files, special), findings


def _add(special: dict[str, dict[str, Special]], path: str, exception: Special) -> None:
    folder, _, name = path.rpartition("/")
    special.setdefault(folder, {})[name] = exception


def _of_compose(
    root: Path, rules: Rules, project: Project, engine: Callable[[], Engine]
) -> tuple[dict[str, Special], tuple[Finding, ...]]:
    facts = {use.path: seen for use in readers.uses(project) if (seen := _facts(use.path))}
    if not facts:
        return {}, ()
    names = {use.service for use in readers.uses(project) if use.path in facts}
    known = readers.known(project, root, rules, _users(project, names, engine), facts)
    flat = {
        f"{path}/{name}" if path else name: each for path, some in known.special.items() for name, each in some.items()
    }
    return flat, known.findings


def _users(project: Project, names: Iterable[str], engine: Callable[[], Engine]) -> dict[str, readers.User]:
    found: dict[str, readers.User] = {}
    asked: Engine | None = None
    for name in names:
        service = project.services[name]
        user = readers.declared(service.raw, None)
        try:
            asked = asked or engine()
            image = asked.image(service.image)
            user = readers.declared(service.raw, image.user if image else None)
            running = [each for each in asked.containers(project.name, name, brief=True) if each.running]
            uids = frozenset().union(*(asked.uids(each.id) for each in running))
            only = next(iter(uids)) if len(uids) == 1 else None
            user = replace(user, running=uids, uid=only if user.uid is None and user.name else user.uid)
        except Interrupted:
            raise
        except StackError:
            pass  # what the compose file itself says has to do
        found[name] = user
    return found


def _facts(path: Path) -> readers.Facts | None:
    try:
        seen = path.lstat()
    except OSError:
        return None
    mark = next((what for name, what in DATA_MARKS.items() if os.path.lexists(path / name)), "")
    return readers.Facts(seen.st_uid, seen.st_gid, seen.st_mode, mark)


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
