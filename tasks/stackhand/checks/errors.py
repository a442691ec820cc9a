"""The errors of asking a service."""

from __future__ import annotations

from collections.abc import Iterable

from stackhand.errors import StackError


class NoAnswer(StackError):
    """A service did not answer in its own protocol; the message says what came instead.

    `blames` are other services that it could not reach: a failure of theirs explains this one.
    """

    def __init__(self, message: str, hint: str | None = None, *, blames: Iterable[str] = ()) -> None:
        super().__init__(message, hint, foreign=message)
        self.blames = tuple(blames)


class CannotAsk(NoAnswer):
    """Whether a service answers cannot be told: no program to ask with, or no address that it surely has."""
