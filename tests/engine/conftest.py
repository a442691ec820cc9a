"""Engine tests: stackhand against a real Docker engine.

How they work:

- Every test here needs an engine with the Compose plugin. Without one they are skipped on a laptop, and the
  run's last lines say so; with CI=true or STACKHAND_ENGINE_TESTS=require they fail instead.
- `project` is a fresh folder with a Compose project name of its own. Whatever the engine has of it afterwards
  is removed by label, also when the test failed or wrote a broken compose file.
- `project.services(web={...})` writes a compose file whose services use IMAGE, a busybox of 2 MB that is
  built here from the distribution's package: it starts in 0.3 s and needs no registry.
- `project.inv("up", "--json")` runs stackhand as a process and returns code, stdout, stderr and `.json()`;
  `project.start_inv(...)` leaves it running, to look at, signal or kill.
- `reference` is the reference stack, real Postgres, PgBouncer, Redis, Celery, Caddy: one for each module.
- Tests may run while other projects use the engine: never stop it, never prune, never count all containers.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient
from reference import Reference
from support import IMAGE, Project, clean_environment, fetched_package, state_elsewhere

from stackhand.engine.api import endpoint
from stackhand.errors import StackError

_HERE = Path(__file__).parent
_skipped: list[str] = []

_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /var/run /root /etc && chmod 1777 /tmp && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
ENV PATH=/bin
CMD ["sleep", "infinity"]
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.engine)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        terminalreporter.section("ENGINE TESTS WERE SKIPPED", red=True)
        terminalreporter.line(f"{_skipped[0]}; `./inv engine.install` sets up an engine on Debian and Ubuntu")


@pytest.fixture(scope="session")
def engine() -> Iterator[APIClient]:
    """The engine's low-level client; what needs it is skipped or, in CI, failed without an engine."""
    try:
        client = endpoint.connect(endpoint.resolve(os.environ), os.environ)
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True, timeout=60)
    except StackError as error:
        _without_engine(error.message)
    except (OSError, subprocess.SubprocessError) as error:
        _without_engine(f"the Compose plugin is missing: {error}")
    else:
        yield client
        client.close()


@pytest.fixture(scope="session")
def image(engine: APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny image of the engine tests. Built anew, which costs nothing with the engine's cache."""
    folder = tmp_path_factory.mktemp("busybox")
    shutil.copy(_static_busybox(folder), folder / "busybox")
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    (folder / ".dockerignore").write_text("*\n!busybox\n!Dockerfile\n")
    for message in engine.build(path=str(folder), tag=IMAGE, rm=True, decode=True):
        assert "error" not in message, message["error"]
    return IMAGE


@pytest.fixture
def project(engine: APIClient, image: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A Compose project of this test's own; gone when the test is over."""
    name = f"sh-{_slug(request.node.name)}-{secrets.token_hex(3)}"
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(folder, clean_environment(COMPOSE_PROJECT_NAME=name), name=name, client=engine)
    try:
        yield project
    finally:
        project.remove()


@pytest.fixture(scope="module")
def reference(
    engine: APIClient, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Reference]:
    """The reference stack, started once for all tests of a module, which leave it whole."""
    name = f"sh-ref-{_slug(Path(request.node.name).stem)}-{secrets.token_hex(3)}"
    stack = Reference.prepare(tmp_path_factory.mktemp("reference") / "stack", name, engine)
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="session", autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield


@pytest.fixture(autouse=True)
def _needs_engine(engine: APIClient) -> None:
    """Make every test of this folder depend on the engine."""


def _without_engine(reason: str) -> None:
    if os.environ.get("CI") == "true" or os.environ.get("STACKHAND_ENGINE_TESTS") == "require":
        pytest.fail(f"engine tests are required here, and {reason}", pytrace=False)
    _skipped.append(reason)
    pytest.skip(reason)


def _slug(name: str) -> str:
    # Project names take lower-case letters, digits and hyphens; short ones keep `docker ps` readable.
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("test_"))[:30].strip("-")


def _static_busybox(folder: Path) -> Path:
    """Return a busybox that needs no libraries: the installed one, else the distribution's, unpacked."""
    for candidate in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        # ldd fails on a static program.
        if candidate.exists() and subprocess.run(["ldd", candidate], capture_output=True, check=False).returncode:
            return candidate
    folder = fetched_package("busybox-static", folder)
    return next(path for path in (folder / "bin/busybox", folder / "usr/bin/busybox") if path.exists())
