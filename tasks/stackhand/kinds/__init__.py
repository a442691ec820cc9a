"""Kinds of services: one file for each, with how to recognise it, what to ask it and how to put it right.

`kind.py` is what a kind is made of, `context.py` what its checks read and act with, `clients.py` who connects to whom
as the compose environment says, `registry.py` which kinds there are. Other packages add kinds through the entry-point
group `stackhand.kinds`; what they need is imported from here.
"""

from stackhand.checks.connections import Client, secrets, value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.kind import CannotAsk, Check, Fix, Kind, NoAnswer
from stackhand.checks.traits import Traits
from stackhand.errors import StackError
from stackhand.model import Finding

__all__ = [
    "CannotAsk",
    "Check",
    "CheckContext",
    "Client",
    "Finding",
    "Fix",
    "Kind",
    "NoAnswer",
    "StackError",
    "Traits",
    "secrets",
    "value_of",
]
