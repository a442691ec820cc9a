"""Compose: builders that return argv, and one class that runs them.

`docker compose config` is the only reader of compose files, and Compose itself creates and starts containers:
at a start it does more than the engine (secrets and configs from `environment:` or `content:`, hooks), which is
not written again here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackhand.engine.compose import project as model
from stackhand.engine.compose.files import OVERRIDE_NAMES, chosen_files, env_file_pairs
from stackhand.engine.compose.plugin import compose_plugin
from stackhand.engine.host.programs import Completed, Programs
from stackhand.engine.messages import raise_for
from stackhand.errors import CommandFailed, ComposeMissing, DockerMissing, InvalidComposeFile

# `up --no-deps --no-recreate`, `config --hash "*"` and `depends_on.required` are all there since 2.20.
OLDEST = (2, 20)
DEV_PROFILE = "dev"

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """Which files and profiles Compose is given. Empty means: as Compose finds them."""

    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    def argv(self, *words: str, plugin: str | None = None) -> list[str]:
        """Return the command line for `docker compose WORDS…`, or for the plugin itself."""
        argv = [plugin] if plugin else ["docker", "compose"]
        for file in self.files:
            argv += ["-f", file]
        for profile in self.profiles:
            argv += ["--profile", profile]
        return [*argv, *words]


def development(folder: Path, environ: Mapping[str, str]) -> Selection:
    """Return the selection for `--dev`: the files in use, the override file, and the profile `dev`."""
    files = chosen_files(folder, environ)
    override = tuple(name for name in OVERRIDE_NAMES if (folder / name).is_file() and name not in files)
    return Selection(files + override[:1] if override else (), (DEV_PROFILE,))


class Compose:
    """The Compose project in one folder."""

    def __init__(
        self,
        commands: Programs,
        directory: Path,
        environ: Mapping[str, str],
        selection: Selection | None = None,
    ) -> None:
        self._commands = commands
        self.directory = directory
        self._environ = dict(environ)
        self.selection = selection or Selection()

    def with_profiles(self, profiles: Iterable[str]) -> Compose:
        """Return the same project with more profiles enabled."""
        # --profile on the command line replaces COMPOSE_PROFILES, so those are named again.
        from_file = env_file_pairs(self.directory).get("COMPOSE_PROFILES", "")
        given = tuple(filter(None, self._environ.get("COMPOSE_PROFILES", from_file).split(",")))
        merged = tuple(dict.fromkeys((*self.selection.profiles, *given, *profiles)))
        return Compose(self._commands, self.directory, self._environ, replace(self.selection, profiles=merged))

    def version(self) -> str:
        """Return Compose's version. Raises DockerMissing, ComposeMissing."""
        try:
            done = self._commands.run(["docker", "compose", "version", "--short"], env=self._environ)
        except CommandFailed as error:
            raise _missing(error) from error
        version = done.stdout.strip().lstrip("v")
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST:
            raise ComposeMissing(
                f"Compose {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed",
                "run `inv engine.install`, or update the docker-compose plugin",
            )
        return version

    def config(self) -> model.Project:
        """Return the project as Compose resolves it. Raises InvalidComposeFile and its like."""
        # Compose says the same with and without the docker command; what changes something goes the usual way.
        done = self._run("config", "--format", "json", plugin=compose_plugin(self._environ))
        try:
            # Compose doubles every dollar sign, so that its output could be a compose file again (escapeDollarSign in
            # its cmd/compose/config.go); what containers get has single ones.
            document: dict[str, Any] = json.loads(done.stdout.replace("$$", "$"))
        except ValueError as error:
            raise InvalidComposeFile(f"`docker compose config` printed no JSON: {error}") from error
        return model.parse(document, self.directory)

    def hashes(self) -> dict[str, str]:
        """Return the configuration hash of each service, which Compose also puts on its containers."""
        lines = self._run("config", "--hash", "*").stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    def create(
        self, services: Sequence[str], *, dependencies: bool = True, recreate: bool = True, force: bool = False
    ) -> Completed:
        """Make networks, volumes, secrets and containers; recreate what changed unless told otherwise; start nothing.

        With `force` the containers of these services are made anew in any case, their nameless volumes kept.

        What the services depend on is made as well. Without `dependencies` Compose takes their `depends_on` for
        empty, which gives the container another configuration hash: it will count as changed at the next start.
        """
        words = ["create"] if dependencies else ["up", "--no-start", "--no-deps"]
        kept = ("--force-recreate",) if force else () if recreate else ("--no-recreate",)
        return self._run(*words, "--no-build", "--pull", "never", *kept, *services)

    def start(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Start the containers of these services, and of nothing else."""
        return self._run("up", "-d", "--no-deps", "--no-recreate", "--no-build", *services, on_line=on_line)

    def restart(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Stop and start the containers of these services as they are."""
        return self._run("restart", "--no-deps", *services, on_line=on_line)

    def run_once(self, service: str, command: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Run a command in a container of the service made for it, which is removed afterwards."""
        return self._run("run", "--rm", "--no-deps", "--no-TTY", service, *command, on_line=on_line, merge=True)

    def build(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Build the images of these services."""
        # Its progress goes to stdout.
        return self._run("--progress", "plain", "build", *services, on_line=on_line, merge=True)

    def pull(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Pull the images of these services."""
        return self._run("--progress", "plain", "pull", *services, on_line=on_line)

    def stop(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Stop the containers of these services, all of them where none is named."""
        return self._run("stop", *services, on_line=on_line)

    def logs(self, words: Sequence[str], on_line: OnLine) -> Completed:
        """Run `docker compose logs` with these words, handing over its output line by line."""
        return self._run("logs", *words, on_line=on_line, merge=True)

    def _run(
        self, *words: str, on_line: OnLine | None = None, merge: bool = False, plugin: str | None = None
    ) -> Completed:
        argv = self.selection.argv(*words, plugin=plugin)
        try:
            return self._commands.run(argv, cwd=self.directory, env=self._environ, on_line=on_line, merge=merge)
        except CommandFailed as error:
            if error.returncode == 127 or "is not a docker command" in error.stderr:
                raise _missing(error) from error
            if "unknown command: docker compose" in error.stderr or "unknown shorthand flag" in error.stderr:
                raise _missing(error) from error
            raise_for(error)
            raise


def _missing(error: CommandFailed) -> DockerMissing | ComposeMissing:
    if error.returncode == 127:
        return DockerMissing("the docker command is not installed", "run `inv engine.install`")
    return ComposeMissing("the docker CLI has no Compose v2 plugin", "run `inv engine.install`")
