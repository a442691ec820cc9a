"""Which process of a container is the worker: the script that asks is run, on real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from builders import project, service
from shells import Shell, context, running

from stackhand.checks import scripts
from stackhand.checks.check import CannotAsk
from stackhand.kinds.celery.facts import VALUED, answer_in

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
sys.modules["celery.utils.nodenames"].host_format = lambda node: node
"""


@pytest.mark.parametrize(
    ("words", "variables", "says"),
    [
        ([], {}, "names none"),
        (["-A", "shop"], {}, "remote control is switched off"),
        ([], {"CELERY_APP": "shop"}, "remote control is switched off"),
    ],
)
def test_no_application_is_asked_that_nobody_named(
    tmp_path: Path, words: list[str], variables: dict[str, str], says: str
) -> None:
    """The default application would be asked at the default broker, and not be there."""
    (tmp_path / "celery.py").write_text(CELERY)
    program = [sys.executable, "-c", "input()", "worker", *words]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as worker:
        asking = [sys.executable, "-c", _probe("ask_worker.py"), str(worker.pid)]
        environment = {"PYTHONPATH": str(tmp_path), **variables}
        done = subprocess.run(asking, env=environment, capture_output=True, text=True, check=True)
        worker.communicate(b"\n")
    with pytest.raises(CannotAsk, match=says):
        answer_in(done.stdout)


@pytest.mark.parametrize(
    ("processes", "code", "says"),
    [
        # gosu, su-exec, setpriv: root may not read where another user's process has its program.
        ({"7": ("33", "celery -A app worker", False)}, 4, "33:33"),
        ({"1": ("me", "sh -c celery -A app worker", True), "7": ("33", "/py/python /bin/celery -A a worker", False)},
         4, "33:33"),
        ({"9": ("33", "[celeryd: celery@x:MainProcess] -active- (worker)", False)}, 4, "33:33"),
        ({"7": ("me", "python3 -m celery worker", True), "12": ("me", "python3 -m celery worker", True)},
         0, "asked 7"),
        ({"7": ("me", "python3 -m celery worker", False)}, 3, "cannot be read"),
        ({"7": ("me", "celery -A app beat", True), "8": ("me", "sh -c celery worker", True)},
         3, "none of its processes"),
        ({"7": ("me", "python3 /bin/celery -A worker beat -s /run/beat", True)}, 3, "none of its processes"),
        ({"7": ("me", "celery -A worker flower", True)}, 3, "none of its processes"),
        ({"7": ("me", "python3 /bin/celery -b redis://redis --app worker -q beat", True)}, 3, "none of its processes"),
        ({"7": ("me", "python3 -X utf8 -m celery --app worker -q worker *", True)}, 0, "asked 7"),
        ({"7": ("me", "python3 /py/celery/__main__.py --app=shop worker", True)}, 0, "asked 7"),
        ({"7": ("me", "python3 /srv/celery_app.py worker", True)}, 0, "asked 7"),
        ({"7": ("me", "/usr/bin/python3 /bin/airflow celery worker", True)}, 0, "asked 7"),
        # What restarts a worker has its words as well.
        ({"1": ("me", "python3 /bin/watchfiles celery -A app worker", True),
          "9": ("me", "python3 /bin/celery -A app worker", True)}, 0, "asked 9"),
        ({"1": ("me", "python3 /bin/watchmedo auto-restart -- celery -A app worker", True),
          "9": ("me", "python3 /bin/celery -A app worker", True)}, 0, "asked 9"),
        ({"7": ("me", "python3 -X", True), "8": ("me", "python3", True), "9": ("me", "celery -A", True)},
         3, "none of its processes"),
    ],
)  # fmt: skip
def test_which_process_is_the_worker(
    tmp_path: Path, processes: dict[str, tuple[str, str, bool]], code: int, says: str
) -> None:
    shell = Shell(tmp_path / "bin", {"python3": "#!/bin/sh\necho asked $3\n"}, running("worker"))
    for number, (user, line, readable) in {"self": ("me", "sh", False), **processes}.items():
        folder = tmp_path / "proc" / number
        folder.mkdir(parents=True)
        uid = {"me": MINE}.get(user, user)
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\n")
        (folder / "cmdline").write_bytes(line.replace(" ", "\0").encode() + b"\0")
        if readable:
            (folder / "exe").symlink_to(shell.folder / "python3")
    answer = context(project(service("worker")), shell, tmp_path).shell(
        "worker", _probe("find_worker.sh").replace("/proc/", f"{tmp_path}/proc/"), "become", "ask", " ".join(VALUED)
    )
    assert answer.exit_code == code
    assert says in answer.stdout
