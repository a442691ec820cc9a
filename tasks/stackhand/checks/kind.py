"""What a kind of service is made of: recognition, facts, checks that judge facts, fixes that act on a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from stackhand.checks.traits import Traits
from stackhand.engine.compose.project import KIND_LABEL
from stackhand.errors import StackError
from stackhand.model import Finding, Phase

if TYPE_CHECKING:
    from stackhand.checks.context import CheckContext

F = TypeVar("F")


class NoAnswer(StackError):
    """A service did not answer in its own protocol; the message says what came instead."""


class CannotAsk(NoAnswer):
    """Whether a service answers cannot be told: there is nothing to ask with, or nowhere that it surely listens."""


@dataclass(frozen=True)
class Check:
    """One question about one service. `judge` decides from facts and returns a finding, also when all is well."""

    id: str
    phase: Phase
    judge: Callable[[CheckContext, str], Iterable[Finding]]


@dataclass(frozen=True)
class Fix:
    """How the findings of one id are put right.

    `does` says it, with `{subject}` for what the finding is about: "create role {subject} in". `act` does it, and
    raises StackError where it can't. `patience` is the seconds that the check may take to be content afterwards.
    """

    does: str
    act: Callable[[CheckContext, Finding], None]
    patience: float = 5.0


class Kind(Generic[F]):
    """A kind of service. `F` are its facts: all that its checks want to know, asked at one moment.

    A subclass names what it is recognised by, and says in `look` how to ask. `images` and `programs` are words of the
    image's name and of the command, `probes` words of the healthcheck, `ports` what it listens on; ports count only
    where no kind was recognised otherwise. `holds_data` says that its volumes hold what nothing brings back;
    `instead_of` names more general kinds, which a service of this kind is not as well.
    """

    name: ClassVar[str]
    images: ClassVar[frozenset[str]] = frozenset()
    programs: ClassVar[frozenset[str]] = frozenset()
    probes: ClassVar[frozenset[str]] = frozenset()
    ports: ClassVar[frozenset[int]] = frozenset()
    holds_data: ClassVar[bool] = False
    every_container: ClassVar[bool] = False
    instead_of: ClassVar[frozenset[str]] = frozenset()

    def recognises(self, shown: Traits) -> bool:
        """Return whether a service is of this kind, by what it is made from and what it runs."""
        if shown.programs & self.programs:
            return True
        if shown.images & self.images and not shown.is_client:
            return True
        return any(word in shown.probe for word in self.probes) and shown.probes_itself

    def certain(self, shown: Traits) -> bool:
        """Return whether a service is surely of this kind: its program or its image says so.

        Where only its healthcheck or a port does, that is a guess, and nothing is wrong when it gets no answer.
        """
        return self.recognises(replace(shown, probe="", ports=frozenset()))

    def listens_like(self, shown: Traits) -> bool:
        """Return whether a service listens on a port of this kind."""
        return bool(shown.ports & self.ports)

    def look(self, context: CheckContext, service: str) -> F:
        """Ask the service, from inside its container, for all that the checks want to know.

        Raises NoAnswer when it does not answer in its own protocol.
        """
        raise NotImplementedError

    def checks(self) -> Sequence[Check]:
        """Return the questions that this kind asks; the first is whether it answers at all."""
        return (Check(f"{self.name}.answers", "services", self.answers),)

    def fixes(self) -> Mapping[str, Fix]:
        """Return what can be put right, by the id of the finding."""
        return {}

    def warm(self, context: CheckContext, service: str, what: str) -> None:
        """Carry out one configured warm-up, in this kind's own words: a query, a path, a model.

        Raises StackError when it fails, or when this kind has no warm-ups.
        """
        raise StackError(f"{service}: the kind {self.name} has no warm-ups")

    def answers(self, context: CheckContext, service: str) -> Iterable[Finding]:
        """Judge whether the service answers in its own protocol."""
        try:
            context.facts(self, service)
        except CannotAsk as error:
            why, hint = error.message, error.hint or ""
            yield Finding(f"{self.name}.answers", service, "services", "skip", "it cannot be asked", why, hint)
        except NoAnswer as error:
            if context.kinds.is_guess(service, self.name):
                summary = f"that it is {self.name} is a guess, and it does not answer as such"
                hint = f"the label {KIND_LABEL} says what it is: {self.name}, another kind, or none"
                yield Finding(f"{self.name}.answers", service, "services", "skip", summary, error.message, hint)
                return
            yield Finding(
                f"{self.name}.answers",
                service,
                "services",
                "fail",
                f"it does not answer as {self.name}",
                evidence=error.message,
                remedy=error.hint
                or f"`inv services.logs -s {service}` says more; `inv services.restart -s {service}` restarts it",
            )
        else:
            yield Finding(f"{self.name}.answers", service, "services", "ok", f"it answers as {self.name}")


@dataclass(frozen=True)
class ServiceKinds:
    """The kinds of a project's services; `guesses` are the pairs of service and kind that are not certain."""

    kinds: Mapping[str, tuple[Kind[Any], ...]] = field(default_factory=dict)
    guesses: frozenset[tuple[str, str]] = frozenset()

    def of(self, service: str) -> tuple[Kind[Any], ...]:
        """Return the kinds of one service."""
        return self.kinds.get(service, ())

    def services(self, kind: str) -> list[str]:
        """Return the services of the kind of this name."""
        return [service for service, kinds in self.kinds.items() if any(each.name == kind for each in kinds)]

    def is_guess(self, service: str, kind: str) -> bool:
        """Return whether only a healthcheck or a port says that a service is of the kind of this name."""
        return (service, kind) in self.guesses
