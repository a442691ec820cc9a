"""Gets what a start needs before anything can run: images pulled or built, containers made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from stackhand.engine.compose.cli import Compose
from stackhand.engine.compose.project import Project
from stackhand.engine.messages import classify
from stackhand.errors import CommandFailed, MissingFile
from stackhand.graph import schedule
from stackhand.model import Plan
from stackhand.services.changes.builds import Builds
from stackhand.services.start.coalesce import Batch
from stackhand.services.start.notifier import Notifier
from stackhand.services.start.plan import needs
from stackhand.services.start.record import Failure

MAKES = ("create", "recreate")

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


class Preparation:
    """Carries out the part of a plan that comes before the first start."""

    def __init__(
        self,
        compose: Callable[[], Compose],
        builds: Builds,
        wakeups: Notifier,
        tell: Callable[[str, str, str], None],
        clear: Callable[[Sequence[str]], None],
    ) -> None:
        self._compose = compose
        self._builds = builds
        self._wakeups = wakeups
        self._tell = tell
        self._clear = clear
        self._recreate = True
        self._forced: frozenset[str] = frozenset()
        self._creates = Batch(self._create)
        self._project: Project

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Have containers that are there kept while the body runs, whatever has changed since they were made."""
        self._recreate = False
        try:
            yield
        finally:
            self._recreate = True

    def run(self, project: Project, plan: Plan, images: Mapping[str, Failure] | None = None) -> dict[str, Failure]:
        """Pull, build and create as planned. Returns the services for which that failed, and why.

        `images` are the failures of pulling and building where that was done before.
        """
        self._project = project
        failures = self.images(project, plan) if images is None else dict(images)
        lost = _lost(project, failures)
        names = [action.service for action in plan.actions if action.verb in MAKES and action.service not in lost]
        self._forced |= {action.service for action in plan.actions if action.force}
        for name in names:
            self._tell(name, "create", "creating")
        for name, ticket in zip(names, self._creates.submit(*names), strict=True):
            while not ticket.done.wait(0.05):
                self._wakeups.check()
            if isinstance(ticket.error, CommandFailed):
                failures[name] = _create_failure(name, ticket.error)
            elif ticket.error:
                raise ticket.error
        return failures

    def images(self, project: Project, plan: Plan) -> dict[str, Failure]:
        """Pull and build as planned. Returns the services for which that failed, and why."""
        failures: dict[str, Failure] = {}
        wanted = [action.service for action in plan.actions if action.verb == "build"]
        # Read before: what changes while it builds counts as changed afterwards.
        sources = self._builds.sources(project, self._builds.siblings(project, wanted))
        for name, failure in self._images(plan).items():
            image = project.services[name].image
            # One image may serve several services.
            failures.update({each.name: failure for each in project.services.values() if each.image == image})
        self._builds.learn(project, {name: source for name, source in sources.items() if name not in failures})
        return failures

    def _create(self, names: Sequence[str]) -> Mapping[str, Exception]:
        """Make containers for these services; return those for which that failed.

        When it fails for several together, each is made alone, in order. Those that need a failed one are left:
        they won't be started either.
        """
        self._clear(names)
        try:
            for force in (False, True):
                mine = [name for name in names if (name in self._forced) is force]
                if mine:
                    self._compose().create(mine, recreate=self._recreate, force=force)
        except CommandFailed as error:
            if len(names) == 1:
                return {names[0]: error}
        else:
            return {}
        failed: dict[str, Exception] = {}
        lost: set[str] = set()
        for name in schedule.order(needs(self._project, names)):
            entries = self._project.services[name].depends_on
            if any(entry.required and entry.service in lost for entry in entries):
                lost.add(name)
                continue
            try:
                alone = any(entry.service in lost for entry in entries)
                force = name in self._forced
                self._compose().create([name], dependencies=not alone, recreate=self._recreate, force=force)
            except CommandFailed as error:
                failed[name] = error
                lost.add(name)
        return failed

    def _images(self, plan: Plan) -> dict[str, Failure]:
        failures: dict[str, Failure] = {}
        pulls: dict[str, tuple[str, ...]] = {a.service: () for a in plan.actions if a.verb == "pull"}
        builds = [action.service for action in plan.actions if action.verb == "build"]

        def one(name: str, verb: str) -> None:
            failure = self._get_image([name], verb)
            if failure:
                failures[name] = failure

        for name in (*pulls, *builds):
            self._tell(name, "image", "pulling its image" if name in pulls else "building its image")
        schedule.run(pulls, lambda name: one(name, "pull"), workers=_PULLS_AT_ONCE)
        # Together first: BuildKit shares the steps that several builds have in common.
        if len(builds) > 1 and not self._get_image(builds, "build"):
            return failures
        for name in builds:
            one(name, "build")
        return failures

    def _get_image(self, names: Sequence[str], verb: str) -> Failure | None:
        act = self._compose().pull if verb == "pull" else self._compose().build
        began = time.monotonic()
        try:
            act(names, lambda line: self._tell(_service_of(line, names), "image", line.strip()))
        except CommandFailed as error:
            complaint = classify(error.stderr)
            return Failure(
                "image",
                complaint.kind if complaint.kind != "unknown" else f"{verb}_failed",
                f"its image could not be {'pulled' if verb == 'pull' else 'built'}: {complaint.detail}",
                retry=False,
                exit_code=error.returncode,
                log_tail=tuple(error.stderr.strip().splitlines()[-_KEPT_LINES:]) if verb == "build" else (),
                waited=time.monotonic() - began,
                hint=complaint.hint or f"`docker compose {verb} {names[0]}` shows all of it",
            )
        return None


def _lost(project: Project, failed: Collection[str]) -> set[str]:
    """Return the failed services and all that can't do without them."""
    lost = set(failed)
    graph = {
        name: [entry.service for entry in service.depends_on if entry.required]
        for name, service in project.services.items()
    }
    for name in schedule.order(graph):
        if any(need in lost for need in graph[name]):
            lost.add(name)
    return lost


def _service_of(line: str, names: Sequence[str]) -> str:
    """Return which of several builds a line of BuildKit's plain output is about: `#5 [api 2/7] RUN …`."""
    return next((name for name in names if f"[{name} " in line), names[0])


def _create_failure(name: str, error: CommandFailed) -> Failure:
    complaint = classify(error.stderr)
    return Failure(
        "create",
        complaint.kind if complaint.kind != "unknown" else "create_failed",
        f"its container could not be made: {complaint.detail}",
        retry=False,
        exit_code=error.returncode,
        hint=complaint.hint or f"`docker compose up --no-start {name}` shows all of it",
    )
