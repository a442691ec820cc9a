"""The end of an interrupted process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from support import Runner

# What urllib3 does at the end of a process, when the interrupt came while it had taken its pool's lock.
STUCK = """\
import atexit, sys, threading
from invoke import Program, Collection
from stackhand.cli import task as tasks
from stackhand.graph import GraphExecutor, signals

lost = threading.Lock()
lost.acquire()

@tasks.task()
def wait(c, json=False):
    atexit.register(lost.acquire)
    print("waits", file=sys.stderr, flush=True)
    threading.Event().wait()

tasks.end_soon.__defaults__ = (0.1,)
Program(namespace=Collection(wait), executor_class=GraphExecutor).run()
"""


def test_a_lock_that_the_interrupt_has_left_taken_keeps_nobody(run: Runner) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, "wait", "--json"],
        cwd=run.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(120) == 130
        finally:
            process.kill()
        assert json.loads(process.stdout.read())["ok"] is False
