"""Makes the facts that unit tests hand in: projects, containers, records. What a test does not name is all right."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from stackhand.engine.api.containers import Container, Healthcheck
from stackhand.engine.compose.project import Dependency, Project, Service

START = datetime(2026, 11, 23, 15, 46, 7, tzinfo=timezone.utc)
CHECK = Healthcheck(argv=("true",), interval=10.0, timeout=3.0)
HASH = "hash-as-configured"
IMAGE_ID = "sha256:as-configured"
ON = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}


def needs(service: str, condition: str = "service_started", **more: bool) -> Dependency:
    """Return one depends_on entry."""
    return Dependency(service, condition, **more)  # type: ignore[arg-type]


def service(name: str, *depends_on: str | Dependency, **more: Any) -> Service:
    """Return a service; a dependency that is only a name waits for that service's health."""
    entries = tuple(needs(each, "service_healthy") if isinstance(each, str) else each for each in depends_on)
    return Service(name=name, image=more.pop("image", f"image/{name}"), depends_on=entries, **more)


def project(*services: Service, name: str = "shop", directory: Path = Path("/shop"), **more: Any) -> Project:
    """Return a project of these services."""
    return Project(name=name, directory=directory, services={each.name: each for each in services}, **more)


def graph(edges: Mapping[str, list[str]], **more: Any) -> Project:
    """Return a project from plain names: each service with those whose health it waits for."""
    return project(*(service(name, *wanted) for name, wanted in edges.items()), **more)


def container(name: str = "web", **more: Any) -> Container:
    """Return a container that runs, configured as its service is. `status=` and the like make it something else."""
    facts: dict[str, Any] = {
        "id": f"id-{name}-{more.get('number', 1)}",
        "name": f"shop-{name}-{more.get('number', 1)}",
        "service": name,
        "status": "running",
        "started_at": START,
        "config_hash": HASH,
        "image_id": IMAGE_ID,
    }
    return Container(**{**facts, **more})


def healthy(name: str = "web", **more: Any) -> Container:
    """Return a container that its own healthcheck is content with."""
    return container(name, **{"health": "healthy", "healthcheck": CHECK, **more})


def ended(name: str = "web", code: int = 0, **more: Any) -> Container:
    """Return a container that has run and ended."""
    finished = START + timedelta(seconds=2)
    return container(name, **{"status": "exited", "exit_code": code, "finished_at": finished, **more})
