"""An engine and a Compose in memory, and a project on them.

They do what the real ones do as far as a start can see it; `tests/engine` proves each mechanism on the real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sim.clock import SimClock
from sim.services import Fake, Life

from stackhand.engine.api.containers import Container, Healthcheck, Image
from stackhand.engine.api.events import Event
from stackhand.engine.api.exec import ExecResult, Probe
from stackhand.engine.api.sdk import ContainerGone
from stackhand.engine.compose import project as model
from stackhand.engine.compose.loader import ChosenProject
from stackhand.engine.compose.parse import parse
from stackhand.errors import CommandFailed, EngineUnreachable, Interrupted, StackError
from stackhand.graph import schedule
from stackhand.output.redact import Redactor
from stackhand.services.actions import Actions
from stackhand.services.restart.run import Restarted, Restarter
from stackhand.services.start.on_demand import OnDemand
from stackhand.services.start.record import Failure, StartReport, Step
from stackhand.services.start.run import Starter
from stackhand.settings import Start
from stackhand.state.folder import StateFolder

NAME = "shop"
# What Compose leaves out of a service's hash (compose, pkg/compose/hash.go: ServiceHash).
_NOT_HASHED = {"build", "depends_on", "deploy", "profiles", "pull_policy", "scale"}
# The engine doubles it with each death under a restart policy (moby, restartmanager).
_RESTART_DELAY = 0.1


class World:
    """One machine: engine, Compose, a project, and what a run of stackhand is given of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SimClock()
        self.calls: list[str] = []
        self.steps: list[str] = []
        self.fakes: dict[str, Fake] = {}
        self.boxes: dict[str, Container] = {}
        self.lives: dict[str, Life] = {}
        self.starts: Counter[str] = Counter()
        self.open: set[str] = set()
        self.images: dict[str, str] = {}
        self.registry: dict[str, str] = {}
        self.fails: dict[str, str] = {}
        self.takes: dict[str, float] = {}
        self.ports: dict[int, str] = {}
        self.hooks_fail: Counter[str] = Counter()  # so many starts of a service yet
        self.signalled: set[str] = set()  # by somebody, in its last run
        self.forgetful = False  # the engine has forgotten its events
        self.clock_offset = timedelta()  # how far the engine's clock is ahead of this machine's
        self.away = False
        self.stops_followers = True  # Compose, where it recreates what they follow
        self.stopped = False
        self.settings = Start()
        self.state = StateFolder(folder)
        self.redactor = Redactor()
        self.engine: Any = FakeEngine(self)
        self.compose: Any
        self.listeners: list[FakeListener] = []
        self.project: model.Project
        self.starter: Starter
        self.on_demand: OnDemand
        self._number = 0
        self._generation: Counter[str] = Counter()

    def services(self, *, images: bool = True, **fakes: Fake) -> World:
        """Write the compose file. With `images` their images are here."""
        self.fakes = dict(fakes)
        (self.folder / "compose.yaml").write_text("services: {}  # simulated\n")
        self.select()
        if images:
            for service in FakeCompose(self, "*").project.services.values():
                self.images.setdefault(service.image, f"sha256:{service.image}")
        return self

    def select(self, *profiles: str) -> None:
        """Read the project with these profiles."""
        self.compose = FakeCompose(self, *profiles)
        self.project = self.compose.project
        self.begin()

    def chosen(self) -> ChosenProject:
        """Return the project as it is chosen now."""
        return ChosenProject(self.project, self.compose, self.compose.hashes)

    def begin(self, **settings: float) -> None:
        """Begin another run of stackhand: nothing is shared with the one before."""
        self.stopped = False
        self.settings = Start(**settings)  # type: ignore[arg-type]
        self.starter = Starter(
            self.chosen,
            self.engine,
            self.settings,
            self.state,
            self.redactor,
            self.clock,
        )
        self.starter.subscribers.append(self._note)
        self.on_demand = OnDemand(self.starter)

    def start(self, *names: str, dev: bool = False, **settings: float) -> StartReport:
        """Run `services.start`, of the named services or of all."""
        self.begin(**settings)
        self.starter.configure(dev=dev)
        return self.starter.run(list(names) or list(self.project.services), names)

    def restart(self, *names: str, environ: Mapping[str, str] | None = None, **settings: float) -> Restarted:
        """Run `services.restart`."""
        self.begin(**settings)
        return self.restarter(environ).run(list(names) or list(self.project.services), names)

    def restarter(self, environ: Mapping[str, str] | None = None) -> Restarter:
        """Return what restarts."""
        return Restarter(self.starter, self.state, environ or {}, self.engine.read_file)

    def actions(self) -> Actions:
        """Return what acts on whole services, as fixes do."""
        with mock.patch("stackhand.graph.clock.SYSTEM", self.clock):
            return Actions(self, self.engine, self.settings, self.state, self.redactor)  # type: ignore[arg-type]

    def wait(self, *names: str, **settings: float) -> StartReport:
        """Run `services.wait`."""
        self.begin(retries=1, **settings)
        return self.starter.wait(list(names) or list(self.project.services))

    def up(self, *names: str) -> dict[str, Failure | None]:
        """Run `up.<service>` for these services side by side, as tasks with their pre-tasks do it."""
        from stackhand.services.start.record import ServiceFailed

        failures: dict[str, Failure | None] = {}

        def one(name: str) -> None:
            try:
                self.on_demand.up(name)
                failures[name] = None
            except ServiceFailed as failed:
                failures[name] = failed.failure
                raise

        wanted = self.project.closure(names)
        graph = {name: [e.service for e in self.project.services[name].depends_on] for name in wanted}
        result = schedule.run(graph, one, clock=self.clock)
        for error in result.failed.values():
            if not isinstance(error, ServiceFailed):
                raise error
        return failures

    def at(self, moment: float, action: Callable[[], object]) -> None:
        """Do something at a second of simulated time."""
        self.clock.at(moment, lambda: action() and None)

    def interrupt(self) -> None:
        """Press Ctrl-C: the main thread gets it, and the run's own handler ends the rest."""
        self.clock.interrupt()

    def end_run(self) -> str:
        """Do what the interrupted run does last, and return what it says of how far it was."""
        where = self.starter.records.where()
        self.starter.cancel()
        self.stopped = True
        return where

    def lose_engine(self) -> None:
        """Let the engine be away, with all that runs."""
        self.away = True
        for box in list(self.boxes.values()):
            if box.running:
                self.end(box, 137, quiet=True)

    def find_engine(self) -> None:
        """Let the engine be back."""
        self.away = False
        for listener in self.listeners:
            listener.lost()

    def box(self, service: str) -> Container:
        """Return the only container of a service."""
        (found,) = self.of(service)
        return found

    def of(self, service: str) -> list[Container]:
        """Return a service's containers."""
        return [each for each in self.boxes.values() if each.service == service]

    def runs(self, service: str) -> bool:
        """Return whether a container of a service runs."""
        return any(each.running for each in self.of(service))

    def fingerprint(self) -> dict[str, str]:
        """Return what must stay the same where nothing may change."""
        return {box.name: box.run_key for box in self.boxes.values()}

    def kill(self, service: str, code: int = 137) -> None:
        """End the containers of a service from outside, as `docker kill` and `docker stop` do it."""
        for each in self.of(service):
            self.signal(each, code)

    def crash(self, service: str, code: int = 1) -> None:
        """Let the main processes of a service end by themselves."""
        for each in self.of(service):
            self.end(each, code)

    def signal(self, box: Container, code: int = 137) -> None:
        """End a container from outside."""
        if box.running:
            self.signalled.add(box.id)
            self.emit(box, "kill")
        self.end(box, code, policy=False)

    def pause(self, service: str) -> None:
        """Pause a service."""
        for each in self.of(service):
            self.boxes[each.id] = replace(each, status="paused")

    def remove(self, service: str) -> None:
        """Remove the containers of a service, as `docker rm -f` does it."""
        for each in self.of(service):
            self.delete(each)

    def close(self) -> None:
        """End the world."""
        self.clock.close()

    # What engine and Compose have in common.

    def call(self, text: str) -> None:
        """Note what was asked for, and let it take its time."""
        self.calls.append(text)
        verb = " ".join(text.split()[:2])
        if verb in self.takes:
            self.clock.sleep(self.takes[verb], lambda: self.stopped)
        if self.stopped:
            raise Interrupted("interrupted")
        if self.away and text.startswith("engine"):
            raise EngineUnreachable("no engine answers")

    def emit(self, box: Container, action: str) -> None:
        """Tell those who listen."""
        if not self.away:
            for listener in list(self.listeners):
                listener.handle(Event(box.id, box.service, action, self.clock.now()))

    def make(self, service: model.Service, number: int) -> Container:
        """Make a container."""
        self._number += 1
        check = service.raw.get("healthcheck")
        box = Container(
            id=f"{service.name}{number}-{self._number}",
            name=f"{NAME}-{service.name}-{number}",
            service=service.name,
            number=number,
            created_at=self.clock.now(),
            config_hash=self.hash_on_container(service),
            image_id=self.images[service.image],
            shares=tuple((what, self.of(other)[0].id) for other, some in service.shares.items() for what in some),
            healthcheck=Healthcheck(tuple(check["test"][1:]), check["interval"], check["timeout"]) if check else None,
        )
        self.boxes[box.id] = box
        return box

    def delete(self, box: Container) -> None:
        """Remove a container, whether it runs or not."""
        if box.running:
            self.signal(box)
        self.boxes.pop(box.id)
        self.emit(box, "destroy")

    def run(self, box: Container) -> None:
        """Start a container and let its life take its course."""
        fake = self.fakes[box.service]
        life = fake.lives[min(self.starts[box.service], len(fake.lives) - 1)]
        self.starts[box.service] += 1
        if box.status == "paused":
            raise StackError("cannot start a paused container, try unpause instead")
        if life.refuses:
            raise StackError(life.refuses)
        if any(what != "volumes" and other not in self.boxes for what, other in box.shares):
            raise StackError("cannot join network of a non running container")
        self._generation[box.id] += 1
        self.lives[box.id] = life
        self.signalled.discard(box.id)
        started = replace(
            box,
            status="running",
            started_at=self.clock.now(),
            health="starting" if box.healthcheck else "none",
            exit_code=0,
            error="",
            oom_killed=False,
        )
        self.boxes[box.id] = started
        self.emit(box, "start")
        if life.ends is not None:
            self._later(box, life.ends, lambda: self.end(self.boxes[box.id], life.code, oom=life.oom))
        if box.healthcheck:
            self._probe_later(box, 1)

    def end(self, box: Container, code: int, *, oom: bool = False, policy: bool = True, quiet: bool = False) -> None:
        """Let a container's main process end."""
        self._generation[box.id] += 1
        again = policy and not quiet and self._restarts(box, code)
        ended = replace(
            box,
            status="restarting" if again else "exited",
            exit_code=code,
            finished_at=self.clock.now(),
            oom_killed=oom,
            health="none",
            restart_count=box.restart_count + (1 if again else 0),
        )
        self.boxes[box.id] = ended
        if quiet:
            return
        if oom:
            self.emit(box, "oom")
        self.emit(box, "die")
        self.end_namespace(box)
        if again:
            self._later(box, _RESTART_DELAY * 2**box.restart_count, lambda: self.run(self.boxes[box.id]))

    def end_namespace(self, leader: Container) -> None:
        """End what is in the pid namespace of a container that has ended."""
        for each in list(self.boxes.values()):
            if each.running and ("pid", leader.id) in each.shares:
                self.end(each, 137)

    def hash_of(self, name: str) -> str:
        """Return the configuration hash that Compose gives a service."""
        entry = {key: value for key, value in self.fakes[name].entry.items() if key not in _NOT_HASHED}
        return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:12]

    def hash_on_container(self, service: model.Service) -> str:
        """Return the hash that a new container gets: Compose names the containers in it that this one shares."""
        return "-".join([self.hash_of(service.name), *(self.of(other)[0].id for other in service.shares)])

    def is_healthy(self, box: Container) -> bool:
        """Return whether a container's healthcheck would succeed now."""
        life = self.lives[box.id]
        since = (self.clock.now() - box.started_at).total_seconds() if box.started_at else 0.0
        return box.service in self.open or (life.healthy is not None and since >= life.healthy)

    def _restarts(self, box: Container, code: int) -> bool:
        policy = self.fakes[box.service].entry.get("restart", "no")
        return policy in ("always", "unless-stopped") or (policy == "on-failure" and code != 0)

    def _later(self, box: Container, seconds: float, action: Callable[[], None]) -> None:
        """Do something to this run of a container, if it is still the same then."""
        generation = self._generation[box.id]

        def act() -> None:
            if box.id in self.boxes and self._generation[box.id] == generation:
                action()

        self.clock.at(self.clock.monotonic() + seconds, act)

    def _probe_later(self, box: Container, number: int) -> None:
        check = self.fakes[box.service].entry["healthcheck"]

        def probe() -> None:
            now = self.boxes[box.id]
            good = self.is_healthy(now)
            health = "healthy" if good else "unhealthy" if number >= check["retries"] else now.health
            if health != now.health:
                self.boxes[box.id] = replace(now, health=health)
                self.emit(box, "health_status")
            # What is healthy stays so in this world.
            if not good:
                self._probe_later(box, number + 1)

        self._later(box, check["interval"], probe)

    def _note(self, step: Step) -> None:
        self.steps.append(f"{step.at:g} {step.service} {step.kind}: {step.text}")

    def document(self, profiles: Iterable[str]) -> dict[str, Any]:
        """Return what `docker compose config` prints with these profiles."""
        active = {
            name: fake
            for name, fake in self.fakes.items()
            if "*" in profiles or not fake.entry.get("profiles") or set(profiles) & set(fake.entry["profiles"])
        }
        services = {}
        for name, fake in active.items():
            usual = {} if fake.entry.get("build") else {"image": "bb"}
            needs = {
                other: entry
                for other, entry in fake.entry.get("depends_on", {}).items()
                if other in active or entry["required"]
            }
            services[name] = {**usual, **fake.entry, **({"depends_on": needs} if needs else {})}
        return {"name": NAME, "services": services}


class FakeListener:
    """Hears what happens from the moment that it is made."""

    def __init__(self, world: World, handle: Callable[[Event], None], lost: Callable[[], None]) -> None:
        self.world, self.handle, self.lost = world, handle, lost
        world.listeners.append(self)

    def close(self) -> None:
        if self in self.world.listeners:
            self.world.listeners.remove(self)


class FakeEngine:
    """What a start asks of the engine. Looks are not noted in `calls`; what changes or costs something is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.api = FakeApi()

    def connect_ahead(self) -> None:
        """It is there already."""

    def now(self) -> datetime:
        self._look()
        return self._world.clock.now()

    def clock_offset(self) -> timedelta:
        self._look()
        return self._world.clock_offset

    def containers(self, project: str, service: str | None = None, *, brief: bool = False) -> list[Container]:
        self._look()
        found = [each for each in self._world.boxes.values() if service in (None, each.service)]
        brief_ones = [replace(each, started_at=None, healthcheck=None) if each.running else each for each in found]
        return sorted(brief_ones if brief else found, key=lambda each: (each.service, each.number))

    def inspect(self, container: str) -> Container:
        self._look()
        if container not in self._world.boxes:
            raise ContainerGone("no such container")
        return self._world.boxes[container]

    def image_id(self, name: str) -> str | None:
        self._look()
        return self._world.images.get(name)

    def image(self, name: str) -> Image | None:
        found = self.image_id(name)
        return Image(found) if found else None

    def answers(self, within: float | None = None) -> bool:
        return not self._world.away

    def start(self, container: str) -> None:
        box = self.inspect(container)
        self._world.call(f"engine start {box.name.removeprefix(f'{NAME}-')}")
        self._world.run(self.inspect(container))

    def stop(self, container: str) -> None:
        box = self.inspect(container)
        self._world.call(f"engine stop {box.name.removeprefix(f'{NAME}-')}")
        self._world.signal(box, 0)

    def was_signalled(self, container: Container) -> bool | None:
        self._look()
        return None if self._world.forgetful else container.id in self._world.signalled

    def probe(self, container: str, argv: Sequence[str], timeout: float) -> Probe:
        world = self._world
        box = self.inspect(container)
        world.call(f"engine probe {box.service}")
        life = world.lives[container]
        if life.probe_error:
            raise StackError(life.probe_error)
        if not world.is_healthy(box) and life.probe_code is None:
            world.clock.sleep(timeout, lambda: world.stopped)
            return Probe(None, life.probe, timeout)
        world.clock.sleep(0.05)
        if not self.inspect(container).running:
            raise ContainerGone("it does not run")
        good = world.is_healthy(self.inspect(container))
        return Probe(0 if good else life.probe_code, life.probe, 0.05)

    def logs(self, container: str, lines: int, since: object = None) -> list[str]:
        self._look()
        return list(self._world.lives[container].log)[-lines:] if container in self._world.lives else []

    def ask(self, container: str, argv: Sequence[str], **more: object) -> ExecResult:
        box = self.inspect(container)
        if "cmdline" not in argv[2]:
            return ExecResult(127, "", "")
        self._world.call(f"engine processes {box.service}")
        life = self._world.lives[container]
        self._world.clock.sleep(0.05)
        assert box.started_at
        since = (self._world.clock.now() - box.started_at).total_seconds()
        temporary = "==> /proc/9/cmdline <==\npostgres\0-c\0listen_addresses=\0-p\x005432\0\n"
        main = "==> /proc/1/cmdline <==\n{}\0\n"
        if life.unseen or since < life.begins_to:
            return ExecResult(1, "")
        listing = main.format("init") + temporary if since < life.initialising else main.format("postgres")
        return ExecResult(0, listing)

    def read_file(self, container: str, path: str) -> bytes | None:
        return None

    def holder_of_port(self, port: int, protocol: str = "") -> str | None:
        return self._world.ports.get(port)

    def remove(self, container: str) -> None:
        self._world.delete(self.inspect(container))

    def rename(self, container: str, name: str) -> None:
        self._world.boxes[container] = replace(self.inspect(container), name=name)

    def listen(self, project: str, handle: Callable[[Event], None], lost: Callable[[], None]) -> FakeListener:
        self._look()
        return FakeListener(self._world, handle, lost)

    def _look(self) -> None:
        if self._world.away:
            raise EngineUnreachable("no engine answers")


class FakeApi:
    """What a start asks of the SDK itself: there are no networks in this world."""

    def networks(self) -> list[dict[str, Any]]:
        return []


class FakeCompose:
    """What a start asks of Compose, as one call of its command line each."""

    def __init__(self, world: World, *profiles: str) -> None:
        self._world = world
        self._profiles = profiles
        self.project = parse(world.document(profiles), world.folder)

    def config(self) -> model.Project:
        return self.project

    def with_profiles(self, profiles: Iterable[str]) -> FakeCompose:
        return FakeCompose(self._world, *self._profiles, *profiles)

    def hashes(self) -> dict[str, str]:
        return {name: self._world.hash_of(name) for name in self.project.services}

    def replaced_networks(self, services: Sequence[str]) -> list[str]:
        return []

    def create(
        self, services: Sequence[str], *, dependencies: bool = True, recreate: bool = True, force: bool = False
    ) -> None:
        kept = " --force-recreate" if force else "" if recreate else " --no-recreate"
        self._call(f"create{'' if dependencies else ' --no-deps'}{kept}", services)
        project = self.project
        wanted = project.closure(services) if dependencies else services
        graph = {name: [e.service for e in project.services[name].depends_on] for name in project.services}
        for name in schedule.order(graph):
            if name in wanted:
                self._make(project.services[name], recreate or force, force and name in services)

    def start(self, services: Sequence[str], on_line: object = None) -> None:
        self._call("up", services)
        for name in services:
            service = self.project.services[name]
            for number in range(1, service.replicas + 1):
                mine = [each for each in self._world.of(name) if each.number == number]
                box = mine[0] if mine else self._world.make(service, number)
                if not box.running:
                    self._run(box)

    def restart(self, services: Sequence[str], on_line: object = None) -> None:
        self._call("restart", services)
        for name in services:
            for box in self._world.of(name):
                if box.running:
                    self._world.signal(box)
                self._run(self._world.boxes[box.id])

    def build(self, services: Sequence[str], on_line: Callable[[str], None] = lambda line: None) -> None:
        for name in services:
            on_line(f"#1 [{name} 1/2] RUN make")
        self._call("build", services)
        for name in services:
            image = self.project.services[name].image
            self._world.images[image] = self._world.registry.get(image, f"sha256:{image}")

    def pull(self, services: Sequence[str], on_line: object = None) -> None:
        self._call("pull", services)
        for name in services:
            image = self.project.services[name].image
            if image not in self._world.registry:
                raise self._failed("pull", f"manifest for {image} not found: manifest unknown")
            self._world.images[image] = self._world.registry[image]

    def stop(self, services: Sequence[str], on_line: object = None) -> None:
        self._call("stop", services)
        for name in services:
            self._world.kill(name, 0)

    def _call(self, verb: str, services: Sequence[str]) -> None:
        self._world.call(f"compose {verb} {' '.join(services)}")
        for name in services:
            why = self._world.fails.get(f"{verb.split(maxsplit=1)[0]} {name}")
            if why:
                raise self._failed(verb, why)

    def _make(self, service: model.Service, recreate: bool, force: bool) -> None:
        world = self._world
        if service.replicas and service.image not in world.images:
            raise self._failed("create", f"Error response from daemon: No such image: {service.image}")
        there = world.of(service.name)
        renewed = False
        for number in range(1, service.replicas + 1):
            mine = [each for each in there if each.number == number]
            same = mine and mine[0].config_hash == world.hash_on_container(service)
            same = same and mine[0].image_id == world.images[service.image]
            if mine and (not recreate or (same and not force)):
                continue
            if any(each.replaces in {other.id for other in mine} for each in mine):
                raise self._failed("create", "Conflict. The container name is already in use")
            for each in mine:
                world.delete(each)
                renewed = True
            world.make(service, number)
        for each in there:
            if each.number > service.replicas:
                world.delete(each)
        if renewed and world.stops_followers:
            for follower, entry in self.project.dependants(service.name):
                if entry.restart:
                    for each in world.of(follower.name):
                        if each.running:
                            world.signal(each)

    def _run(self, box: Container) -> None:
        try:
            self._world.run(box)
        except StackError as error:
            raise self._failed("up", str(error)) from error
        if self.project.services[box.service].raw.get("post_start"):
            self._world.call(f"compose hook {box.service}")
        if self._world.hooks_fail[box.service]:
            self._world.hooks_fail[box.service] -= 1
            raise self._failed("up", f"{box.service} hook exited with status 3")

    @staticmethod
    def _failed(verb: str, text: str) -> CommandFailed:
        return CommandFailed(["docker", "compose", verb], 1, text)


def states(report: StartReport) -> dict[str, str]:
    """Return each service's state in a report."""
    return {record.name: record.state for record in report.services}


def attempts(report: StartReport) -> dict[str, int]:
    """Return each service's attempts in a report."""
    return {record.name: record.attempts for record in report.services}


def failure(report: StartReport, name: str) -> Failure:
    """Return why a service failed."""
    (found,) = [record.failure for record in report.services if record.name == name]
    assert found is not None
    return found
