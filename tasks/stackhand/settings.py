"""All settings, with their defaults, types and bounds.

The classes below are both schema and documentation; a test compares `docs/settings.md` with them. Values come from
Invoke's configuration (`stackhand:` at any of its levels). An unknown key, a wrong type or an impossible value is exit
code 2, with the path of the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_origin

import msgspec
from msgspec import Meta

from stackhand.errors import InvalidSetting, UnknownSetting, did_you_mean

Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]

ENV_PREFIX = "INVOKE_STACKHAND_"
_WORDS = {"int": "a whole number (int)", "float": "a number (float)", "str": "text (str)", "bool": "true or false"}


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Starting services."""

    retries: Count = 3
    """Attempts that a service gets, including the first."""
    retry_delay: Seconds = 5.0
    """Seconds before the second attempt."""
    backoff: Annotated[float, Meta(ge=1)] = 2.0
    """Factor for the delay before each further attempt."""
    timeout: Positive = 120.0
    """Seconds that a service may take to become ready, from each start of its container."""
    settle: Seconds = 1.0
    """Seconds that a service without a healthcheck must run to count as ready."""
    log_lines: Annotated[int, Meta(ge=0)] = 15
    """Log lines shown of a service that failed."""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The worker tasks."""

    service: str = "worker"
    """The service that they look at by default."""


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A database role that must exist, beside those that clients use."""

    server: str = ""
    """The database server's service; needed only if there are several."""
    secret: str = ""
    """The Compose secret with its password. Without a secret, a missing role is created without a password."""
    grants: tuple[str, ...] = ()
    """Its rights, as between GRANT and TO: `SELECT ON ALL TABLES IN SCHEMA public`."""
    database: str = ""
    """The database of the grants; needed only if its clients use several."""


class Fixes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The post-startup fixes. An ordinary stack needs no settings here."""

    roles: dict[str, Role] = {}
    """Database roles by name, with their grants."""
    migrate: str = ""
    """The service that applies migrations, or `SERVICE: COMMAND`. A one-shot that does so is found without this."""
    warm: dict[str, tuple[str, ...]] = {}
    """Warm-ups by service, in the terms of its kind: queries, Redis commands, paths, models."""
    steps: tuple[str, ...] = ()
    """Invoke tasks of the project that run after all other fixes."""
    certificate_days: Annotated[float, Meta(ge=0)] = 14.0
    """Days before its expiry from which a certificate is a warning."""
    patience: Positive = 30.0
    """Seconds that a stack may take, after a fix, to recover by itself."""
    overload: Annotated[float, Meta(ge=0)] = 4.0
    """Tasks for each core from which a missing answer is no failure, for the machine is overloaded; 0: it always is."""


class Perms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Owners and modes of the project's files. Paths are relative to the project's folder."""

    roots: tuple[str, ...] = ("scripts", "docker", "config", "app", "logs", "secrets", "docs")
    """Folders whose entries get an owner and a mode: 755 for folders and scripts, 644 for other files."""
    secrets: tuple[str, ...] = ("secrets",)
    """Folders and files that only their owner may read: 700 and 600."""
    executable: tuple[str, ...] = ("*.sh",)
    """Name patterns of scripts. Files that begin with `#!` or that git records as executable are scripts, too."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything below `stackhand:`."""

    start: Start = Start()
    worker: Worker = Worker()
    fixes: Fixes = Fixes()
    perms: Perms = Perms()


def load(raw: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return validated settings from Invoke's merged `stackhand` section.

    `raw` has None for what is not set. Invoke ignores misspelt variables `INVOKE_STACKHAND_…`, and all of them if these
    tasks are part of another collection; so they are read from `environ` here.

    Raises UnknownSetting or InvalidSetting, both naming the key's path.
    """
    _check_variables(environ)
    given = _given(raw, Settings, "stackhand")
    for key in known_keys():
        section, name = key.split(".")
        if _variable(key) in environ:
            kind = _sections(_sections(Settings)[section])[name]
            given.setdefault(section, {}).setdefault(name, _plain(environ[_variable(key)], kind))
    try:
        # Not strict: environment variables are strings, so "3" has to count as a number.
        return msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        path = "stackhand" + place.rstrip("`")
        raise InvalidSetting(f"{path}: {_plainly(problem)}", _where(path, environ)) from None


def defaults() -> dict[str, Any]:
    """Return the tree to configure Invoke with: every key, each with the value None.

    Invoke reads environment variables only for keys that it knows, and casts them to the type of the present value,
    with a traceback if it cannot. With None it leaves the string as it is, and `load` converts it. A value that is a
    section starts as {}, because Invoke does not merge a section into None.
    """
    return {
        name: {key: {} if get_origin(kind) is dict else None for key, kind in _sections(section).items()}
        for name, section in _sections(Settings).items()
    }


def known_keys() -> list[str]:
    """Return the dotted path of every setting, without the leading `stackhand.`."""
    return [f"{name}.{key}" for name, section in _sections(Settings).items() for key in section.__struct_fields__]


def _variable(key: str) -> str:
    return ENV_PREFIX + key.replace(".", "_").upper()


def _sections(struct: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    return {field.name: field.type for field in msgspec.structs.fields(struct)}


def _given(raw: Mapping[str, Any], struct: type[msgspec.Struct], path: str) -> dict[str, Any]:
    """Return `raw` without the values that are not set. Raises UnknownSetting, InvalidSetting."""
    if not isinstance(raw, Mapping):
        raise InvalidSetting(f"{path}: expected a section, got {raw!r}")
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    given: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            raise UnknownSetting(
                f"unknown setting {path}.{key}", did_you_mean(str(key), sorted(fields), f"settings in {path}")
            )
        kind = fields[key]
        if value is None or (hasattr(value, "items") and not value):
            continue
        if kind is not str and _is_not_finite(value):
            raise InvalidSetting(f"{path}.{key}: expected a finite number, not {value}")
        is_section = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        given[key] = _given(value, kind, f"{path}.{key}") if is_section else _plain(value, kind)
    return given


def _plain(value: Any, kind: Any) -> Any:
    """Return a value without Invoke's wrappers. Text from the environment is split if `kind` is a list."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {str(key): _plain(entry, None) for key, entry in value.items()}
    if isinstance(value, str) and get_origin(kind) is tuple:
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _is_not_finite(value: Any) -> bool:
    """Return whether this is infinity or NaN, which YAML allows and no bound excludes."""
    try:
        return isinstance(value, (float, str)) and not math.isfinite(float(value))
    except ValueError:
        return False


def _check_variables(environ: Mapping[str, str]) -> None:
    known: Sequence[str] = [_variable(key) for key in known_keys()]
    for name in environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            raise UnknownSetting(f"unknown environment variable {name}", did_you_mean(name, known, "known variables"))


def _where(path: str, environ: Mapping[str, str]) -> str | None:
    name = "INVOKE_" + path.replace(".", "_").upper()
    return f"it comes from the environment variable {name}" if name in environ else None


def _plainly(problem: str) -> str:
    """Return a validator's message in plain words, without Python's names of types."""
    for type_, words in _WORDS.items():
        problem = problem.replace(f"`{type_}`", words)
    return problem[:1].lower() + problem[1:]
