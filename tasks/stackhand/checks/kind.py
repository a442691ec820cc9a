"""The base class of kinds: how a service is recognised, its facts, and the checks that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from stackhand.checks.check import Check, Verdict, fail, ok, skip
from stackhand.checks.context import CheckContext
from stackhand.checks.errors import CannotAsk, NoAnswer
from stackhand.checks.traits import Traits
from stackhand.engine.compose.labels import KIND_LABEL
from stackhand.errors import StackError

F = TypeVar("F")


class Kind(Generic[F]):
    """A kind of service. `F` are its facts: all that its checks need, asked at one moment.

    A subclass says by which words it is recognised, and asks in `collect`. `images` and `programs` are words of the
    image's name and of the command, `probes` words of the healthcheck, `ports` the ports that it listens on; ports
    count only where nothing else says what a service is.

    `holds_data` says that its volumes hold data that cannot be made again; `every_container` has each container of the
    service asked, not only the first; `instead_of` names more general kinds that a service of this kind is not.
    """

    name: ClassVar[str]
    images: ClassVar[frozenset[str]] = frozenset()
    programs: ClassVar[frozenset[str]] = frozenset()
    probes: ClassVar[frozenset[str]] = frozenset()
    ports: ClassVar[frozenset[int]] = frozenset()
    holds_data: ClassVar[bool] = False
    every_container: ClassVar[bool] = False
    instead_of: ClassVar[frozenset[str]] = frozenset()

    def matches(self, shown: Traits) -> bool:
        """Return whether a service is of this kind, by what it is made from and what it runs."""
        if shown.programs & self.programs:
            return True
        if shown.images & self.images and not shown.is_client:
            return True
        return any(word in shown.probe for word in self.probes) and shown.probes_itself

    def matches_strongly(self, shown: Traits) -> bool:
        """Return whether a service is surely of this kind: its program or its image says so.

        Where only its healthcheck or a port does, that is a guess, and nothing is wrong when it gets no answer.
        """
        return self.matches(replace(shown, probe="", ports=frozenset()))

    def matches_port(self, shown: Traits) -> bool:
        """Return whether a service listens on a port of this kind."""
        return bool(shown.ports & self.ports)

    def collect(self, context: CheckContext, service: str) -> F:
        """Ask the service, from inside its container, for all that the checks want to know.

        Raises NoAnswer when it does not answer in its own protocol.
        """
        raise NotImplementedError

    def checks(self) -> Sequence[Check]:
        """Return the questions that this kind asks; the first is whether it answers at all."""
        return (Check(f"{self.name}.answers", "services", self.check_responds),)

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Carry out one configured warm-up, in this kind's own words: a query, a path, a model.

        Raises StackError when it fails, or when this kind has no warm-ups.
        """
        raise StackError(f"{service}: the kind {self.name} has no warm-ups")

    def check_responds(self, context: CheckContext, service: str) -> Iterable[Verdict]:
        """Check that the service answers in its own protocol."""
        try:
            context.facts(self, service)
        except CannotAsk as error:
            yield replace(skip("it cannot be asked", error.message, error.hint or ""), late=error.late)
        except NoAnswer as error:
            if context.kinds.is_guess(service, self.name):
                hint = f"the label {KIND_LABEL} says what it is: {self.name}, another kind, or none"
                guess = skip(f"that it is {self.name} is a guess, and it does not answer as such", error.message, hint)
                yield replace(guess, late=error.late)
                return
            more = f"`inv services.logs -s {service}` says more; `inv services.restart -s {service}` restarts it"
            silent = fail(f"it does not answer as {self.name}", error.message, error.hint or more, blames=error.blames)
            yield replace(silent, late=error.late)
        else:
            yield ok(f"it answers as {self.name}")
