"""The errors of asking a service."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stackhand.errors import StackError

# What programs say, and we, when a time limit ran out: "Connection timed out", "timeout expired", "within 5 s".
_TIME_RAN_OUT = re.compile(r"\btimed? ?-?out|timeout|\bwithin \d[\d.]* s\b", re.IGNORECASE)


def time_ran_out(text: str) -> bool:
    """Return whether a message says that there was no answer in time. On a busy machine that proves nothing.

    >>> time_ran_out("curl: (28) Operation timed out after 4000 ms"), time_ran_out("Connection refused")
    (True, False)
    """
    return bool(_TIME_RAN_OUT.search(text))


class NoAnswer(StackError):
    """A service did not answer in its own protocol; the message says what came instead.

    `blames` are other services that it could not reach: a failure of theirs explains this one. `late` is whether it
    may have answered with more time; by default that is read from the message.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, blames: Iterable[str] = (), late: bool | None = None
    ) -> None:
        super().__init__(message, hint, foreign=message)
        self.blames = tuple(blames)
        self.late = time_ran_out(message) if late is None else late


class CannotAsk(NoAnswer):
    """Whether a service answers cannot be told: no program to ask with, or no address that it surely has."""

    def __init__(
        self, message: str, hint: str | None = None, *, blames: Iterable[str] = (), late: bool = False
    ) -> None:
        super().__init__(message, hint, blames=blames, late=late)
