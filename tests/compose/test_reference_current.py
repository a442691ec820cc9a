"""The reference stack with today's servers, as Compose resolves it."""

from __future__ import annotations

import json
import subprocess

from support import CHECKOUT, clean_environment


def test_every_service_is_built_with_todays_servers() -> None:
    done = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", "-f", "compose.current.yaml", "config", "--format", "json"],
        cwd=CHECKOUT / "examples/ai-workflow",
        env=clean_environment(AI_WORKFLOW_BASE="base:1"),
        capture_output=True,
        text=True,
        check=True,
    )
    services = json.loads(done.stdout)["services"]
    assert {each["image"].startswith("ai-workflow-current-") for each in services.values()} == {True}
    assert {each["build"]["args"]["BASE"] for each in services.values()} == {"base:1"}
    given = {name: each["build"]["args"].get("POSTGRES") for name, each in services.items()}
    assert {name: version for name, version in given.items() if version} == {"postgres": "18", "pgbouncer": "18"}
