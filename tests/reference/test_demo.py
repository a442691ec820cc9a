"""The demonstration, from a checkout with nothing made yet to a machine with nothing left."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from reference_stack import CURRENT
from support import CHECKOUT, Project

_COPIED = ("tasks", "tasks.py", "invoke.yaml", "examples")
_LEFT_OUT = shutil.ignore_patterns("secrets", ".stackhand", ".*_cache", "__pycache__")


@pytest.fixture
def checkout(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of this checkout; its demonstration has the test's own project name, and a free port."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in _COPIED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    copy = replace(
        project,
        directory=folder,
        env={**project.env, "AI_WORKFLOW_PORT": port, "PYTHONPATH": str(folder / "tasks")},
    )
    yield copy
    copy.close()


# Before all other tests of the reference stack: on a fresh machine it makes the images and their base.
@pytest.mark.xdist_group("reference")
@pytest.mark.timeout(1800)
@pytest.mark.skipif(CURRENT, reason="the demonstration has the usual servers")
def test_the_whole_demonstration(checkout: Project) -> None:
    below = checkout.directory / "examples"
    result = checkout.inv("demo", "--json", cwd=below, timeout=1500)
    assert result.code == 0, result
    document = result.json()
    assert document["ok"] is True
    assert document["project"] == checkout.name
    assert {each["state"] for each in document["services"]} <= {"healthy", "running", "completed"}
    assert document["task"]["state"] == "SUCCESS"
    assert document["task"]["result"]["words"] == 11
    assert document["fixes"] == []
    assert document["repair"]["ok"] is True
    repaired = {each["finding"] for each in document["repair"]["fixes"]}
    assert {"postgres.role", "postgres.auth_query"} <= repaired
    assert document["repair"]["task"]["state"] == "SUCCESS"
    for secret in (checkout.directory / "examples/ai-workflow/secrets").glob("*.txt"):
        assert secret.read_text() not in result.stdout + result.stderr

    other = checkout.directory / "other"
    shutil.copytree(checkout.directory / "examples", other / "examples")
    shutil.copytree(checkout.directory / "tasks", other / "tasks")
    shutil.copy(checkout.directory / "tasks.py", other)
    refused = checkout.inv("demo", "--remove", cwd=other, env={"PYTHONPATH": str(other / "tasks")})
    assert refused.code == 2, refused
    assert "that is not this one" in refused.stderr
    assert checkout.containers()

    removed = checkout.inv("demo", "--remove")
    assert removed.code == 0, removed
    assert checkout.containers() == []
    assert not (checkout.directory / "examples/ai-workflow/secrets").exists()
