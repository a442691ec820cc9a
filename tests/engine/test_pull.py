"""Images that have to be pulled, from a real registry (Debian's docker-registry) on the loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shapes import by_name, check_start_document, needs_compose, until
from support import IMAGE, Project, fetched_package

pytestmark = pytest.mark.xdist_group("registry")
CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of the test's own; its address. The engine trusts the loopback without TLS."""
    folder = tmp_path_factory.mktemp("registry")
    program = shutil.which("docker-registry") or str(
        fetched_package("docker-registry", folder) / "usr/bin/docker-registry"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        until(lambda: _answers(port), "the registry answers")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def published(registry: str) -> Iterator[str]:
    """An image that the registry has and the engine has not."""
    name = f"{registry}/stackhand-test/pulled:{os.getpid()}"
    for words in (["tag", IMAGE, name], ["push", "-q", name], ["rmi", name]):
        subprocess.run(["docker", *words], check=True, capture_output=True)
    yield name
    subprocess.run(["docker", "rmi", "-f", name], check=False, capture_output=True)


@pytest.mark.mechanism
def test_what_is_missing_is_pulled(project: Project, published: str) -> None:
    service: dict[str, Any] = {"image": published, "command": ["sleep", "1000"], "init": True}
    project.services(web=service, twin=service, gone={**service, "image": published + "-gone"})
    result = project.inv("services.start", "--json", "-s", "web", "-s", "twin")
    assert result.code == 0, result
    document = result.json()
    check_start_document(document)
    assert [each["state"] for each in document["services"]] == ["running", "running"]
    # One image, one pull, and it is told while it goes on.
    assert result.stderr.count("pulling its image") == 1

    failing = project.inv("services.start", "--json")
    assert failing.code == 1, failing
    services = by_name(failing.json())
    assert services["web"]["state"] == services["twin"]["state"] == "running"
    assert services["gone"]["error"]["kind"] == "image_not_found"
    assert services["gone"]["attempts"] == 0


@pytest.mark.mechanism
def test_a_registry_that_is_away(project: Project, registry: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    project.services(web={"image": f"{nobody}/some/image:1", "command": ["sleep", "1000"]})
    result = project.inv("services.start", "--json")
    assert result.code == 1, result
    assert by_name(result.json())["web"]["error"]["kind"] == "registry_unreachable"


@pytest.mark.mechanism
def test_an_image_is_pulled_again_after_the_time_of_its_policy(project: Project, published: str) -> None:
    needs_compose(project, 2, 36)
    service: dict[str, Any] = {
        "image": published,
        "command": ["sleep", "1000"],
        "init": True,
        "stop_grace_period": "0s",
    }
    project.services(web={**service, "pull_policy": "every_1h"})
    assert project.inv("services.start").code == 0
    old = project.container("web")["Image"]
    # The registry gets a newer one, the engine keeps what it has.
    (project.directory / "Dockerfile").write_text(f"FROM {published}\nLABEL newer=yes\n")
    for words in (["build", "-q", "-t", published, "."], ["push", "-q", published], ["tag", old, published]):
        project.docker(*words)
    again = project.inv("services.start")
    assert again.code == 0, again
    assert "pulling" not in again.stderr
    assert project.container("web")["Image"] == old

    project.services(web={**service, "pull_policy": "every_1s"})
    until(
        lambda: "pull web: pull_policy: every_1s" in project.inv("--dry", "services.start").stdout, "a second is over"
    )
    renewed = project.inv("services.start")
    assert renewed.code == 0, renewed
    assert project.container("web")["Image"] != old
