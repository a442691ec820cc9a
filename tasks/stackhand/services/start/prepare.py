"""Gets what a start needs before anything can run: images pulled or built, containers made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from stackhand.engine.api.client import Engine
from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.engine.messages import classify
from stackhand.errors import CommandFailed, MissingFile
from stackhand.graph import schedule
from stackhand.graph.clock import Clock
from stackhand.output.redact import Redactor
from stackhand.services.changes.builds import Builds
from stackhand.services.start import half_recreated
from stackhand.services.start.coalesce import Coalescer
from stackhand.services.start.failures import create_failure
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.plan import MAKES, StartPlan, needs, unable
from stackhand.services.start.record import Failure

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
        self._creates = Coalescer(self._create, on_done=lambda make: notifier.notify(make.name), clock=clock)

    def run(
        self, plan: StartPlan, images: Mapping[str, Failure] | None = None, *, recreate: bool = True
    ) -> dict[str, Failure]:
        """Pull, build and create as planned. Returns the services for which that failed, and why.

        `images` are the failures of pulling and building where that was done before. Without `recreate`, containers
        that are there are kept, whatever has changed since they were made.
        """
        failures = self.images(plan) if images is None else dict(images)
        left_out = unable(self._project, failures)
        forced = {action.service for action in plan.actions if action.force}
        names = [name for name in plan.services(*MAKES) if name not in left_out]
        for name in names:
            self._tell(name, "create", "creating")
        tickets = self._creates.submit(*(_Make(name, recreate, name in forced) for name in names))
        for name, ticket in zip(names, tickets, strict=True):
            self._notifier.wait_until(ticket.done.is_set)
            if isinstance(ticket.error, CommandFailed):
                failures[name] = create_failure(self._engine, self._project, name, ticket.error, self._redactor.text)
            elif ticket.error:
                raise ticket.error
        return failures

    def images(self, plan: StartPlan) -> dict[str, Failure]:
        """Pull and build as planned. Returns the services for which that failed, and why."""
        project = self._project
        failures: dict[str, Failure] = {}
        # Read before: what changes while it builds counts as changed afterwards.
        sources = self._builds.sources(project, self._builds.siblings(project, plan.services("build")))
        for name, failure in self._get_images(plan).items():
            image = project.services[name].image
            # One image may serve several services.
            failures.update({other.name: failure for other in project.services.values() if other.image == image})
        built = {name: source for name, source in sources.items() if name not in failures}
        self._builds.remember_current(project, built)
        return failures

    def _create(self, makes: Sequence[_Make]) -> Mapping[_Make, Exception]:
        """Make containers for these services; return those for which that failed.

        When it fails for several together, each is made alone, in order. Those that need a failed one are left:
        they won't be started either.
        """
        half_recreated.clear(self._engine, self._project, [make.name for make in makes])
        try:
            for recreate, force in itertools.product((True, False), (False, True)):
                names = [make.name for make in makes if (make.recreate, make.force) == (recreate, force)]
                if names:
                    self._compose.create(names, recreate=recreate, force=force)
        except CommandFailed as error:
            return {makes[0]: error} if len(makes) == 1 else self._create_one_by_one(makes)
        return {}

    def _create_one_by_one(self, makes: Sequence[_Make]) -> Mapping[_Make, Exception]:
        failed: dict[_Make, Exception] = {}
        lost: set[str] = set()
        by_name = {make.name: make for make in makes}
        for name in schedule.order(needs(self._project, by_name)):
            entries = self._project.services[name].depends_on
            if any(entry.required and entry.service in lost for entry in entries):
                lost.add(name)
                continue
            make = by_name[name]
            try:
                alone = any(entry.service in lost for entry in entries)
                self._compose.create([name], dependencies=not alone, recreate=make.recreate, force=make.force)
            except CommandFailed as error:
                failed[make] = error
                lost.add(name)
        return failed

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
        began = self._clock.monotonic()
        try:
            act(names, lambda line: self._tell(_service_of(line, names), "image", mask(line.strip())))
        except CommandFailed as error:
            message = classify(error.stderr)
            kept = self._redactor.lines(error.stderr.strip().splitlines())[-_KEPT_LINES:]
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


def _service_of(line: str, names: Sequence[str]) -> str:
    """Return which of several builds a line of BuildKit's plain output is about: `#5 [api 2/7] RUN …`."""
    return next((name for name in names if f"[{name} " in line), names[0])
