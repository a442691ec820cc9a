"""The worker's healthcheck: does this worker answer, and does it consume its queue?

A ping alone is not enough. After Redis was restarted a worker may answer pings and take no tasks any more; then it
has no active queues.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NoReturn

from .settings import QUEUE, READY

# Celery's own default of 1 s gives false alarms when the broker is busy.
TIMEOUT = 4.0


def main() -> int:
    name = f"worker@{socket.gethostname()}"
    # A worker that is still starting does not hear the question; waiting for its answer would take the whole time-out.
    if not READY.exists():
        print(f"{name}: still starting")
        return 1
    # Imported here: it takes most of the time that the whole check does.
    from .queue import celery

    # A broker that takes the connection and then says nothing holds up the client longer than any of its time-outs.
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(round(TIMEOUT) + 2)
    # One worker is asked by name, so the answer ends the wait, not the time-out.
    try:
        answer = celery.control.inspect([name], timeout=TIMEOUT).active_queues()
    except Exception as error:  # the broker is down, the password wrong, ...: all of it unhealthy, and said in a line
        print(f"{name}: cannot ask: {type(error).__name__}: {error}")
        return 1
    if not answer or name not in answer:
        print(f"{name}: no answer within {TIMEOUT:g} s")
        return 1
    queues = [queue["name"] for queue in answer[name] or []]
    if QUEUE not in queues:
        print(f"{name}: answers, but does not consume {QUEUE} (active queues: {', '.join(queues) or 'none'})")
        return 1
    print(f"{name}: consumes {', '.join(queues)}")
    return 0


def _too_long(*_: object) -> NoReturn:
    print("the broker does not answer", flush=True)
    # Not an exception: the client would take it for one of its own and try again.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
