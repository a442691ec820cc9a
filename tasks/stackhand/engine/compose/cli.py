"""The Compose command line.

`docker compose config` is the only reader of compose files, and Compose itself creates containers. It also starts them
where a start is more than the engine's (secrets and configs from `environment:` or `content:`, hooks): none of that is
written again here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stackhand.engine.compose.files import OVERRIDE_NAMES, chosen_files, env_file_pairs
from stackhand.engine.compose.parse import parse
from stackhand.engine.compose.plugin import compose_plugin
from stackhand.engine.compose.project import Project
from stackhand.engine.host.programs import Completed, Programs
from stackhand.engine.messages import raise_for
from stackhand.errors import CommandFailed, ComposeMissing, DockerMissing, InvalidComposeFile

# The first version with all of `up --no-deps --no-recreate`, `config --hash "*"` and `depends_on.required`.
OLDEST = (2, 20)
# From 2.37 on Compose builds with buildx where it is there, else as before (https://github.com/docker/compose/pull/12699).
# From 5.0 on it has no other way (https://github.com/docker/compose/releases/tag/v5.0.0). It refuses an older buildx.
PREFERS_BUILDX, NEEDS_BUILDX = (2, 37), (5, 0)
OLDEST_BUILDX = (0, 17)
DEV_PROFILE = "dev"
_ATTESTATIONS = "BUILDX_NO_DEFAULT_ATTESTATIONS"

OnLine = Callable[[str], None]


def numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version.

    >>> numbers("2.40.3-3"), numbers("0.29.1+ds1")
    ((2, 40), (0, 29))
    """
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


@dataclass(frozen=True)
class Selection:
    """The files and profiles to pass to Compose. Where empty, Compose finds them itself."""

    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    def argv(self, *words: str, plugin: str | None = None) -> list[str]:
        """Return the command line `docker compose WORDS…`, or the same for the plugin's own program."""
        argv = [plugin] if plugin else ["docker", "compose"]
        for file in self.files:
            argv += ["-f", file]
        for profile in self.profiles:
            argv += ["--profile", profile]
        return [*argv, *words]


def development(folder: Path, environ: Mapping[str, str]) -> Selection:
    """Return the selection for `--dev`: the files in use, the override file if there is one, and the profile `dev`."""
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
        """Return the same project with these profiles enabled, too."""
        # --profile on the command line replaces COMPOSE_PROFILES, so we repeat those.
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
        if numbers(version) < OLDEST:
            raise ComposeMissing(
                f"Compose {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed",
                "run `inv engine.install`, or update the docker-compose plugin",
            )
        return version

    def buildx(self) -> str | None:
        """Return the version of the plugin that Compose builds with, or None if there is none."""
        done = self._commands.run(["docker", "buildx", "version"], env=self._environ, check=False)
        found = re.search(r" v?(\d+\.\d+\S*)", done.stdout)
        return found[1] if found and not done.returncode else None

    def config(self) -> Project:
        """Return the project as Compose resolves it. Raises InvalidComposeFile and other ConfigErrors."""
        try:
            document: dict[str, Any] = json.loads(self._config("json"))
        except CommandFailed as error:
            if "MarshalJSON" not in error.stderr:
                raise
            document = self._config_from_yaml()
        except ValueError:
            document = self._config_from_yaml()
        files = self.selection.files or chosen_files(self.directory, self._environ)
        return parse(document, self.directory, [self.directory / file for file in files])

    def _config(self, format: Literal["json", "yaml"]) -> str:
        # The output is the same without the docker command. Calls that change something take the usual way.
        done = self._run("config", "--format", format, plugin=compose_plugin(self._environ))
        # The output can serve as a compose file, so Compose doubles each dollar sign in it (escapeDollarSign in
        # https://github.com/docker/compose/blob/main/cmd/compose/config.go). Containers get single ones.
        return done.stdout.replace("$$", "$")

    def _config_from_yaml(self) -> dict[str, Any]:
        """Return the same from Compose's YAML: it cannot print some settings as JSON, such as the path of `build.ssh`
        (tried with 2.26 and 2.40).
        """
        import yaml

        try:
            document = yaml.safe_load(self._config("yaml"))
        except yaml.YAMLError as error:
            raise InvalidComposeFile(f"`docker compose config` printed neither JSON nor YAML: {error}") from error
        if not isinstance(document, dict):
            raise InvalidComposeFile("`docker compose config` printed no project")
        return document

    def hashes(self) -> dict[str, str]:
        """Return each service's configuration hash; its containers have it as a label."""
        lines = self._run("config", "--hash", "*", plugin=compose_plugin(self._environ)).stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())

    def create(
        self, services: Sequence[str], *, dependencies: bool = True, recreate: bool = True, force: bool = False
    ) -> Completed:
        """Create networks, volumes and containers of these services and their dependencies. Start nothing.

        Containers whose configuration changed are recreated, unless `recreate` is off. With `force`, all are recreated;
        their anonymous volumes stay.

        Without `dependencies`, Compose treats `depends_on` as empty. That changes the configuration hash, so the
        container counts as changed at the next start.
        """
        words = ["create"] if dependencies else ["up", "--no-start", "--no-deps"]
        kept = ("--force-recreate",) if force else () if recreate else ("--no-recreate",)
        return self._run(*words, "--no-build", "--pull", "never", *kept, *services)

    def replaced_networks(self, services: Sequence[str]) -> list[str]:
        """Return the networks that the next `create` of these services would remove and make again. Changes nothing."""
        lines: list[str] = []
        # It sees to the networks first: what it says after that does not count.
        with suppress(CommandFailed):
            # With dependencies it would ask providers, dry or not.
            words = ("up", "--no-start", "--no-deps", "--no-build", "--pull", "never")
            self._run("--dry-run", *words, *services, on_line=lines.append)
        return re.findall(r"Network (\S+)\s+Remov(?:ed|ing)", "\n".join(lines))

    def start(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Start the containers of these services, and no others."""
        return self._run("up", "-d", "--no-deps", "--no-recreate", "--no-build", *services, on_line=on_line)

    def restart(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Stop and start the containers of these services as they are."""
        return self._run("restart", "--no-deps", *services, on_line=on_line)

    def run_once(self, service: str, command: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Run a command in a new container of the service, which is removed afterwards."""
        return self._run("run", "--rm", "--no-deps", "--no-TTY", service, *command, on_line=on_line, merge=True)

    def build(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Build the images of these services, without attestations unless the user's settings ask for them.

        By default each build gets one that says when it was made, and with it, in some stores, another id of its image
        (https://docs.docker.com/build/metadata/attestations/slsa-provenance/).
        """
        asked = _ATTESTATIONS in self._environ or _ATTESTATIONS in env_file_pairs(self.directory)
        more = {} if asked else {_ATTESTATIONS: "1"}
        # Progress of a build goes to stdout.
        return self._run("--progress", "plain", "build", *services, on_line=on_line, merge=True, more=more)

    def pull(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Pull the images of these services."""
        return self._run("--progress", "plain", "pull", *services, on_line=on_line)

    def stop(self, services: Sequence[str], on_line: OnLine | None = None) -> Completed:
        """Stop the containers of these services; without names, those of all services."""
        return self._run("stop", *services, on_line=on_line)

    def down(self, services: Sequence[str]) -> None:
        """Have these services go: their containers, or what their providers have made."""
        self._run("down", *services)

    def logs(self, words: Sequence[str], on_line: OnLine) -> Completed:
        """Run `docker compose logs WORDS…` and pass on its output line by line."""
        return self._run("logs", *words, on_line=on_line, merge=True)

    def _run(
        self,
        *words: str,
        on_line: OnLine | None = None,
        merge: bool = False,
        plugin: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run Compose, with `more` in its environment. Raises what its message means, or else CommandFailed."""
        argv, environ = self.selection.argv(*words, plugin=plugin), {**self._environ, **(more or {})}
        try:
            return self._commands.run(argv, cwd=self.directory, env=environ, on_line=on_line, merge=merge)
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
