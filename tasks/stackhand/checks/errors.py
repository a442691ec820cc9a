"""What asking a service may end with."""

from __future__ import annotations

from stackhand.errors import StackError


class NoAnswer(StackError):
    """A service did not answer in its own protocol; the message says what came instead."""


class CannotAsk(NoAnswer):
    """Nobody can tell whether a service answers: there is nothing to ask with, or no address that it surely has."""
