"""Tests that need the Compose CLI and no engine: what ends before a container would be made.

`project` has an endpoint where no engine is, so a test that needs one fails.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Project, clean_environment, state_elsewhere

NOWHERE = "unix:///no-engine-in-tests-of-compose.sock"


@pytest.fixture(scope="session", autouse=True)
def _compose() -> None:
    try:
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the Compose plugin is required here: {error}", pytrace=False)
        pytest.skip(f"the Compose plugin is missing: {error}")


@pytest.fixture(autouse=True)
def _state_is_elsewhere() -> Iterator[None]:
    with state_elsewhere():
        yield


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A Compose project of this test's own."""
    folder = tmp_path / "project"
    folder.mkdir()
    project = Project(
        folder, clean_environment(COMPOSE_PROJECT_NAME="sh-compose", DOCKER_HOST=NOWHERE), name="sh-compose"
    )
    yield project
    project.close()
