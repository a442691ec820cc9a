"""The graph drawn: readable by whatever reads it, whatever the names are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from builders import graph, needs, project, service

from stackhand.engine.compose.project import Project
from stackhand.services import graph as drawing

SVG = "{http://www.w3.org/2000/svg}"
STACK = project(
    service("db"),
    service("migrate", "db"),
    service("cache"),
    service(
        "api",
        needs("migrate", "service_completed_successfully"),
        needs("cache", required=False),
        needs("db", "service_healthy", restart=True),
    ),
)
ODD = project(
    service('<a & "b">'),
    service("x-y_z.1", '<a & "b">'),
    service("end", "x-y_z.1"),
    name='<shop & "co">',
)
ALONE = graph({"only": []})
WIDE = graph({"base": [], **{f"s{n}": ["base"] for n in range(40)}, "a-name-that-is-rather-long-to-read": ["s3"]})
STACKS = {"stack": STACK, "odd": ODD, "alone": ALONE, "wide": WIDE, "empty": project()}


def parsed(stack: Project) -> ElementTree.Element:
    return ElementTree.fromstring(drawing.draw(stack, list(stack.services), "svg"))


@pytest.mark.parametrize("name", STACKS)
def test_svg_is_xml_with_every_service_and_edge(name: str) -> None:
    stack = STACKS[name]
    root = parsed(stack)
    assert root.tag == f"{SVG}svg"
    assert sorted(each.text or "" for each in root.iter(f"{SVG}text")) == sorted(stack.services)
    titles = [each.findtext(f"{SVG}title") for each in root.iter(f"{SVG}path") if each.get("d", "").count("C")]
    wanted = [(one.name, entry.service) for one in stack.services.values() for entry in one.depends_on]
    assert len(titles) == len(wanted)
    for one, other in wanted:
        assert any((title or "").startswith(f"{one} needs {other} (") for title in titles)


@pytest.mark.parametrize("name", ["stack", "odd", "alone", "wide"])
def test_svg_boxes_lie_inside_the_picture_and_apart(name: str) -> None:
    root = parsed(STACKS[name])
    width, height = int(root.get("width", 0)), int(root.get("height", 0))
    boxes = [
        tuple(float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        for group in root.iter(f"{SVG}g")
        for rect in group.iter(f"{SVG}rect")
    ]
    assert len(boxes) == len(STACKS[name].services)
    for x, y, w, h in boxes:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_svg_dashes_what_is_optional() -> None:
    dashed = [p.findtext(f"{SVG}title") for p in parsed(STACK).iter(f"{SVG}path") if p.get("stroke-dasharray")]
    assert dashed == ["api needs cache (started, optional)"]


def test_text() -> None:
    assert drawing.draw(STACK, list(STACK.services), "text").splitlines() == [
        "step 1",
        "  cache",
        "  db",
        "step 2",
        "  migrate  needs db (healthy)",
        "step 3",
        "  api  needs migrate (completed), cache (started, optional), db (healthy, restart)",
    ]


def test_dot() -> None:
    text = drawing.draw(ODD, list(ODD.services), "dot")
    assert text.startswith('digraph "<shop & \\"co\\">" {')
    assert '"<a & \\"b\\">" -> "x-y_z.1" [label="healthy"];' in text
    assert text.count("{") == text.count("}")
    assert 'label="started, optional", style=dashed' in drawing.draw(STACK, list(STACK.services), "dot")


def test_mermaid_ids_hold_no_names_and_labels_no_quotes() -> None:
    lines = drawing.draw(ODD, list(ODD.services), "mermaid").splitlines()
    assert lines[0] == "flowchart LR"
    nodes = [found for line in lines if (found := re.fullmatch(r'  (s\d+)\["(.*)"\]', line))]
    assert len(nodes) == 3
    # A quotation mark ends the label; Mermaid takes the entity for one.
    assert all('"' not in node[2] for node in nodes)
    edges = [line for line in lines if "-->" in line]
    assert edges == ['  s0 -->|"healthy"| s1', '  s1 -->|"healthy"| s2']


@pytest.mark.parametrize("form", drawing.FORMATS)
@pytest.mark.parametrize("name", STACKS)
def test_every_format_draws_everything(form: str, name: str) -> None:
    text = drawing.draw(STACKS[name], list(STACKS[name].services), form)
    if name in ("stack", "wide"):
        assert all(each in text for each in STACKS[name].services)


def test_only_the_chosen_services() -> None:
    text = drawing.draw(STACK, ["db", "migrate"], "text")
    assert "api" not in text
    assert "cache" not in text


def test_document() -> None:
    document = drawing.document(STACK, list(STACK.services))
    assert document["steps"][-1] == ["api"]
    assert {"service": "migrate", "needs": "db"}.items() <= next(
        edge for edge in document["edges"] if edge["service"] == "migrate"
    ).items()
