"""Which process of a container is the worker: the script that asks is run, on real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import project, service
from shells import Shell, context, running

from stackhand.checks import scripts
from stackhand.checks.check import CannotAsk
from stackhand.engine.api.exec import ExecResult
from stackhand.kinds.celery.application import answer_in, reply_in
from stackhand.kinds.celery.process import VALUED, parse

MINE = "0"


def _probe(name: str) -> str:
    return scripts.read("stackhand.kinds.celery", name)


CELERY = """
import types, sys
conf = types.SimpleNamespace(broker_url=None, broker_read_url=None, broker_write_url=None, result_backend=None,
    worker_enable_remote_control=False)
current_app = types.SimpleNamespace(conf=conf, _get_current_object=lambda: current_app)
for name in ("app", "app.utils", "utils", "utils.nodenames"):
    sys.modules["celery." + name] = types.ModuleType(name)
sys.modules["celery.app.utils"].find_app = lambda name: current_app
sys.modules["celery.utils.nodenames"].host_format = lambda node, host: node.replace("%h", host)
"""


@pytest.mark.parametrize(
    ("named", "variables", "says"),
    [
        ("", {}, "names none"),
        ("shop", {}, "remote control is switched off"),
        ("", {"CELERY_APP": "shop"}, "remote control is switched off"),
    ],
)
def test_no_application_is_asked_that_nobody_named(
    tmp_path: Path, named: str, variables: dict[str, str], says: str
) -> None:
    """The default application would be asked at the default broker, and not be there."""
    (tmp_path / "celery.py").write_text(CELERY)
    done = _ask({"it": {"name": "", "host": "h"}}, tmp_path, variables, app=named)
    with pytest.raises(CannotAsk, match=says):
        answer_in(done)


def _ask(workers: dict[str, Any], folder: Path, variables: dict[str, str], app: str = "shop") -> ExecResult:
    """Run the program that asks these workers, with what lies in a folder for its packages."""
    question = {"app": app, "broker": "", "config": "", "workdir": "", "workers": workers, "limit": 1.0}
    environment = {"PYTHONPATH": str(folder), "STACKHAND_ASK": json.dumps(question), **variables}
    done = subprocess.run(
        [sys.executable, "-c", _probe("ask_workers.py")], env=environment, capture_output=True, text=True, check=True
    )
    return ExecResult(0, done.stdout, done.stderr)


ANSWERING = """
import types
from celery import conf, current_app
conf.worker_enable_remote_control = True
class Inspect:
    def __init__(self, destination, timeout, connection):
        self.nodes = [each for each in destination if "hung" not in each]
    def ping(self):
        return {each: {"ok": "pong"} for each in self.nodes}
    def active_queues(self):
        return {each: [] if "deaf" in each else [{"name": "q"}] for each in self.nodes if "slow" not in each}
    def stats(self):
        return {each: {"pool": {"max-concurrency": 2, "processes": [7, 8]}} for each in self.nodes}
    def active(self):
        return {each: [{"id": 1}] for each in self.nodes}
transport = types.SimpleNamespace(implements=types.SimpleNamespace(exchange_type={"fanout"}))
connection = types.SimpleNamespace(transport=transport, ensure_connection=lambda **_: None)
current_app.connection_for_write = lambda: connection
current_app.control = types.SimpleNamespace(inspect=Inspect)
current_app.amqp = types.SimpleNamespace(queues=types.SimpleNamespace(consume_from={"q": None}))
"""


def test_each_worker_gets_its_own_answers(tmp_path: Path) -> None:
    (tmp_path / "celery.py").write_text(CELERY)
    (tmp_path / "sitecustomize.py").write_text(ANSWERING)
    options = {"named": "w1@%h", "plain": "", "host": "box", "hung": "hung@%h", "slow": "slow@%h", "deaf": "deaf@%h"}
    said = answer_in(_ask({key: {"name": name, "host": "h1"} for key, name in options.items()}, tmp_path, {}))
    found = {key: reply_in(said, key) for key in options}
    assert {key: reply.node for key, reply in found.items() if reply} == {
        "named": "w1@h1", "plain": "celery@h1", "host": "celery@box", "deaf": "deaf@h1",
    }  # fmt: skip
    assert found["hung"] is None
    # It answers a ping, and then no more: what it consumes is not known.
    assert found["slow"] is None
    plain, deaf = found["plain"], found["deaf"]
    assert plain
    assert (plain.queues, plain.default, plain.concurrency, plain.processes) == ({"q"}, {"q"}, 2, (7, 8))
    assert deaf
    assert (deaf.queues, deaf.active) == (frozenset(), 1)
    assert plain.imported < 5


@pytest.mark.parametrize(
    ("processes", "code", "says"),
    [
        # gosu, su-exec, setpriv: root may not read where another user's process has its program.
        ({"7": ("33", "celery -A app worker", False)}, 4, "33:33"),
        ({"1": ("me", "sh -c celery -A app worker", True), "7": ("33", "/py/python /bin/celery -A a worker", False)},
         4, "33:33"),
        ({"9": ("33", "[celeryd: celery@x:MainProcess] -active- (worker)", False)}, 4, "33:33"),
        ({"7": ("me", "python3 -m celery worker", True), "12": ("me", "python3 -m celery worker", True)},
         0, 7),
        ({"7": ("me", "python3 -m celery worker", False)}, 3, "cannot be read"),
        ({"7": ("me", "celery -A app beat", True), "8": ("me", "sh -c celery worker", True)},
         3, "none of its processes"),
        ({"7": ("me", "python3 /bin/celery -A worker beat -s /run/beat", True)}, 3, "none of its processes"),
        ({"7": ("me", "celery -A worker flower", True)}, 3, "none of its processes"),
        ({"7": ("me", "python3 /bin/celery -b redis://redis --app worker -q beat", True)}, 3, "none of its processes"),
        ({"7": ("me", "python3 -X utf8 -m celery --app worker -q worker *", True)}, 0, 7),
        ({"7": ("me", "python3 /py/celery/__main__.py --app=shop worker", True)}, 0, 7),
        ({"7": ("me", "python3 /srv/celery_app.py worker", True)}, 0, 7),
        ({"7": ("me", "/usr/bin/python3 /bin/airflow celery worker", True)}, 0, 7),
        # What restarts a worker has its words as well.
        ({"1": ("me", "python3 /bin/watchfiles celery -A app worker", True),
          "9": ("me", "python3 /bin/celery -A app worker", True)}, 0, 9),
        ({"1": ("me", "python3 /bin/watchmedo auto-restart -- celery -A app worker", True),
          "9": ("me", "python3 /bin/celery -A app worker", True)}, 0, 9),
        ({"7": ("me", "python3 -X", True), "8": ("me", "python3", True), "9": ("me", "celery -A", True)},
         3, "none of its processes"),
    ],
)  # fmt: skip
def test_which_process_is_the_worker(
    tmp_path: Path, processes: dict[str, tuple[str, str, bool]], code: int, says: str | int
) -> None:
    shell = Shell(tmp_path / "bin", {"python3": "#!/bin/sh\n"}, running("worker"))
    (tmp_path / "proc" / "sys" / "kernel").mkdir(parents=True)
    (tmp_path / "proc" / "sys" / "kernel" / "hostname").write_text("h1\n")
    for number, (user, line, readable) in {"self": ("me", "sh", False), **processes}.items():
        folder = tmp_path / "proc" / number
        folder.mkdir(parents=True)
        uid = {"me": MINE}.get(user, user)
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\n")
        (folder / "cmdline").write_bytes(line.replace(" ", "\0").encode() + b"\0")
        (folder / "smaps_rollup").write_text("Rss: 99 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n")
        if readable:
            (folder / "exe").symlink_to(shell.folder / "python3")
    answer = context(project(service("worker")), shell, tmp_path).shell(
        "worker", _probe("find_worker.sh").replace("/proc/", f"{tmp_path}/proc/"), " ".join(VALUED)
    )
    assert answer.exit_code == code
    if isinstance(says, str):
        assert says in answer.stdout
        return
    process = parse(answer.stdout, ["celery", "of", "the", "compose", "file"])
    assert (process.pid, process.host) == (says, "h1")
    assert " ".join(process.words) == processes[str(says)][1]
    # What each of two mappings has for itself, in kB.
    assert process.memory == {says: 12 * 1024}
