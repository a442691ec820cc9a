"""Helper containers: one is made for one program, and removed after it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stackhand.engine.api.exec import NOT_FOUND, ExecResult
from stackhand.engine.api.sdk import errors, load
from stackhand.errors import StackError

# Says what a helper was made for, should it outlive a run that was killed.
LABEL = "stackhand.helper"


@dataclass(frozen=True)
class Helper:
    """A container to make: the program `argv` of an image, which has to be there, and nothing of the image's own.

    `purpose` is the value of its label. `network` is "none" or "container:ID", the namespace that it joins. `binds`
    are volumes and folders, written as `docker run --volume` has them.
    """

    image: str
    argv: tuple[str, ...]
    purpose: str
    network: str = "none"
    binds: tuple[str, ...] = ()
    user: str = "0:0"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def run(api: Any, helper: Helper, timeout: float | None = None) -> ExecResult:
    """Run a helper to its end, or for `timeout` seconds; then remove it, and the volumes that its image asks for.

    Raises StackError where it cannot be made, EngineUnreachable.
    """
    began = time.monotonic()
    made = _create(api, helper)
    try:
        try:
            with errors():
                api.start(made)
        except StackError:
            # A program that is not in the image: moby, daemon/errors.go (setExitCodeFromError).
            with errors():
                state = api.inspect_container(made)["State"]
            if state.get("ExitCode") not in NOT_FOUND:
                raise
            return ExecResult(int(state["ExitCode"]), "", str(state.get("Error") or ""))
        code = _wait(api, made, timeout)
        with errors():
            stdout: bytes = api.logs(made, stdout=True, stderr=False)
            stderr: bytes = api.logs(made, stdout=False, stderr=True)
    finally:
        with contextlib.suppress(Exception):
            api.remove_container(made, force=True, v=True)
    seconds = time.monotonic() - began
    return ExecResult(code, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), seconds)


def _create(api: Any, helper: Helper) -> str:
    load()
    import docker.errors

    try:
        with errors(keep=docker.errors.ImageNotFound):
            made: str = api.create_container(
                helper.image,
                entrypoint=[helper.argv[0]],
                command=list(helper.argv[1:]),
                user=helper.user,
                environment=dict(helper.environment),
                network_disabled=helper.network == "none",
                labels={LABEL: helper.purpose},
                host_config=api.create_host_config(binds=list(helper.binds), network_mode=helper.network),
            )["Id"]
    except docker.errors.ImageNotFound as error:
        raise StackError(
            f"there is no image {helper.image} here", f"`docker pull {helper.image}` fetches it"
        ) from error
    return made


def _wait(api: Any, container: str, timeout: float | None) -> int | None:
    """Return a container's exit code once it has ended, None after `timeout` seconds."""
    import requests.exceptions

    began = time.monotonic()
    with errors():
        try:
            return int(api.wait(container, timeout=timeout)["StatusCode"])
        except requests.exceptions.RequestException:
            # The time-out of reading has several names in requests; an engine that is gone is told at once.
            if timeout is None or time.monotonic() - began < timeout:
                raise
            return None
