"""Where an interrupt may strike."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator

import pytest

from stackhand.graph import signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signals.interrupt_on_termination()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Taken:
    """A lock that gets a signal when it has just been taken, or is just about to be given back."""

    def __init__(self, number: signal.Signals, where: str) -> None:
        self.number, self.where = number, where
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()
        if self.where == "enter":
            signal.raise_signal(self.number)

    def __exit__(self, *error: object) -> None:
        if self.where == "exit":
            signal.raise_signal(self.number)
        self.lock.release()


@pytest.mark.parametrize("where", ["enter", "exit"])
@pytest.mark.parametrize("number", SIGNALS)
def test_it_waits_until_a_lock_is_taken_or_given_back(number: signal.Signals, where: str) -> None:
    taken = Taken(number, where)
    with pytest.raises(KeyboardInterrupt):
        with taken:
            if where == "enter":
                signal.pause()  # the signal comes again
        signal.pause()
    assert not taken.lock.locked()


def test_it_strikes_at_once_elsewhere() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_who_waits_for_another_thread_is_interrupted() -> None:
    threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)).start()
    with pytest.raises(KeyboardInterrupt):
        queue.Queue[int]().get()


class Held:
    """A step that never ends by itself."""

    def __enter__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def __exit__(self, *error: object) -> None: ...


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "LONGEST_DEFERRAL", 0.02)
    with pytest.raises(KeyboardInterrupt), Held():
        pass


def test_a_handler_of_somebody_else_stays() -> None:
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    signals.interrupt_on_termination()
    signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
