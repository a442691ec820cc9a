"""Finds the programs that a container's command starts, behind shells and wrappers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

# After these words a program comes.
_SHELL_WORDS = frozenset("&& || ; | & -- ! ( { do then else if while until exec".split())  # noqa: SIM905
# What only starts another program, each with those of its options that a value follows.
_WRAPPERS: Mapping[str, frozenset[str]] = {
    name: frozenset(options.split())
    for name, options in (
        *dict.fromkeys(
            """
            auto-restart catatonit command dash ddtrace-run docker-init dumb-init newrelic-admin nohup
            opentelemetry-instrument pdm pipenv run run-program runuser s6-setuidgid stdbuf su-exec time
            """.split(),  # noqa: SIM905
            "",
        ).items(),
        *dict.fromkeys(("ash", "bash", "sh"), "-o -eo -euo -O").items(),
        ("chroot", ""),
        ("conda", "-n -p --name --prefix"),
        ("dotenv", "-f --file"),
        ("env", "-u -C"),
        ("gosu", ""),
        ("ionice", "-c -n"),
        ("nice", "-n"),
        ("poetry", "-C -P --directory --project"),
        ("setpriv", "--reuid --regid --groups --bounding-set --inh-caps"),
        ("sudo", "-u -g"),
        ("timeout", "-k -s"),
        ("tini", "-e -p"),
        ("uv", "-p --directory --env-file --extra --group --package --project --python --with"),
        ("uvx", "-p --from --python --with"),
        ("watchfiles", "--args --filter --grace-period --ignore-paths --target-type --verbosity"),
        ("watchmedo", "-d -i -p --directory --ignore-patterns --interval --kill-after --pattern --patterns --signal"),
    )
}
_WRAPPERS_WITH_A_WORD = frozenset({"chroot", "gosu", "s6-setuidgid", "su-exec", "timeout"})
_INTERPRETER = re.compile(r"python[\d.]*$|pypy[\d.]*$|.*\.(ba)?sh$|.*entrypoint.*")
_INTERPRETERS_OPTIONS = frozenset({"-X", "-W"})
# A container of a server's image that runs one of these is a client of some server: a job that dumps, say.
_CLIENTS = frozenset(
    """
    createdb createuser cron crond curl dropdb keydb-cli mariadb mariadb-dump mysql mysqldump pg_basebackup pg_dump
    pg_dumpall pg_isready pg_receivewal pg_restore pgbench psql redis-benchmark redis-cli sleep supercronic tail
    vacuumdb valkey-cli wget
    """.split()  # noqa: SIM905
)
# So does one that runs a script with such a name: /scripts/db-backup.sh.
_CHORE = re.compile(r"(^|[-_.])(backups?|cron|dumps?|migrate|restore|seed)([-_.]|$)")


def started(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the programs that a command starts, without folders: scripts, shells and wrappers included.

    >>> started(["tini", "--", "uv", "run", "--package", "shop", "celery", "worker"])
    ('tini', 'uv', 'run', 'celery')
    """
    found: list[str] = []
    expected, owed, valued = True, False, frozenset[str]()
    words = iter(argv)
    for word in words:
        name = PurePosixPath(word.rstrip(";")).name
        if word in _SHELL_WORDS:
            expected, owed, valued = True, False, frozenset()
        elif expected and word in valued:
            next(words, None)
        elif expected and owed and not word.startswith("-"):
            owed = False
        elif expected and name and not word.startswith("-") and "=" not in word:
            found.append(name)
            expected, owed = starts_others(name), name in _WRAPPERS_WITH_A_WORD
            valued |= _WRAPPERS.get(name, _INTERPRETERS_OPTIONS)
        expected = expected or word.endswith(";")
    return tuple(found)


def starts_others(name: str) -> bool:
    """Return whether a program of this name only starts others: a shell, a wrapper, Python."""
    return name in _WRAPPERS or bool(_INTERPRETER.match(name))


def is_client_program(name: str) -> bool:
    """Return whether a container that runs this is a client of a server, whatever its image: it dumps, asks, waits."""
    return name in _CLIENTS or bool(_CHORE.search(name))
