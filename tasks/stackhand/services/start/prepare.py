"""Gets what a start needs before anything can run: images pulled or built, containers made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.build_output import BuildLines, failed_step
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.engine.messages import classify
from stackhand.errors import CommandFailed, MissingFile, NetworkInUse
from stackhand.graph import schedule
from stackhand.graph.clock import Clock
from stackhand.output.redact import Redactor
from stackhand.services.changes.builds import Builds
from stackhand.services.start import half_recreated, sharing
from stackhand.services.start.coalesce import Coalescer
from stackhand.services.start.equal_images import keep_equal_images
from stackhand.services.start.failures import create_failure
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.plan import MAKES, StartPlan, needs, unable
from stackhand.services.start.record import Failure
from stackhand.services.start.renew_networks import NetworkRenewal

_PULLS_AT_ONCE = 4
_KEPT_LINES = 15


def check_files(project: Project, names: Collection[str]) -> None:
    """Raise MissingFile when a secret or config of one of these services has no file."""
    for name in names:
        for what, key, path in project.files_of(name):
            if not path.exists():
                raise MissingFile(
                    f"service {name} needs {what} {key}, whose file {path} is not there",
                    "create the file, or run the project's set-up step that writes it",
                )


@dataclass(frozen=True)
class _Make:
    """A service whose containers are to be made, and how Compose goes about those that are there."""

    name: str
    recreate: bool
    force: bool


class Preparation:
    """Carries out the part of a plan that comes before the first start, for one project."""

    def __init__(
        self,
        project: Project,
        compose: Compose,
        engine: Engine,
        builds: Builds,
        notifier: Notifier,
        tell: Callable[[str, str, str], None],
        clock: Clock,
        redactor: Redactor,
    ) -> None:
        self._project = project
        self._compose = compose
        self._engine = engine
        self._builds = builds
        self._notifier = notifier
        self._tell = tell
        self._clock = clock
        self._redactor = redactor
        self._networks = NetworkRenewal(project, compose, engine)
        self._creates = Coalescer(self._create, on_done=lambda make: notifier.notify(make.name), clock=clock)

    def run(
        self, plan: StartPlan, images: Mapping[str, Failure] | None = None, *, recreate: bool = True
    ) -> dict[str, Failure]:
        """Pull, build and create as planned. Returns the services for which that failed, and why.

        `images` are the failures of pulling and building where that was done before. Without `recreate`, containers
        that are there are kept, whatever has changed since they were made.
        """
        failures = self.images(plan) if images is None else dict(images)
        failures.update(self._kept_on_outdated_networks(plan, recreate=recreate))
        left_out = unable(self._project, failures)
        forced = _forced(self._project, plan)
        names = [name for name in plan.services(*MAKES) if name not in left_out]
        for name in names:
            self._tell(name, "create", "creating")
        tickets = self._creates.submit(*(_Make(name, recreate, name in forced) for name in names))
        for name, ticket in zip(names, tickets, strict=True):
            self._notifier.wait_until(ticket.done.is_set)
            if isinstance(ticket.error, CommandFailed):
                failures[name] = create_failure(self._engine, self._project, name, ticket.error, self._redactor.text)
            elif isinstance(ticket.error, NetworkInUse):
                failures[name] = _network_failure(ticket.error)
            elif ticket.error:
                raise ticket.error
        return failures

    def replaced_networks(self, names: Sequence[str]) -> list[str]:
        """Return the networks that Compose would replace for these services."""
        return self._compose.replaced_networks(names)

    def images(self, plan: StartPlan) -> dict[str, Failure]:
        """Pull and build as planned. Returns the services for which that failed, and why."""
        project = self._project
        failures: dict[str, Failure] = {}
        # Read before: what changes while it builds counts as changed afterwards.
        sources = self._builds.sources(project, self._builds.siblings(project, plan.services("build")))
        with keep_equal_images(self._engine, {project.services[name].image for name in plan.services("build")}):
            found = self._get_images(plan)
        for name, failure in found.items():
            image = project.services[name].image
            # One image may serve several services.
            failures.update({other.name: failure for other in project.services.values() if other.image == image})
        built = {name: source for name, source in sources.items() if name not in failures}
        self._builds.remember_current(project, built)
        return failures

    def _create(self, makes: Sequence[_Make]) -> Mapping[_Make, Exception]:
        """Make containers for these services; return those for which that failed.

        A network that changed is seen to first, for all services on it: Compose replaces it in any case. When it fails
        for several together, each is made alone, in order. Those that need a failed one are left: they won't be started
        either.
        """
        affected = self._networks.affected([make.name for make in makes])
        half_recreated.clear(self._engine, self._project, {*affected, *(make.name for make in makes)})
        if affected:
            return self._create_after_networks(makes, affected)
        try:
            for recreate, force in itertools.product((True, False), (False, True)):
                names = [make.name for make in makes if (make.recreate, make.force) == (recreate, force)]
                if names:
                    self._compose.create(names, recreate=recreate, force=force)
        except CommandFailed as error:
            if len(makes) == 1:
                return {makes[0]: error}
            told = [make for make in makes if self._says_its_provider(make.name, error)]
            # A provider is not asked a second time.
            rest = [make for make in makes if make not in told]
            return {
                **dict.fromkeys(told, error),
                **self._create_one_by_one(rest, {make.name for make in told}),
            }
        return {}

    def _says_its_provider(self, name: str, error: CommandFailed) -> bool:
        """Return whether an error of Compose is what the provider of this service has said."""
        lines = [line.split() for line in error.stderr.splitlines() if line.strip()]
        return bool(self._project.services[name].provider and lines) and [name, *lines[-1]] in lines

    def _create_after_networks(self, makes: Sequence[_Make], affected: Collection[str]) -> Mapping[_Make, Exception]:
        mine = [make for make in makes if make.name in affected]
        others = [make for make in makes if make not in mine]
        try:
            self._networks.renew([make.name for make in mine])
        except (CommandFailed, NetworkInUse) as error:
            return {**dict.fromkeys(mine, error), **self._create_one_by_one(others, affected)}
        return self._create(others) if others else {}

    def _create_one_by_one(self, makes: Sequence[_Make], lost: Collection[str] = ()) -> Mapping[_Make, Exception]:
        failed: dict[_Make, Exception] = {}
        lost = set(lost)
        by_name = {make.name: make for make in makes}
        for name in schedule.order(needs(self._project, by_name)):
            entries = self._project.services[name].depends_on
            if any(entry.required and entry.service in lost for entry in entries):
                lost.add(name)
                continue
            make = by_name[name]
            try:
                alone = not lost.isdisjoint(self._project.closure([name]))
                self._compose.create([name], dependencies=not alone, recreate=make.recreate, force=make.force)
            except CommandFailed as error:
                failed[make] = error
                lost.add(name)
        return failed

    def _kept_on_outdated_networks(self, plan: StartPlan, *, recreate: bool) -> dict[str, Failure]:
        """Return the services that Compose is to make or start as they are, on a network that it would replace then."""
        made = set(plan.services(*MAKES))
        if made and recreate:
            return {}  # all on such a network are renewed
        names = [name for name in plan.services() if name in made or not self._project.starts_without_compose(name)]
        failures: dict[str, Failure] = {}
        for name in self._networks.affected(names) if names else ():
            if name in names:
                reason = "the definition of a network of its changed, and it is not to be renewed now"
                hint = "`inv services.start` renews all services on that network"
                failures[name] = Failure("create", "network_changed", reason, retry=False, hint=hint)
        return failures

    def _get_images(self, plan: StartPlan) -> dict[str, Failure]:
        failures: dict[str, Failure] = {}
        pulls, builds = plan.services("pull"), plan.services("build")

        def get(name: str, verb: str) -> None:
            failure = self._get_image([name], verb)
            if failure:
                failures[name] = failure

        for name in (*pulls, *builds):
            self._tell(name, "image", "pulling its image" if name in pulls else "building its image")
        graph: dict[str, tuple[str, ...]] = dict.fromkeys(pulls, ())
        schedule.run(graph, lambda name: get(name, "pull"), workers=_PULLS_AT_ONCE, clock=self._clock)
        # Together first: BuildKit shares the steps that several builds have in common.
        if len(builds) > 1 and not self._get_image(builds, "build"):
            return failures
        for name in builds:
            get(name, "build")
        return failures

    def _get_image(self, names: Sequence[str], verb: str) -> Failure | None:
        act = self._compose.pull if verb == "pull" else self._compose.build
        mask = self._redactor.text
        began, lines = self._clock.monotonic(), BuildLines(names)

        def tell(line: str) -> None:
            name = lines.service_of(line)
            if name and line.strip():
                self._tell(name, "image", mask(line.strip()))

        try:
            act(names, tell)
        except CommandFailed as error:
            message = classify(error.stderr)
            kept = self._redactor.lines(failed_step(error.stderr, _KEPT_LINES))
            return Failure(
                "image",
                message.kind if message.kind != "unknown" else f"{verb}_failed",
                f"its image could not be {'pulled' if verb == 'pull' else 'built'}: {mask(message.detail)}",
                retry=False,
                exit_code=error.returncode,
                log_tail=tuple(kept) if verb == "build" else (),
                waited=self._clock.monotonic() - began,
                hint=message.hint or f"`docker compose {verb} {names[0]}` shows all of it",
            )
        return None


def _forced(project: Project, plan: StartPlan) -> set[str]:
    """Return the services that surely get new containers, and those that share something with these.

    Compose makes the latter again where it makes both in one call, and keeps them where it is asked for them alone.
    """
    forced = {action.service for action in plan.actions if action.force}
    return forced.union(*(sharing.all_sharers(project, name) for name in forced))


def _network_failure(error: NetworkInUse) -> Failure:
    return Failure("create", "network_in_use", error.message, retry=False, hint=error.hint or "")
