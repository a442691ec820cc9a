"""What people get wrong and the engine has a part in: exit code, one line that says it, one that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from shapes import after, plain
from support import IMAGE, Project


@pytest.mark.parametrize("what", ["secret", "config"])
def test_a_missing_file(project: Project, what: str) -> None:
    file = {"key": {"file": "./key.txt"}}
    project.write({"services": {"web": {"image": IMAGE, f"{what}s": ["key"]}}, f"{what}s": file})
    result = project.inv("services.start", "--json")
    assert result.code == 2, result
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], result
    assert "key.txt" in lines[0]
    assert "create the file" in lines[1]
    assert "Traceback" not in result.stderr
    document: dict[str, Any] = result.json()
    assert document["ok"] is False
    assert project.containers() == []


@pytest.mark.mechanism
def test_a_missing_file_stops_only_who_needs_it(project: Project) -> None:
    project.write(
        {
            "services": {
                "web": {"image": IMAGE, "secrets": ["key"], "stop_grace_period": "0s"},
                "other": {"image": IMAGE, "stop_grace_period": "0s"},
            },
            "secrets": {"key": {"file": "./key.txt"}},
        }
    )
    assert project.inv("services.start", "-s", "other").code == 0
    result = project.inv("services.start")
    assert result.code == 2, result
    assert "service web needs secret key" in result.stderr


# Reads everything, as the tests' own folders and packages may belong to root, and may not write to the socket.
_UNPRIVILEGED = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("task", ["services.start", "services.status", "services.fixes", "engine.check", "up.web"])
def test_no_permission_on_the_socket(project: Project, task: str) -> None:
    project.services(web=plain(), db=plain(depends_on=after(web="started")))
    program = "from stackhand.cli.program import main; main()"
    done = subprocess.run(
        [*_UNPRIVILEGED, sys.executable, "-c", program, task, "--json"],
        cwd=project.directory, env=project.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert "permission" in errors[0]
    assert "group `docker`" in errors[1]
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["ok"] is False
