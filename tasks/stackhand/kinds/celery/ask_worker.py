"""Asks a Celery worker by remote control, with its own Python (3.6 and later), application and broker.

The only word is the worker's process id. Prints one line of JSON, after anything that the application may print. A
ping is not enough: a worker may answer it and consume nothing after its broker was away (Celery #8030, #8990, #9054).
"""

import contextlib
import json
import os
import signal
import sys
from urllib.parse import unquote, urlsplit

# Seconds. Celery's own default of 1 s gives false alarms when the broker is busy.
TIMEOUT, LIMIT = 3.0, 10

OUT = sys.stdout
# What is printed; passwords that are not to be in it; the words of the worker's command line.
said, hidden, words = {}, [], []


def tell(error="", kind=""):
    """Print what was said so far, and end without waiting for anything."""
    if error:
        for word in hidden:
            error = error.replace(word, "***")
        said.update(error=error, kind=kind)
    OUT.write("\n" + json.dumps(said) + "\n")
    OUT.flush()
    os._exit(0)


def option(*names):
    """Return the value of an option of the worker's command line, "" where it has none."""
    for place, word in enumerate(words):
        for name in names:
            if word == name and place + 1 < len(words):
                return words[place + 1]
            if word.startswith(name + "=") or (len(name) == 2 and word.startswith(name) and len(word) > 2):
                return word[len(name) :].lstrip("=")
    return ""


def size(number):
    """Return the bytes of memory that a process shares with no other."""
    try:
        with open(f"/proc/{number}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024
    except OSError:
        return 0


def read_command(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        found = file.read().split("\0")
    # A changed process title: then the words of the compose file count.
    words[:] = json.loads(os.environ.get("STACKHAND_ARGV") or "[]") if found[0].startswith("[celeryd") else found


def load_app():
    if option("--workdir"):
        os.chdir(option("--workdir"))
    for variable, given in (
        ("CELERY_BROKER_URL", option("-b", "--broker")),
        ("CELERY_CONFIG_MODULE", option("--config")),
    ):
        if given:
            os.environ[variable] = given
    sys.path.insert(0, os.getcwd())
    import celery
    from celery.app.utils import find_app

    name = option("-A", "--app") or os.environ.get("CELERY_APP")
    app = find_app(name) if name else celery.current_app._get_current_object()
    if not name and not app.conf.broker_url:
        raise LookupError("its command names none (-A), and neither do CELERY_APP and CELERY_BROKER_URL")
    for url in (app.conf.broker_read_url, app.conf.broker_write_url, app.conf.broker_url, app.conf.result_backend):
        with contextlib.suppress(ValueError):
            word = isinstance(url, str) and urlsplit(url).password
            hidden.extend([word, unquote(word)] if word else [])
    return app


def node_name():
    from celery.utils.nodenames import host_format

    node = option("-n", "--hostname") or "celery@%h"
    return host_format(node if "@" in node else node + "@%h")


def connect(app):
    if not app.conf.worker_enable_remote_control:
        tell("its remote control is switched off (worker_enable_remote_control)", "control")
    try:
        connection = app.connection_for_write()
        if "fanout" not in connection.transport.implements.exchange_type:
            tell("its broker has no remote control", "control")
        connection.ensure_connection(max_retries=0, timeout=TIMEOUT)
    except Exception as error:
        tell(f"{type(error).__name__}: {error}", "broker")
    return connection


def ask_worker(app, connection, node, pid):
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


def main(pid):
    # A broker that takes the connection and says nothing holds up a client longer than its time-outs.
    signal.signal(signal.SIGALRM, lambda *_: tell("the broker does not answer", "broker"))
    signal.alarm(LIMIT)
    read_command(pid)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            app = load_app()
            said["name"] = node = node_name()
        except BaseException as error:
            tell(f"{type(error).__name__}: {error}", "app")
        said["solo"] = option("-P", "--pool") == "solo"
        said["autoscale"] = option("--autoscale")
        connection = connect(app)
        try:
            ask_worker(app, connection, node, pid)
        except Exception as error:
            tell(f"{type(error).__name__}: {error}", "broker")
    tell()


if __name__ == "__main__":
    main(sys.argv[1])
