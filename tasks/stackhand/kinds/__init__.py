"""Kinds of services: how each is recognised, what to ask it, and how to put it right.

`registry.py` says which kinds there are. Other packages add kinds through the entry-point group `stackhand.kinds`; all
that they need is imported from here, and is what `stackhand.checks` is made of.
"""

from stackhand.checks.check import CannotAsk, Check, Fix, NoAnswer, Verdict, fail, ok, skip, warn
from stackhand.checks.connections import Client, secrets, value_of
from stackhand.checks.context import CheckContext
from stackhand.checks.exec import first_able
from stackhand.checks.kind import Kind
from stackhand.checks.scripts import read as read_script
from stackhand.checks.scripts import sections
from stackhand.checks.traits import Traits
from stackhand.errors import StackError

__all__ = [
    "CannotAsk",
    "Check",
    "CheckContext",
    "Client",
    "Fix",
    "Kind",
    "NoAnswer",
    "StackError",
    "Traits",
    "Verdict",
    "fail",
    "first_able",
    "ok",
    "read_script",
    "secrets",
    "sections",
    "skip",
    "value_of",
    "warn",
]
