"""Asks Celery workers by remote control, with the Python, application and broker of one of them (3.6 and later).

What to ask is JSON in STACKHAND_ASK: options of the command line, the workers by a key of ours, and a time limit in
seconds. Prints lines of JSON after anything that the application may print; the last one counts. A ping is not enough:
a worker may answer it and consume nothing after its broker was away (Celery #8030, #8990, #9054).
"""

import contextlib
import json
import os
import signal
import sys
import time
from urllib.parse import unquote, urlsplit

OUT = sys.stdout
# What is printed; passwords that are not to be in it.
said, hidden = {"stage": "import"}, []


def tell():
    OUT.write("\n" + json.dumps(said) + "\n")
    OUT.flush()


def end(error="", kind=""):
    """Print what was said so far, and end without waiting for anything."""
    if error:
        for word in hidden:
            error = error.replace(word, "***")
        said.update(error=error, kind=kind)
    tell()
    os._exit(0)


def waited():
    """Return for how many seconds this process has waited for a core: others on this machine had it."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def load_app(asked):
    if asked["workdir"]:
        os.chdir(asked["workdir"])
    for variable, given in (("CELERY_BROKER_URL", asked["broker"]), ("CELERY_CONFIG_MODULE", asked["config"])):
        if given:
            os.environ[variable] = given
    sys.path.insert(0, os.getcwd())
    import celery
    from celery.app.utils import find_app

    name = asked["app"] or os.environ.get("CELERY_APP")
    app = find_app(name) if name else celery.current_app._get_current_object()
    if not name and not app.conf.broker_url:
        raise LookupError("its command names none (-A), and neither do CELERY_APP and CELERY_BROKER_URL")
    for url in (app.conf.broker_read_url, app.conf.broker_write_url, app.conf.broker_url, app.conf.result_backend):
        with contextlib.suppress(ValueError):
            word = isinstance(url, str) and urlsplit(url).password
            hidden.extend([word, unquote(word)] if word else [])
    return app


def node_name(option, host):
    """Return the name of the node whose worker has this option -n and runs on this host, as Celery makes it."""
    from celery.utils.nodenames import host_format

    return host_format(option if "@" in option else "celery@" + (option or host), host=host)


def connect(app, limit):
    if not app.conf.worker_enable_remote_control:
        end("its remote control is switched off (worker_enable_remote_control)", "control")
    try:
        connection = app.connection_for_write()
        if "fanout" not in connection.transport.implements.exchange_type:
            end("its broker has no remote control", "control")
        connection.ensure_connection(max_retries=0, timeout=limit)
    except Exception as error:
        end(f"{type(error).__name__}: {error}", "broker")
    return connection


def ask_workers(app, connection, workers, limit):
    nodes = {key: worker["node"] for key, worker in workers.items()}
    said["default"] = list(app.amqp.queues.consume_from)

    def ask(what, of):
        wanted = sorted({nodes[key] for key in of})
        inspect = app.control.inspect(destination=wanted, timeout=limit, connection=connection)
        found = (getattr(inspect, what)() or {}) if wanted else {}
        return {key: found[nodes[key]] for key in of if nodes[key] in found}

    awake = ask("ping", workers)
    queues = ask("active_queues", awake)
    stats = ask("stats", queues)
    for key, found in queues.items():
        pool = stats.get(key, {}).get("pool") or {}
        processes = [each for each in pool.get("processes") or () if isinstance(each, int)]
        workers[key].update(
            queues=[each["name"] for each in found or ()],
            concurrency=pool.get("max-concurrency") or 0,
            processes=processes,
        )
    idle = [key for key in queues if not workers[key]["queues"]]
    for key, tasks in ask("active", idle).items():
        workers[key]["active"] = len(tasks or ())


def main():
    asked = json.loads(os.environ.pop("STACKHAND_ASK"))
    limit = asked["limit"]
    with contextlib.redirect_stdout(sys.stderr):
        tell()
        try:
            began, before = time.time(), waited()
            app = load_app(asked)
            said["imported"] = max(0.0, time.time() - began - (waited() - before))
            said["workers"] = asked["workers"]
            for worker in asked["workers"].values():
                worker["node"] = node_name(worker["name"], worker["host"])
        except BaseException as error:
            end(f"{type(error).__name__}: {error}", "app")
        said["stage"] = "ask"
        # A broker that takes the connection and says nothing holds up a client longer than its time-outs.
        longest = int(4 * limit)
        signal.signal(signal.SIGALRM, lambda *_: end(f"the broker does not answer within {longest} s", "broker"))
        signal.alarm(longest)
        connection = connect(app, limit)
        try:
            ask_workers(app, connection, asked["workers"], limit)
        except Exception as error:
            end(f"{type(error).__name__}: {error}", "broker")
    end()


if __name__ == "__main__":
    main()
