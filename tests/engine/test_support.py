"""The engine tests' own ground: image, project, clean-up."""

from __future__ import annotations

from docker import APIClient
from support import IMAGE, Project


def test_a_project_starts_and_leaves_nothing(engine: APIClient, project: Project) -> None:
    project.services(one={}, two={"volumes": ["data:/data"], "command": "sh -c 'exit 3'"})
    text = (project.directory / "compose.yaml").read_text() + "volumes: {data: {}}\n"
    project.write(text)
    project.compose("up", "-d", "--quiet-pull")
    assert project.container("one")["Config"]["Image"] == IMAGE
    assert project.states()["one"] == "running"

    project.write("services: [broken")
    project.remove()

    mine = {"label": f"com.docker.compose.project={project.name}"}
    assert project.containers() == []
    assert engine.networks(filters=mine) == []
    assert not engine.volumes(filters=mine)["Volumes"]
