"""The groups of the tests, and what those of a real Docker engine stand on: tests/engine, tests/reference, tests/crash.

The folder of a test says its group, which is its marker, too; tests/groups.py lists them with their budgets.

How tests on an engine work:

- They need an engine with the Compose plugin. Without one they are skipped on a laptop, and the run's last lines say
  so; with CI=true or STACKHAND_ENGINE_TESTS=require they fail instead.
- `project` is a fresh folder with a Compose project name of its own. Whatever the engine has of it afterwards is
  removed by label, also when the test failed or wrote a broken compose file.
- `project.services(web={...})` writes a compose file whose services use IMAGE, a busybox of 2 MB that is built here
  from the distribution's package: it starts in 0.3 s and needs no registry.
- `project.inv("up", "--json")` runs stackhand to its end and returns code, stdout, stderr and `.json()`;
  `project.start_inv(...)` leaves it running, to look at, signal or kill.
- A test that proves how stackhand uses the engine is marked `mechanism`. CI runs it on two engines: the
  distribution's, and today's, which tests/engines/current.sh brings up.
- `reference` is the reference stack, real Postgres, PgBouncer, Redis, Celery, Caddy: one for the whole run, or, side by
  side, one for each of two load groups. Its tests leave it whole.
- Tests run side by side (`-n auto --dist loadgroup`), while other projects use the engine: never stop it, never
  prune, never count all containers. Tests that share something, as the reference stack, run one after another in
  one worker: they are an `xdist_group`.
- The machine may be busy with other things. Wait for what must happen with `until`, as long as it takes; assert
  order and counts, not seconds.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient
from groups import BUDGETS, NEED_AN_ENGINE, Times, group_of
from reference_stack import Reference
from support import IMAGE, Project, clean_environment, fetched_package, one_at_a_time, state_elsewhere, warm

from stackhand.engine.api import endpoint
from stackhand.errors import StackError

_NO_ENGINE = "needs an engine, and there is none"

_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /tmp /var/run /root /etc && chmod 1777 /tmp && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
ENV PATH=/bin
CMD ["sleep", "infinity"]
"""


def pytest_configure(config: pytest.Config) -> None:
    for group in BUDGETS:
        config.addinivalue_line("markers", f"{group}: the tests of tests/{group}")
    config.addinivalue_line("markers", "mechanism: proves on a real engine how stackhand uses it; CI runs it on two")
    # A run in the background of a shell is told to ignore Ctrl-C, and so would be all that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A plugin, and not hooks of this file: the doctests lie in another folder.
    config.pluginmanager.register(_Summary())


class _Summary:
    """Says at the end of a run how long each group took, and that tests were skipped for want of an engine."""

    def __init__(self) -> None:
        self.times = Times()
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.times.add(report.nodeid, report.when, report.duration)
        if report.skipped and isinstance(report.longrepr, tuple) and _NO_ENGINE in report.longrepr[2]:
            self.skipped.append(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("time of each group's tests, added up, and its budget")
        for line in self.times.lines():
            terminalreporter.line(line)
        if self.skipped:
            terminalreporter.section("ENGINE TESTS WERE SKIPPED", red=True)
            terminalreporter.line(f"{self.skipped[0]}; `./inv engine.install` sets up an engine on Debian and Ubuntu")


# First, because xdist reads the marks of its load groups in this hook, too.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(group_of(item.nodeid))
        if "reference" in getattr(item, "fixturenames", ()):
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("reference"))
            # The first of them waits for the stack.
            item.add_marker(pytest.mark.timeout(1200))


def pytest_xdist_auto_num_workers() -> int:
    # One more than there are cores: a test on an engine waits most of the time.
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure() -> None:
    if warm.cache_info().currsize:
        warm().close()


@pytest.fixture(autouse=True)
def _needs_engine(request: pytest.FixtureRequest) -> None:
    """Make every test of some groups depend on the engine."""
    if group_of(request.node.nodeid) in NEED_AN_ENGINE:
        request.getfixturevalue("engine")


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
        with state_elsewhere():
            yield client
        client.close()


@pytest.fixture(scope="session")
def image(engine: APIClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny image of the engine tests. Built anew, which costs nothing with the engine's cache."""
    folder = tmp_path_factory.mktemp("busybox")
    with one_at_a_time("image"):
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


@pytest.fixture(scope="session")
def reference_of_the_run(engine: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The reference stack, started once for all tests that use it; they leave it whole."""
    name = f"sh-reference-{secrets.token_hex(3)}"
    stack = Reference.prepare(tmp_path_factory.mktemp("reference") / "stack", name, engine)
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def reference(reference_of_the_run: Reference) -> Iterator[Reference]:
    """The reference stack. What a test left running is ended: the next one shares the stack, and its lock."""
    yield reference_of_the_run
    reference_of_the_run.close()


def _without_engine(reason: str) -> None:
    if os.environ.get("CI") == "true" or os.environ.get("STACKHAND_ENGINE_TESTS") == "require":
        pytest.fail(f"engine tests are required here, and {reason}", pytrace=False)
    pytest.skip(f"{_NO_ENGINE}: {reason}")


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
