"""A worker's main process, as it is seen from inside its container: its command line, its host's name, its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stackhand.checks import scripts
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult

# Celery's options that a value follows, and that come before the subcommand.
VALUED = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-l", "--loglevel")
# Exit codes of find_worker.sh.
_NOT_SEEN, _ANOTHER_USER = 3, 4


@dataclass(frozen=True)
class WorkerProcess:
    """The main process of a worker: its id, the name of its host, its command line, and the user that it runs as.

    `memory` has by process id what it and each of its children share with no other process, in bytes.
    """

    pid: int
    host: str
    words: tuple[str, ...] = ()
    user: str = ""
    memory: Mapping[int, int] = field(default_factory=dict)

    def option(self, *names: str) -> str:
        """Return the value of an option of its command line, "" where it has none.

        >>> WorkerProcess(1, "h", ("celery", "-Ashop", "worker", "--queues=a,b")).option("-Q", "--queues")
        'a,b'
        """
        for place, word in enumerate(self.words):
            for name in names:
                if word == name and place + 1 < len(self.words):
                    return self.words[place + 1]
                if word.startswith(f"{name}=") or (len(name) == 2 and word.startswith(name) and len(word) > 2):
                    return word[len(name) :].removeprefix("=")
        return ""


def look(context: CheckContext, service: str) -> WorkerProcess:
    """Return the worker's main process. Raises NoAnswer, CannotAsk where it cannot be seen."""
    return context.cached(("celery.process", service), lambda: _look(context, service))


def _look(context: CheckContext, service: str) -> WorkerProcess:
    user = ""
    answer = _find(context, service)
    if answer.exit_code == _ANOTHER_USER:
        user = answer.stdout.strip()
        answer = _find(context, service, user)
    if answer.exit_code is None:
        raise NoAnswer(answer.last_error)
    if answer.not_found:
        raise CannotAsk("its container has no shell to ask with")
    if answer.exit_code in (_NOT_SEEN, _ANOTHER_USER):
        raise CannotAsk(f"it cannot be looked at: {answer.stdout.strip() or answer.last_error}")
    if not answer.ok:
        raise NoAnswer(answer.last_error)
    return parse(answer.stdout, traits(context.project.services[service]).argv, user)


def _find(context: CheckContext, service: str, user: str = "") -> ExecResult:
    return context.shell(service, scripts.read(__package__, "find_worker.sh"), " ".join(VALUED), user=user)


def parse(text: str, argv: Sequence[str], user: str = "") -> WorkerProcess:
    """Return what find_worker.sh printed. `argv` is what the compose file runs, for a process with another title.

    >>> parse("\\036worker 7 host\\ncelery\\nworker\\n\\036memory 7 64\\n", ()).memory
    {7: 65536}
    """
    pid, host, words = 0, "", tuple(argv)
    memory: dict[int, int] = {}
    for name, about, body in scripts.sections(text):
        first, _, second = about.partition(" ")
        if name == "worker":
            pid, host = int(first), second
            words = words if body.startswith("[celeryd") else tuple(body.split("\n"))
        elif name == "memory":
            memory[int(first)] = int(second) * 1024
    return WorkerProcess(pid, host, words, user, memory)
