"""The Docker SDK: imported at first use, its exceptions turned into our own."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from stackhand.engine.messages import classify, container_is_gone, engine_error
from stackhand.errors import EngineUnreachable, StackError

_importing = threading.Lock()


def load() -> None:
    """Import the SDK, which takes a while. Afterwards, any thread can import its modules.

    Only one thread may do this: the SDK's modules import each other in a circle, and two threads that enter the circle
    at different modules wait for each other, which Python ends with an error.

    It is imported without paramiko, which it wants for ssh:// alone, and which would double the time: see `load_ssh`.
    """
    with _importing, _left_out("paramiko"):
        import docker.errors
        import docker.utils.build  # noqa: F401


def load_ssh() -> None:
    """Import what the SDK needs for an address with ssh://, too."""
    load()
    with _importing:
        import docker.api.client
        from docker.transport.sshconn import SSHHTTPAdapter

        docker.api.client.SSHHTTPAdapter = SSHHTTPAdapter  # type: ignore[attr-defined]


@contextlib.contextmanager
def _left_out(module: str) -> Iterator[None]:
    """Have an import of this module fail, as if it was not installed, where it was not imported before."""
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if sys.modules.get(module) is None:
            sys.modules.pop(module, None)


class ContainerGone(StackError):
    """The container of a call does not exist or does not run any more."""


@contextlib.contextmanager
def errors(keep: type[Exception] | None = None) -> Iterator[None]:
    """Turn the SDK's exceptions into ours; those of the class `keep` pass as they are."""
    load()
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    try:
        yield
    except docker.errors.NotFound as error:
        if keep and isinstance(error, keep):
            raise
        text = str(error.explanation or error)
        raise ContainerGone(text, foreign=text) from error
    except docker.errors.APIError as error:
        text = str(error.explanation or error)
        if container_is_gone(text):
            raise ContainerGone(text, foreign=text) from error
        refused = StackError(f"the engine refused: {text}", classify(text).hint, foreign=text)
        raise engine_error(text) or refused from error
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        docker.errors.DockerException,
        OSError,
    ) as error:
        short = _short(error)
        raise EngineUnreachable(
            f"the engine does not answer: {short}", "see `inv engine.check`", foreign=short
        ) from error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
