"""The dependency graph as text, DOT, Mermaid or SVG. Pure functions on the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape

from stackhand.engine.compose.project import Dependency, Project
from stackhand.graph import schedule
from stackhand.services.start.plan import needs

FORMATS = ("text", "dot", "mermaid", "svg")

_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}
# SVG measures, in pixels. A character of the font is at most this wide.
_CHAR, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN, _PADDING = 8, 34, 110, 22, 20, 14


def draw(project: Project, names: list[str], form: str) -> str:
    """Return the graph of these services in one of FORMATS."""
    return {"text": _text, "dot": _dot, "mermaid": _mermaid, "svg": _svg}[form](project, names)


def document(project: Project, names: list[str]) -> dict[str, Any]:
    """Return the graph for `services.graph --json`: the services in steps, and the edges."""
    return {
        "project": project.name,
        "ok": True,
        "steps": schedule.levels(needs(project, names)),
        "edges": [{**asdict(entry), "needs": entry.service, "service": name} for name, entry in _edges(project, names)],
    }


def label(dependency: Dependency) -> str:
    """Return how an edge is labelled.

    >>> label(Dependency("db", "service_healthy", required=False))
    'healthy, optional'
    """
    words = [_CONDITIONS[dependency.condition]]
    if not dependency.required:
        words.append("optional")
    if dependency.restart:
        words.append("restart")
    return ", ".join(words)


def _edges(project: Project, names: list[str]) -> list[tuple[str, Dependency]]:
    return [
        (name, dependency)
        for name in project.services
        if name in names
        for dependency in project.services[name].depends_on
        if dependency.service in names
    ]


def _text(project: Project, names: list[str]) -> str:
    lines = []
    for number, level in enumerate(schedule.levels(needs(project, names)), start=1):
        lines.append(f"step {number}")
        for name in sorted(level):
            wanted = [f"{d.service} ({label(d)})" for service, d in _edges(project, names) if service == name]
            lines.append(f"  {name}" + (f"  needs {', '.join(wanted)}" if wanted else ""))
    return "\n".join(lines)


def _dot(project: Project, names: list[str]) -> str:
    quoted = {name: '"' + name.replace('"', '\\"') + '"' for name in names}
    lines = [f"digraph {_quote(project.name)} {{", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    lines += [f"  {quoted[name]};" for name in project.services if name in names]
    for name, dependency in _edges(project, names):
        style = "" if dependency.required else ", style=dashed"
        lines.append(f"  {quoted[dependency.service]} -> {quoted[name]} [label={_quote(label(dependency))}{style}];")
    return "\n".join([*lines, "}"])


def _quote(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _mermaid(project: Project, names: list[str]) -> str:
    # Names may hold characters that Mermaid takes for syntax; ids are therefore numbers.
    ids = {name: f"s{index}" for index, name in enumerate(name for name in project.services if name in names)}
    lines = ["flowchart LR", *(f'  {ids[name]}["{name.replace(chr(34), "#quot;")}"]' for name in ids)]
    for name, dependency in _edges(project, names):
        arrow = "-->" if dependency.required else "-.->"
        lines.append(f'  {ids[dependency.service]} {arrow}|"{label(dependency)}"| {ids[name]}')
    return "\n".join(lines)


def _svg(project: Project, names: list[str]) -> str:
    """Draw each step of the start as a column, ordered so that edges cross little."""
    columns = _ordered(schedule.levels(needs(project, names)), project, names)
    widths = [max(len(name) for name in column) * _CHAR + 2 * _PADDING for column in columns]
    tallest = max((len(column) for column in columns), default=0)
    height = tallest * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    place: dict[str, tuple[int, int, int]] = {}
    x = _MARGIN
    for column, width in zip(columns, widths, strict=True):
        top = (height - len(column) * (_HEIGHT + _GAP_Y) + _GAP_Y) // 2
        for row, name in enumerate(column):
            place[name] = (x, top + row * (_HEIGHT + _GAP_Y), width)
        x += width + _GAP_X
    total = x - _GAP_X + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
            f'viewBox="0 0 {total} {height}" font-family="monospace" font-size="13">',
            f"<title>{escape(project.name)}</title>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#57606a"/></marker></defs>',
            f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
            *(_svg_edge(place, name, dependency) for name, dependency in _edges(project, names)),
            *(_svg_node(name, at) for name, at in place.items()),
            "</svg>",
        ]
    )


def _ordered(levels: list[list[str]], project: Project, names: list[str]) -> list[list[str]]:
    """Order each column by the mean row of what it depends on (the barycentre rule of layered drawing)."""
    row: dict[str, float] = {}
    columns = []
    wanted = needs(project, names)
    for level in levels:

        def key(name: str) -> tuple[float, str]:
            rows = [row[need] for need in wanted[name] if need in row]
            return (sum(rows) / len(rows) if rows else 0.0, name)

        column = sorted(level, key=key)
        row.update({name: (index + 0.5) / len(column) for index, name in enumerate(column)})
        columns.append(column)
    return columns


def _svg_node(name: str, at: tuple[int, int, int]) -> str:
    x, y, width = at
    return (
        f'<g><rect x="{x}" y="{y}" width="{width}" height="{_HEIGHT}" rx="6" fill="#ddf4ff" stroke="#0969da"/>'
        f'<text x="{x + width / 2:g}" y="{y + _HEIGHT / 2 + 4.5:g}" text-anchor="middle">{escape(name)}</text></g>'
    )


def _svg_edge(place: Mapping[str, tuple[int, int, int]], name: str, dependency: Dependency) -> str:
    x1, y1, width = place[dependency.service]
    x2, y2, _ = place[name]
    x1, y1, y2 = x1 + width, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
    bend = max(30, (x2 - x1) // 2)
    dash = "" if dependency.required else ' stroke-dasharray="5 4"'
    path = f"M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return (
        f'<path d="{path}" fill="none" stroke="#57606a"{dash} marker-end="url(#arrow)">'
        f"<title>{escape(name)} needs {escape(dependency.service)} ({label(dependency)})</title></path>"
    )
