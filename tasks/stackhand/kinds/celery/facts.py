"""What a Celery worker says of itself, asked by remote control with its own interpreter, application and broker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stackhand.checks.check import CannotAsk, NoAnswer
from stackhand.checks.context import CheckContext
from stackhand.checks.traits import traits
from stackhand.engine.api.exec import ExecResult

# Celery's own default of 1 s gives false alarms when the broker is busy.
TIMEOUT = 3.0
_LIMIT = 12.0
# Celery's options that a value follows, and that come before the subcommand.
VALUED = ("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-l", "--loglevel")

# Finds the worker's main process by its command line, which everybody may read, and hands over to Python. What an
# entrypoint has put into its environment and working folder is nowhere else to be had; the process's own binary is
# there in any image. Only its own user may look at those: not even root may, without the capability SYS_PTRACE (Linux,
# ptrace(2)). Then this ends with that user for an answer.
_FIND = r"""
# Whether these are the words of a worker: the program or Python's script is celery, and its subcommand is worker. What
# restarts one when its code changes (watchfiles) has such words, too, and is none.
works() {
  at=program value=
  for word; do
    case $value$at:${word##*/} in
      value*) value=;;
      program:*python* | program:*pypy*) at=script;;
      script:-[XW]) value=value;;
      script:-*) ;;
      program:*celery* | script:*celery* | inner:celery) at=subcommand;;
      script:airflow | script:*manage*) at=inner;;
      script:__main__.py) case $word in */celery/*) at=subcommand;; *) return 1;; esac;;
      program:* | script:* | inner:*) return 1;;
      *) case $word in @VALUED@) value=value;; -*) ;; *) [ "$word" = worker ]; return;; esac
    esac
  done
  return 1
}
found=
for folder in /proc/[0-9]*; do
  line="$(tr '\0' ' ' < "$folder/cmdline" 2>/dev/null) "
  program=${line%% *}
  case ${program##*/} in *python* | *pypy* | celery | *celeryd:*) ;; *) continue;; esac
  set -f
  case $line in *celeryd:*) ;; *) works $line || continue;; esac
  number=${folder#/proc/}
  if [ -z "$found" ] || [ "$number" -lt "$found" ]; then found=$number; fi
done
set +f
[ -n "$found" ] || { echo "none of its processes can be seen to be a celery worker"; exit 3; }
ids() {
  while read -r name real rest; do
    case $name in Uid:) uid=$real;; Gid:) gid=$real;; esac
  done < "/proc/$1/status"
  echo "$uid:$gid"
}
theirs=$(ids "$found")
[ "$theirs" = "$(ids self)" ] || { echo "$theirs"; exit 4; }
python=$(readlink "/proc/$found/exe")
[ -n "$python" ] || { echo "the program of its process cannot be read"; exit 3; }
exec "$python" -ISc "$1" "$found" "$2"
""".replace("@VALUED@", " | ".join(VALUED))
_NOT_SEEN, _ANOTHER_USER = 3, 4

_BECOME = r"""
import os, shutil, sys
pid = sys.argv[1]
def read(name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return [word.decode("utf-8", "surrogateescape") for word in file.read().split(b"\0")]
env = dict(os.environ)
try:
    env.update(pair.partition("=")[::2] for pair in read("environ") if "=" in pair)
    os.chdir(f"/proc/{pid}/cwd")
    os.chdir(os.readlink(f"/proc/{pid}/cwd"))
except OSError:
    pass
# In a virtual environment argv[0], not the binary, leads to the packages. A changed process title has neither.
python = shutil.which(read("cmdline")[0], path=env.get("PATH"))
if not python:
    try:
        with open(shutil.which("celery", path=env.get("PATH")), "rb") as script:
            python = script.readline().decode()[2:].split()[0]
    except (OSError, TypeError, IndexError, ValueError):
        pass
os.execve(python or sys.executable, [python or "python", "-c", sys.argv[2], pid], env)
"""

_ASK = r"""
import contextlib, json, os, signal, sys
from urllib.parse import unquote, urlsplit
TIMEOUT, LIMIT = 3.0, 10
out = sys.stdout
pid, said = sys.argv[1], {}

def tell(error="", kind=""):
    if error:
        for word in hidden:
            error = error.replace(word, "***")
        said.update(error=error, kind=kind)
    out.write("\n" + json.dumps(said) + "\n")
    out.flush()
    os._exit(0)

def option(*names):
    for place, word in enumerate(words):
        for name in names:
            if word == name and place + 1 < len(words):
                return words[place + 1]
            if word.startswith(name + "=") or (len(name) == 2 and word.startswith(name) and len(word) > 2):
                return word[len(name):].lstrip("=")
    return ""

def size(number):
    try:
        with open(f"/proc/{number}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024
    except OSError:
        return 0

hidden = []
# A broker that takes the connection and says nothing holds up a client longer than its time-outs.
signal.signal(signal.SIGALRM, lambda *_: tell("the broker does not answer", "broker"))
signal.alarm(LIMIT)
with open(f"/proc/{pid}/cmdline") as file:
    words = file.read().split("\0")
if words[0].startswith("[celeryd"):
    words = json.loads(os.environ.get("STACKHAND_ARGV") or "[]")
with contextlib.redirect_stdout(sys.stderr):
    try:
        if option("--workdir"):
            os.chdir(option("--workdir"))
        for variable, given in (
            ("CELERY_BROKER_URL", option("-b", "--broker")), ("CELERY_CONFIG_MODULE", option("--config"))
        ):
            if given:
                os.environ[variable] = given
        sys.path.insert(0, os.getcwd())
        import celery
        from celery.app.utils import find_app
        from celery.utils.nodenames import host_format
        name = option("-A", "--app") or os.environ.get("CELERY_APP")
        app = find_app(name) if name else celery.current_app._get_current_object()
        if not name and not app.conf.broker_url:
            raise LookupError("its command names none (-A), and neither do CELERY_APP and CELERY_BROKER_URL")
        for url in (app.conf.broker_read_url, app.conf.broker_write_url, app.conf.broker_url, app.conf.result_backend):
            with contextlib.suppress(ValueError):
                word = isinstance(url, str) and urlsplit(url).password
                hidden += [word, unquote(word)] if word else []
    except BaseException as error:
        tell(f"{type(error).__name__}: {error}", "app")
    node = option("-n", "--hostname") or "celery@%h"
    said["name"] = node = host_format(node if "@" in node else node + "@%h")
    said["solo"] = option("-P", "--pool") == "solo"
    said["autoscale"] = option("--autoscale")
    if not app.conf.worker_enable_remote_control:
        tell("its remote control is switched off (worker_enable_remote_control)", "control")
    try:
        connection = app.connection_for_write()
        if "fanout" not in connection.transport.implements.exchange_type:
            tell("its broker has no remote control", "control")
        connection.ensure_connection(max_retries=0, timeout=TIMEOUT)
    except Exception as error:
        tell(f"{type(error).__name__}: {error}", "broker")
    try:
        def ask(what):
            worker = app.control.inspect(destination=[node], timeout=TIMEOUT, connection=connection)
            answer = getattr(worker, what)() or {}
            return answer.get(node, Ellipsis)
        if ask("ping") is Ellipsis:
            tell(f"{node} does not answer within {TIMEOUT:g} s, and its broker does", "silent")
        queues, stats = ask("active_queues"), ask("stats")
        said["queues"] = [each["name"] for each in queues or []] if queues is not Ellipsis else []
        if not said["queues"]:
            said["active"] = len(ask("active") or [])
        wanted = option("-Q", "--queues").split(",") if option("-Q", "--queues") else list(app.amqp.queues.consume_from)
        said["wanted"] = [each for each in wanted if each not in option("-X", "--exclude-queues").split(",")]
        pool = stats.get("pool", {}) if isinstance(stats, dict) else {}
        said["concurrency"] = pool.get("max-concurrency") or 0
        children = [each for each in pool.get("processes") or () if isinstance(each, int)]
        said["children"] = [size(each) for each in children]
        said["main"] = size(pid)
    except Exception as error:
        tell(f"{type(error).__name__}: {error}", "broker")
tell()
"""


@dataclass(frozen=True)
class CeleryFacts:
    """What a worker said. Sizes in bytes, `cpus` in cores; 0 is no limit.

    `active` is how many tasks it works on, where it consumes nothing. `children` are the sizes of the processes of
    its pool, without what they share; none where the pool is no pool of processes.
    """

    name: str
    queues: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    active: int = 0
    concurrency: int = 0
    autoscale: str = ""
    children: tuple[int, ...] = ()
    main: int = 0
    cpus: float = 0.0
    memory_limit: int = 0
    memory_used: int = 0


def look(context: CheckContext, service: str) -> CeleryFacts:
    """Ask a worker. Raises NoAnswer where it or its broker does not answer, CannotAsk where it cannot be asked."""
    container = context.container(service)
    answer = _ask(context, service)
    if answer.exit_code == _ANOTHER_USER:
        answer = _ask(context, service, user=answer.stdout.strip())
    if answer.exit_code is None:
        raise NoAnswer(f"no answer within {answer.seconds:.0f} s")
    if answer.not_found:
        raise CannotAsk("its container has no shell to ask with")
    if answer.exit_code in (_NOT_SEEN, _ANOTHER_USER):
        raise CannotAsk(f"it cannot be looked at: {answer.stdout.strip() or answer.last_error}")
    if not answer.ok:
        raise NoAnswer(answer.last_error)
    said = said_by(answer.stdout)
    limit = container.memory_limit
    return CeleryFacts(
        name=said["name"],
        queues=frozenset(said["queues"]),
        wanted=frozenset(said["wanted"]),
        active=said.get("active", 0),
        concurrency=said["concurrency"],
        autoscale=said["autoscale"],
        children=tuple(said["children"]),
        main=said["main"],
        cpus=container.cpus,
        memory_limit=limit,
        memory_used=context.engine.memory(container.id) if limit else 0,
    )


def _ask(context: CheckContext, service: str, user: str = "") -> ExecResult:
    argv = json.dumps(traits(context.project.services[service]).argv)
    variables = {"STACKHAND_ARGV": argv}
    return context.shell(service, _FIND, _BECOME, _ASK, environment=variables, user=user, timeout=_LIMIT)


def said_by(stdout: str) -> dict[str, Any]:
    """Return what the script printed last. Raises NoAnswer, CannotAsk with its reason where it got no answer."""
    try:
        said: dict[str, Any] = json.loads((stdout.strip().splitlines() or [""])[-1])
    except ValueError as error:
        raise NoAnswer("it could not be asked: its Python printed no answer") from error
    match said.get("kind"):
        case "silent" if said.get("solo"):
            raise CannotAsk("it works in its only process (pool solo), and answers between tasks")
        case "silent" | "broker":
            raise NoAnswer(said["error"])
        case "app":
            raise CannotAsk(f"its application could not be loaded to ask it: {said['error']}")
        case "control":
            raise CannotAsk(said["error"])
    return said
