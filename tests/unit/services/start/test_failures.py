"""Messages of Compose and the engine in, failures with a hint out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from builders import project, service

from stackhand.errors import CommandFailed
from stackhand.services.start.failures import create_failure

CONFLICT = (
    'Error response from daemon: Conflict. The container name "/web" is already in use by container "73251a". '
    "You have to remove (or rename) that container to be able to reuse that name."
)
LABEL = "com.docker.compose"


class _Engine:
    def __init__(self, labels: Mapping[str, str] | None) -> None:
        self._labels = labels

    def labels(self, container: str) -> Mapping[str, str] | None:
        assert container == "web"
        return self._labels


@pytest.mark.parametrize(
    ("raw", "labels", "reason", "hint"),
    [
        ({"container_name": "web"}, {}, "not made by Compose", "give the service another container_name, or remove"),
        ({}, {}, "not made by Compose", "give the project another name (COMPOSE_PROJECT_NAME), or remove"),
        (
            {"container_name": "web"},
            {f"{LABEL}.project": "cafe", f"{LABEL}.service": "front", f"{LABEL}.project.working_dir": "/srv/cafe"},
            "the project cafe (service front, folder /srv/cafe)",
            "`docker rm -f web`",
        ),
        (
            {"container_name": "web"},
            {f"{LABEL}.project": "shop", f"{LABEL}.service": "old"},
            "this project, of the service old",
            "`docker rm -f web`",
        ),
        # It is gone by now.
        ({"container_name": "web"}, None, "Conflict. The container name", "docker compose up --no-start a"),
    ],
)
def test_a_name_that_is_taken(raw: dict[str, Any], labels: Mapping[str, str] | None, reason: str, hint: str) -> None:
    engine: Any = _Engine(labels)
    failure = create_failure(engine, project(service("a", raw=raw)), "a", CommandFailed(["docker"], 1, CONFLICT), str)
    assert failure.kind == "name_in_use"
    assert not failure.retry
    assert reason in failure.reason
    assert hint in failure.hint
