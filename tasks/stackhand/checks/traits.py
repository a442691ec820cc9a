"""The traits of a service that the compose file shows: image, command, healthcheck, ports, labels."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stackhand.checks import commands
from stackhand.engine.compose.labels import KIND_LABEL
from stackhand.engine.compose.project import Service

# Words before such a word say nothing of an image: `postgres-exporter` is no postgres, `my-redis-app` no redis. But a
# project `web` with a service `redis` has the image `web-redis`.
_ABOUT_ANOTHER = frozenset(
    """
    admin api app backend backup bot browser cli client commander consumer dashboard express
    exporter frontend gateway gui init insight mcp meta metrics migrate migrations monitor operator producer proxy
    rest s3 sdk seed sentinel sidecar test tests tool tools ui viewer web webui worker
    """.split()  # noqa: SIM905
)


# Hosts in a healthcheck: `-h db`, `--host=db`, libpq's `host=db`, and those of URLs that no web server has.
_PROBED_HOST = re.compile(
    r"""
    (?:^|[\s'"]) (?: -h\s* | --host(?:name)?[= ]\s* | host= ) ['"]?
        (?P<host> \$\([^)]*\) | `[^`]*` | [^\s'"]+ )
    | \b (?!https?:) [a-z][a-z0-9+]*:// (?:[^\s@/'"]*@)? (?P<of_url> \[[^\]\s]*\] | [^\s:/?'"]* )
    | (?P<unknown> \$ \{? \w* (?:URL|URI|DSN)\b )
    """,
    re.VERBOSE | re.IGNORECASE,
)


_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::?-(?P<default>[^}]*))?\}|(?P<bare>\w+))")


_HERE = frozenset({"", "localhost", "0.0.0.0", "::1", "[::1]"})


# The engine gives it to every container, and it is no variable of the compose file.
_OWN_HOST = re.compile(r"\$\{?HOSTNAME\b|\$\(\s*hostname\b|`\s*hostname\b", re.IGNORECASE)


@dataclass(frozen=True)
class Traits:
    """A service as the compose file describes it, before it is asked.

    `images` are the words of the image's name that say what it is, without registry, tag and digest: nothing of
    `redis-exporter`; `argv` the words of entrypoint and command, those of a shell line one by one; `probe` the
    healthcheck's command as one text; `ports` the TCP ports inside the container; `label` the kinds that the label
    `stackhand.kind` names, None where it is not there; `names` what the service itself is called; `environment` its
    variables, those without a value left out.
    """

    images: frozenset[str] = frozenset()
    argv: tuple[str, ...] = ()
    probe: str = ""
    ports: frozenset[int] = frozenset()
    label: frozenset[str] | None = None
    names: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    @property
    def started(self) -> tuple[str, ...]:
        """All that the command starts, without folders: scripts, and what only starts others, included."""
        return commands.started(self.argv)

    @property
    def programs(self) -> frozenset[str]:
        """The programs that the command runs, without their folders, and without what only starts others.

        >>> Traits(argv=("tini", "--", "sh", "-c", "migrate", "&&", "exec", "celery", "worker")).programs == {
        ...     "migrate", "celery"}
        True
        """
        return frozenset(name for name in self.started if not commands.starts_others(name))

    @property
    def is_client(self) -> bool:
        """Whether the command is that of a job beside a server, whatever the image: it dumps, asks, waits."""
        return any(commands.is_client_program(name) for name in self.started)

    @property
    def healthcheck(self) -> str:
        """The healthcheck with the service's own variables in it: `pg_isready -h $HOST`."""
        return self.interpolate(self.probe)

    def interpolate(self, text: str) -> str:
        """Return a text of a shell with the service's own variables in it; those that are not known stay.

        >>> Traits(environment={"PORT": "80"}).interpolate("$PORT ${HOST:-here} ${OTHER}")
        '80 here ${OTHER}'
        """

        def value(found: re.Match[str]) -> str:
            given = self.environment.get(found["braced"] or found["bare"])
            return found[0] if given is None and found["default"] is None else given or found["default"] or ""

        return _VARIABLE.sub(value, text)

    @property
    def probes_itself(self) -> bool:
        """Whether the healthcheck asks this service, as far as it names a host (`-h`, `--host`, a URL) at all."""
        found = list(_PROBED_HOST.finditer(self.healthcheck))
        # The host that libpq's programs ask where the command names no other.
        beside = self.environment.get("PGHOST", "") if "pg_isready" in self.probe and not found else ""
        return self.is_own_host(beside) and all(
            not each["unknown"] and self.is_own_host(each["host"] or each["of_url"] or "") for each in found
        )

    def is_own_host(self, host: str) -> bool:
        """Return whether a host's name leads to the container itself, seen from inside it.

        A variable whose value is not known does not, and no host at all does.
        """
        return (
            host in _HERE or host in self.names or host.startswith(("127.", "/", "%2F")) or bool(_OWN_HOST.match(host))
        )


def traits(service: Service) -> Traits:
    """Return the traits of a service.

    >>> traits(Service("db", "docker.io/library/postgres:16-alpine")).images == {"postgres"}
    True
    """
    raw = service.raw
    words = [*_words(raw.get("entrypoint")), *_words(raw.get("command"))]
    test = (raw.get("healthcheck") or {}).get("test") or ()
    labels: Mapping[str, Any] = raw.get("labels") or {}
    label = labels.get(KIND_LABEL)
    return Traits(
        images=frozenset(_image_words(service)),
        argv=tuple(words),
        probe=test if isinstance(test, str) else " ".join(str(word) for word in test[1:]),
        ports=frozenset(_ports(raw)),
        label=None if label is None else frozenset(re.split(r"[\s,]+", str(label).strip())),
        names=frozenset(own_names(service)),
        environment={key: value for key, value in service.environment.items() if value},
    )


def own_names(service: Service) -> list[str]:
    """Return the names of a service on its networks: its own first, then those that the compose file adds."""
    raw = service.raw
    names = [service.name, raw.get("container_name"), raw.get("hostname")]
    for options in (raw.get("networks") or {}).values():
        names += (options or {}).get("aliases") or ()
    return [str(name) for name in dict.fromkeys(names) if name]


def _image_words(service: Service) -> list[str]:
    # Compose puts the project's name before that of an image which it builds under no name of its own.
    built = service.builds and not service.raw.get("image")
    name = service.name if built else service.image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]
    found: list[str] = []
    for word in re.split(r"[-_.]", name.lower()):
        if word in _ABOUT_ANOTHER:
            found.clear()
        else:
            # `postgres15` is a postgres.
            found += [word, word.rstrip("0123456789")]
    return [word for word in found if word]


def _words(command: Any) -> Iterable[str]:
    for word in [command] if isinstance(command, str) else command or ():
        try:
            # In a script the end of a line ends a command.
            yield from shlex.split(str(word).strip().replace("\n", " ; "))
        except ValueError:
            yield str(word)  # a quote that is never closed: a shell script of its own


def _ports(raw: Mapping[str, Any]) -> Iterable[int]:
    declared = [*(raw.get("expose") or ()), *(each.get("target") for each in raw.get("ports") or ())]
    for port in declared:
        number = str(port).partition("/")[0]
        if number.isdigit():
            yield int(number)
