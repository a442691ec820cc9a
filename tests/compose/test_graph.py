"""services.graph in all its formats."""

from __future__ import annotations

from xml.etree import ElementTree

from shapes import after, plain
from support import Project


def test_graph(project: Project) -> None:
    project.services(db=plain(), api=plain(depends_on=after(db="healthy")), alone=plain())
    text = project.inv("services.graph")
    assert text.code == 0, text
    assert "api  needs db (healthy)" in text.stdout
    picture = project.inv("services.graph", "--format", "svg")
    assert ElementTree.fromstring(picture.stdout).tag.endswith("svg")
    assert project.inv("services.graph", "--format", "dot").stdout.startswith("digraph")
    assert project.inv("services.graph", "--format", "mermaid").stdout.startswith("flowchart")
    document = project.inv("services.graph", "--json", "-s", "api").json()
    assert document["steps"] == [["db"], ["api"]]
    wrong = project.inv("services.graph", "--format", "png")
    assert wrong.code == 2
    assert "text, dot, mermaid, svg" in wrong.stderr
